"""Loaders of records, each with a good file and what a damaged one is to give."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
import io
import json
import pathlib
import re
import tomllib
from collections.abc import Callable
from typing import Any

import damage
import human_study
import strictly as s
from hypothesis import strategies as st
from made_pair import make_pair

from rlcd_jax import done_mark, metric_rows, record_files, records, schema, tasks
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.diagnosis import label_noise_files
from rlcd_jax.human import checks, reading, sheets, study_files
from rlcd_jax.judging import verdicts


@dataclasses.dataclass(frozen=True)
class Case:
    """A loader under damage.

    Attributes:
      path: the file that is damaged.
      damaged: strategy of its content.
      read: loads it, and returns what it found as JSON would say it.
      oracle: what is to be found in a content; raises `strictly.Refuse`.
      exact: the oracle says of every content whether it is refused; else only what an
        accepted one is to give.
      said: is in each message; the file's name if empty.
      share: of the usual number of inputs, where one takes long.
      harms: damage is refused now and then, and not only shown or done without.
    """

    path: pathlib.Path
    damaged: st.SearchStrategy
    read: Callable[[], Any]
    oracle: Callable[[bytes], Any]
    exact: bool = True
    said: str = ""
    share: float = 1.0
    harms: bool = True


def plain(found: Any) -> Any:
    """Return records as JSON says them."""
    if dataclasses.is_dataclass(found):
        return plain(schema.to_dict(found))
    if isinstance(found, list | tuple):
        return [plain(one) for one in found]
    if isinstance(found, dict):
        return {name: plain(one) for name, one in found.items()}
    return found


def rows_case(path: pathlib.Path, rows: list, read: Any, oracle: Any, **more) -> Case:
    return Case(path, damage.lines(rows), lambda: plain(read()), oracle, **more)


# --- records of a run -----------------------------------------------------------------

DRAW = s.maybe(s.count())
SIDE = s.one_of("positive", "negative", "plain")
_FINISH = s.one_of("eos", "stop", "length")
PAIR = {
    **dict.fromkeys(("id", "prompt_id", "prompt", "reply_1", "reply_2"), s.filled),
    **dict.fromkeys(("task", "generator", "raw_1", "raw_2"), s.text),
    **dict.fromkeys(("source_prompt_1", "source_prompt_2"), s.text),
    **dict.fromkeys(("side_1", "side_2"), SIDE),
    **dict.fromkeys(("finish_1", "finish_2"), _FINISH),
    **dict.fromkeys(("tries_1", "tries_2"), s.count(1)),
    **dict.fromkeys(("num_tokens_1", "num_tokens_2", "top_k"), s.count()),
    "prob_2": s.number(0, 1),
    "affix_index": s.maybe(s.count()),
    "sampling": s.one_of("contrast", "graded", "same"),
    **dict.fromkeys(("grade_1", "grade_2"), s.maybe(s.number())),
    "scale_index": s.maybe(s.count()),
    "labels": s.one_of("construction", "scoring"),
    "scoring": s.maybe(s.named(lambda given: given)),
    "seed": s.count(0, 2**32 - 1),
    "temperature": s.number(0),
    "top_p": s.number(0, 1),
    "alpha": s.number(),
    "draw": DRAW,
}


def _pair(row: Any) -> dict:
    none = {"grade_1": None, "grade_2": None, "scale_index": None}
    pair = s.record(PAIR, draw=None, **none)(row)
    s.need("draw" in row or "#" not in pair["prompt_id"])
    sides = {pair["side_1"], pair["side_2"]}
    contrast, graded = (pair["sampling"] != "same", pair["sampling"] == "graded")
    s.need(all((pair[name] is not None) == graded for name in none))
    if graded:
        higher = pair["grade_2"] > pair["grade_1"]
        s.need(pair["grade_1"] != pair["grade_2"])
        s.need(higher == (pair["side_2"] == "positive"))
    s.need(sides == ({"positive", "negative"} if contrast else {"plain"}))
    if pair["labels"] == "construction":
        s.need(contrast and pair["prob_2"] == float(pair["side_2"] == "positive"))
    return pair


def pairs(folder: pathlib.Path) -> Case:
    path = folder / "pairs.jsonl"
    scored = {"labels": "scoring", "prob_2": 0.25, "scoring": {"logit": 0.5}}
    same = scored | {"sampling": "same", "side_1": "plain", "side_2": "plain"}
    made = [make_pair(), make_pair(id="p1", **scored), make_pair(id="p2", **same)]
    grades = {"grade_1": 2.0, "grade_2": -1.0, "scale_index": 0}
    made.append(make_pair(id="p3", sampling="graded", **grades))
    return rows_case(
        path,
        list(map(schema.to_dict, made)),
        lambda: record_files.read_jsonl(path, records.Pair),
        lambda data: s.each_once([_pair(row) for row in s.lines(data)], "id"),
    )


def _simple(
    folder: pathlib.Path, cls: type, rows: list, spec: s.Spec, *known: str
) -> Case:
    path = folder / "rows.jsonl"

    def oracle(data: bytes) -> list:
        read = s.lines(data)
        for row in read:
            hidden = "draw" not in row and "#" in str(row.get("prompt_id"))
            s.need(not (hidden and isinstance(row.get("prompt_id"), str)))
        found = [spec(row) for row in read]
        return s.each_once(found, *known) if known else found

    return rows_case(path, rows, lambda: record_files.read_jsonl(path, cls), oracle)


def dropped(folder: pathlib.Path) -> Case:
    row = {"prompt_id": "p", "task": "t", "sampling": "same", "side": "plain"}
    row |= {"reason": "", "tries": 1, "reasons": ["empty"], "raws": [""], "draw": None}
    spec = s.record(
        {
            **dict.fromkeys(("prompt_id", "task", "reason"), s.text),
            "sampling": s.one_of("contrast", "graded", "same"),
            "side": SIDE,
            "slot": s.text,
            "tries": s.count(),
            "reasons": s.many(s.text),
            "raws": s.many(s.text),
            "draw": DRAW,
        },
        draw=None,
        slot="",
    )
    known = ("prompt_id", "draw", "sampling", "side", "slot")
    return _simple(
        folder,
        records.Dropped,
        [row, row | {"draw": 1}, row | {"draw": 2}],
        spec,
        *known,
    )


def judged(folder: pathlib.Path) -> Case:
    made = [human_study.verdict(f"p{n}", "1") for n in range(3)]
    names = ("prompt_id", "judge", "system_1", "system_2")
    defaults = {"score_1": None, "score_2": None, "flips": 0, "unparsed": 0}
    spec = s.record(
        {
            **dict.fromkeys(names, s.text),
            "winner": s.one_of("1", "2", "tie", "none"),
            **dict.fromkeys(("length_1", "length_2", "flips", "unparsed"), s.count()),
            **dict.fromkeys(("score_1", "score_2"), s.maybe(s.number())),
            "answers": s.many(s.text),
            "draw": DRAW,
        },
        draw=None,
    )
    del defaults
    rows = list(map(schema.to_dict, made))
    return _simple(folder, verdicts.Verdict, rows, spec, *names, "draw")


def scores(folder: pathlib.Path) -> Case:
    path = folder / "scores.jsonl"
    held = [make_pair(id=f"p{n}", reply_1=f"Hello {n}.") for n in range(3)]
    rows = [{"id": one.id, "score_1": n, "score_2": 0.5} for n, one in enumerate(held)]
    spec = s.record({"id": s.filled, "score_1": s.number(), "score_2": s.number()})

    def oracle(data: bytes) -> list:
        found = s.each_once([spec(row) for row in s.lines(data)], "id")
        by_id = {row["id"]: row for row in found}
        s.need(by_id.keys() >= {one.id for one in held})
        # The second reply is the same text in all three: the last one's score.
        firsts = [[one.reply_1, by_id[one.id]["score_1"]] for one in held]
        return sorted([*firsts, [held[0].reply_2, by_id["p2"]["score_2"]]])

    def read() -> list:
        found = label_noise_files.read_scores(path, held)
        return sorted([reply, score] for (_, reply), score in found.items())

    return rows_case(path, rows, read, oracle)


def metrics(folder: pathlib.Path) -> Case:
    path = folder / metric_rows.FILE_NAME
    rows = [
        {"stage": stage, "step": n, "wall_time": 1.5, "loss": 0.25, "n": 3}
        for stage in ("policy", "distill")
        for n in (1, 2)
    ]

    def oracle(data: bytes) -> list:
        found, last = s.lines(data, drop_truncated=True), {}
        for row in found:
            s.need({"stage", "step"} <= row.keys())
            s.filled(row["stage"])
            s.count(0, 10**40)(row["step"])
            for name in row.keys() - {"stage", "step"}:
                s.number(0 if name == "wall_time" else -float("inf"))(row[name])
            s.need(row["step"] > last.get(row["stage"], -1))
            last[row["stage"]] = row["step"]
        return found

    return rows_case(path, rows, lambda: metric_rows.read(path), oracle)


def done(folder: pathlib.Path) -> Case:
    config = {"seed": 1, "policy": {"steps": 2, "clip": 0.5}, "task": "cheerful"}
    held = {"inputs": {"the task": "0f"}, "outputs": {}}
    done_mark.mark_done(folder, config, {"pairs": 3}, held)
    path = folder / done_mark.DONE
    mark = json.loads(path.read_text())

    def oracle(data: bytes) -> list:
        found = s.value(s.decoded(data))
        s.need(isinstance(found, dict) and found.keys() >= mark.keys() - {"contents"})
        s.need(isinstance(found["summary"], dict))
        s.need(type(found["config_hash"]) is str and isinstance(found["config"], dict))
        same = json.dumps(found["config"], sort_keys=True)
        s.need(same == json.dumps(config, sort_keys=True))
        s.need(found["config_hash"] == mark["config_hash"])
        held = found.get("contents", {})
        s.need(isinstance(held, dict))
        s.need(all(isinstance(one, dict) for one in held.values()))
        return [True, found["summary"], held]

    def read() -> list:
        is_done = done_mark.check_done(folder, config)
        held = done_mark.read_contents(folder)
        return [is_done, done_mark.read_summary(folder), held]

    return Case(path, json_damage(mark), read, oracle)


def json_damage(value: Any) -> st.SearchStrategy:
    """Return damaged contents of a file that is one JSON value."""
    content = json.dumps(value, indent=1).encode()
    changed = damage.values(value).map(lambda one: damage.dumps(one).encode())
    return st.one_of(changed, changed, damage.contents(content))


# --- prompts, tasks, people -----------------------------------------------------------

_TURN = s.record({"role": s.one_of("human", "assistant"), "text": s.filled})
_PROMPT = s.record({"id": s.filled, "turns": s.many(_TURN, least=1)})


def prompts(folder: pathlib.Path) -> Case:
    path = folder / "prompts.jsonl"
    human, other = ({"role": r, "text": f"Hi\n{r}"} for r in ("human", "assistant"))
    rows = [{"id": f"a/{n}", "turns": [human, other, human][2 * n :]} for n in (0, 1)]
    task = tasks.load_task("cheerful")

    def oracle(data: bytes) -> list:
        texts = data.rstrip().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        found = [_PROMPT(s.value(s.decoded(line, bom=False))) for line in texts]
        for prompt in found:
            prompt |= {"draw": None, "as_written": ""}
            for n, turn in enumerate(reversed(prompt["turns"])):
                s.need(turn["role"] == ("human", "assistant")[n % 2])
                turn["text"] = re.sub("\r\n|\r", "\n", turn["text"])
        return s.each_once(found, "id")

    return rows_case(path, rows, lambda: tasks.load_prompts(task, path=path), oracle)


TASK = {
    "name": "world",
    "attribute": "positive",
    "format": "dialogue",
    "human_marker": "\n\nHuman:",
    "prompt_template": "{text}",
    "stop_strings": ["\n\nHuman:"],
    "forbidden_strings": ["`"],
    "prompt_tokens": 48,
    "reply_tokens": 32,
    "hh_config": "",
    "source": {"affixes": "own"},
    "lexicon": {"name": "vader", "attribute": "positive"},
    "judge_questions": {"glad": "Which is gladder?"},
    "cleanup": {
        "mode": "corrected",
        "role_names": ["Human", "Assistant"],
        "unfinished": "reject",
        "min_characters": 1,
    },
    "prompts": {"texts": ["One?", "Two?"], "train": 0.5, "dev": 0.25, "test": 0.25},
    "affixes": [{"positive": "glad", "negative": "grim", "instruction": "Decide."}],
}
_GROUPS = ("affixes", "systems", "scoring", "judge_questions", "prompts")
_SIZE = s.count(1)
_SHARE = s.number(0, 1)
_TASK = s.record(
    {
        "name": s.filled,
        "affixes": s.many(
            s.record(
                {
                    **dict.fromkeys(("positive", "negative"), s.filled),
                    **dict.fromkeys(("system_positive", "system_negative"), s.text),
                    "instruction": s.text,
                },
                system_positive="",
                system_negative="",
                instruction="",
            ),
            least=1,
        ),
        **dict.fromkeys(("attribute", "description", "lead_in"), s.text),
        "hh_config": s.one_of("", "harmless-base", "helpful-base"),
        "format": s.one_of("dialogue", "chat"),
        **dict.fromkeys(("human_marker", "assistant_marker"), s.filled),
        "prompt_template": s.filled,
        "stop_strings": s.many(s.text),
        "forbidden_strings": s.many(s.text),
        **dict.fromkeys(("prompt_tokens", "reply_tokens"), _SIZE),
        "judge_questions": s.named(s.filled),
        "lexicon": s.record({"name": s.one_of("vader"), "attribute": s.text}),
        "cleanup": s.record(
            {
                "mode": s.one_of("corrected", "released"),
                "role_names": s.many(s.filled, least=1),
                "unfinished": s.one_of("reject", "cut_sentence", "keep"),
                "min_characters": _SIZE,
            },
            mode="corrected",
            role_names=["Human", "Assistant"],
            unfinished="reject",
            min_characters=1,
        ),
        "prompts": s.record(
            {"file": s.text, "texts": s.many(s.filled)}
            | dict.fromkeys(("train", "dev", "test"), _SHARE),
            file="",
            texts=[],
            train=0.66,
            dev=0.13,
            test=0.21,
        ),
        "source": s.named(s.text),
    },
    attribute="",
    description="",
    lead_in="",
    format="dialogue",
    human_marker="\n\nHuman:",
    assistant_marker="\n\nAssistant:",
    prompt_template="{text}",
    stop_strings=None,
    forbidden_strings=["\\", "\\\\", "`", "```"],
    prompt_tokens=192,
    reply_tokens=300,
    hh_config="",
    judge_questions={},
    lexicon=None,
    cleanup={
        "mode": "corrected",
        "role_names": ["Human", "Assistant"],
        "unfinished": "reject",
        "min_characters": 1,
    },
    prompts={"file": "", "texts": [], "train": 0.66, "dev": 0.13, "test": 0.21},
    source={},
)
# What of a task stands in its file as it is.
AS_WRITTEN = (
    *("name", "format", "human_marker", "assistant_marker", "prompt_template"),
    *("lead_in", "forbidden_strings", "prompt_tokens", "reply_tokens", "cleanup"),
    *("prompts", "lexicon"),
)


def _toml(value: Any) -> str:
    """Return a value in TOML, `damage.TWICE` written out."""
    if isinstance(value, str) and value == damage.DEEP:
        return "[" * 5000 + "]" * 5000
    if isinstance(value, dict):
        inner = (
            f"{json.dumps(k.removeprefix(damage.TWICE))} = {_toml(v)}"
            for k, v in value.items()
        )
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return '""' if value is None else json.dumps(value)


def toml_file(table: Any) -> bytes:
    if not isinstance(table, dict):
        return _toml(table).encode("utf-8", "surrogatepass")
    lines = [
        f"{json.dumps(name.removeprefix(damage.TWICE))} = {_toml(one)}"
        for name, one in table.items()
    ]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _check_task(task: dict) -> None:
    s.need(re.fullmatch(r"[\w .-]+", task["name"]) and task["name"] == "world")
    for pair in task["affixes"]:
        both = (pair["positive"], pair["negative"])
        s.need(not any(re.search(r"[()\r\n]", side) for side in both))
        s.need(both[0] != both[1])
        s.need(bool(pair["system_positive"]) == bool(pair["system_negative"]))
    s.need(task["prompt_template"].count("{text}") == 1)
    s.need(not (task["format"] == "chat" and task["stop_strings"]))
    s.need("" not in (task["stop_strings"] or []) + task["forbidden_strings"])
    markers = [task["human_marker"], task["assistant_marker"]]
    roles = task["cleanup"]["role_names"]
    named = [marker.strip().removesuffix(":") for marker in markers]
    s.need(len(roles) == 2 and (task["format"] == "chat" or roles == named))
    s.need(task["source"].keys() <= set(_GROUPS))
    if task["lexicon"]:
        own = task["attribute"] or task["name"]
        joy = ("cheerful", "happy", "joyful", "optimistic", "positive")
        s.need(task["lexicon"]["attribute"] == own and own in joy)
    held = task["prompts"]
    s.need(not (held["file"] and held["texts"]))
    s.need(held["file"] or held["texts"] or task["hh_config"])
    words = [" ".join(text.split()) for text in held["texts"]]
    s.need(len(set(words)) == len(words))
    s.need(abs(held["train"] + held["dev"] + held["test"] - 1) <= 1e-9)


def task_file(folder: pathlib.Path) -> Case:
    path = folder / "world.toml"

    def oracle(data: bytes) -> dict:
        try:
            table = tomllib.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise s.Refuse(str(error)) from error
        task = _TASK(table)
        _check_task(task)
        return {name: task[name] for name in AS_WRITTEN}

    def read() -> dict:
        task = tasks.load_task(path)
        return plain({name: getattr(task, name) for name in AS_WRITTEN})

    changed = damage.values(TASK).map(toml_file)
    strategy = st.one_of(changed, changed, damage.contents(toml_file(TASK)))
    return Case(path, strategy, read, oracle)


def _pack(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def hh_rows(folder: pathlib.Path) -> Case:
    path = folder / "test.jsonl.gz"
    rows = [
        {"chosen": f"\n\nHuman: {n}\n\nAssistant: a", "rejected": "\n\nHuman: x"}
        for n in range(3)
    ]
    spec = s.record({"chosen": s.text, "rejected": s.text})

    def oracle(data: bytes) -> list:
        try:
            text = gzip.decompress(data)
        except Exception as error:
            raise s.Refuse(str(error)) from error
        texts = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        texts = texts[:-1] if not texts[-1] else texts
        s.need(texts)
        found = [spec(s.value(s.decoded(line, bom=False))) for line in texts]
        return [[row["chosen"], row["rejected"]] for row in found]

    packed = _pack("".join(json.dumps(row) + "\n" for row in rows).encode())
    strategy = st.one_of(damage.lines(rows).map(_pack), damage.contents(packed))
    return Case(
        path, strategy, lambda: plain(list(hh_rlhf_files.read_rows(path))), oracle
    )


def samples(folder: pathlib.Path) -> Case:
    path = folder / "samples.jsonl"
    rows = [
        {"prompt_id": f"p{n}", "system": "base", "prompt": "q", "reply": "a", "x": 1}
        for n in range(3)
    ]

    def oracle(data: bytes) -> list:
        found = []
        for row in s.lines(data):
            s.need({"prompt_id", "system", "prompt", "reply"} <= row.keys())
            one = {
                n: s.text(row[n]) for n in ("prompt_id", "system", "prompt", "reply")
            }
            s.need("draw" in row or "#" not in one["prompt_id"])
            found.append(one | {"draw": DRAW(row.get("draw"))})
        return s.each_once(found, "prompt_id", "draw", "system")

    return rows_case(path, rows, lambda: study_files.read_samples(path), oracle)


def gold(folder: pathlib.Path) -> Case:
    rows = [{"prompt": "q", "better": f"a {n}", "worse": "b"} for n in range(2)]
    spec = s.record(dict.fromkeys(("prompt", "better", "worse"), s.text))
    return _simple(folder, checks.Gold, rows, spec)


@functools.cache
def _study() -> tuple[Any, Any]:
    return human_study.make_study(
        num_annotators=2, per_annotator=6, shared=3, repeats=1
    )


_KEY = s.record(
    {
        **dict.fromkeys(("annotator", "item", "prompt_id"), s.text),
        "kind": s.one_of("pair", "repeat", "gold"),
        "side_2": s.one_of("A", "B"),
        "repeat_of": s.maybe(s.text),
        "draw": DRAW,
    },
    draw=None,
)


def study_key(folder: pathlib.Path) -> Case:
    made, written = _study()
    sheets.write_study(folder, made, written)
    path = folder / sheets.KEY / sheets.KEY_FILE
    rows = [schema.to_dict(line) for sheet in written for line in sheet.key]
    want = {"pair": made.per_annotator, "repeat": made.repeats, "gold": made.gold}

    def oracle(data: bytes) -> list:
        found = s.each_once([_KEY(row) for row in s.lines(data)], "item")
        for row, raw in zip(found, s.lines(data), strict=True):
            s.need("draw" in raw or "#" not in row["prompt_id"])
        by_item = {row["item"]: row for row in found}
        for name in {row["annotator"] for row in found} | set(made.annotators):
            for kind, num in want.items():
                own = [r for r in found if (r["annotator"], r["kind"]) == (name, kind)]
                s.need(len(own) == (num if name in made.annotators else 0))
        for row in found:
            if row["kind"] != "repeat":
                s.need(row["repeat_of"] is None)
                continue
            first = by_item.get(row["repeat_of"])
            s.need(first and first["kind"] == "pair")
            same = ("annotator", "prompt_id", "draw")
            s.need(all(first[name] == row[name] for name in same))
            s.need(first["side_2"] != row["side_2"])
        return found

    return rows_case(
        path, rows, lambda: list(reading.read_key(folder)[1].values()), oracle
    )


def study_facts(folder: pathlib.Path) -> Case:
    made, written = _study()
    sheets.write_study(folder, made, written)
    path = folder / sheets.KEY / sheets.STUDY_FILE
    texts = ("id", "task", "question_name", "question", "system_1", "system_2")
    spec = s.record(
        {
            **dict.fromkeys(texts, s.text),
            "annotators": s.many(s.text),
            "per_annotator": s.one_of(made.per_annotator),
            "shared": s.count(0, made.per_annotator),
            "repeats": s.one_of(made.repeats),
            "gold": s.one_of(made.gold),
            "identical": s.count(),
            "seed": s.count(-(10**40), 10**40),
        }
    )

    def oracle(data: bytes) -> dict:
        found = spec(s.value(s.decoded(data)))
        s.need(sorted(found["annotators"]) == sorted(made.annotators))
        s.need(found["system_1"] != found["system_2"])
        s.need(not any(s.is_blank(found[name]) for name in texts))
        return found

    return Case(
        path,
        json_damage(json.loads(path.read_text())),
        lambda: plain(reading.read_key(folder)[0]),
        oracle,
        said=sheets.KEY,
    )


def _answers(folder: pathlib.Path) -> tuple[Any, dict]:
    made, written = _study()
    sheets.write_study(folder, made, written)
    human_study.answer_all(folder, made, written, human_study.likes_first)
    key = {line.item: line.annotator for sheet in written for line in sheet.key}
    return made, key


def _rating(given: Any) -> int:
    if type(given) is str:
        s.need(re.fullmatch(r"\s*\d+(\.\d*)?([eE][+-]?\d{1,3})?\s*", given, re.ASCII))
        given = float(given)
    number = s.number(1, 8)(given)
    s.need(number == int(number))
    return int(number)


def _seconds(given: Any) -> float | None:
    if given is None or (type(given) is str and not given.strip()):
        return None
    if type(given) is str:
        s.need(re.fullmatch(r"\s*\d+(\.\d*)?([eE][+-]?\d{1,3})?\s*", given, re.ASCII))
        given = float(given)
    return s.number(0, 2**62)(given)


def _judgments(folder: pathlib.Path, partial: bool = False) -> list:
    _, found = reading.read_study(folder, partial=partial)
    return [[one.item, one.rating, one.seconds] for one in found]


def answers_json(folder: pathlib.Path) -> Case:
    made, key = _answers(folder)
    path = folder / sheets.ANSWERS / "annotator-1.json"
    whole = json.loads(path.read_text())
    other = json.loads(path.with_name("annotator-2.json").read_text())

    def oracle(data: bytes) -> list:
        found = s.value(s.decoded(data))
        s.need(isinstance(found, dict))
        s.need(found.keys() <= {"study", "annotator", "answers"})
        s.need(isinstance(found.get("answers"), list))
        own: dict[str, list] = {}
        for row in found["answers"]:
            s.need(isinstance(row, dict))
            s.need(row.keys() <= {"study", "item", "answer", "seconds"})
            s.need(row.get("study", found.get("study")) == made.id)
            item = row.get("item")
            s.need(type(item) is str and item in key and item not in own)
            s.need(
                key[item] == found.get("annotator", key[item])
                or (found.get("annotator") is None)
            )
            s.need(key[item] == "annotator-1")
            own[item] = [item, _rating(row.get("answer")), _seconds(row.get("seconds"))]
        for row in other["answers"]:
            own[row["item"]] = [row["item"], row["answer"], row["seconds"]]
        s.need(own.keys() == key.keys())
        return [own[item] for item in key]

    # NaN is told with its answer, and half a pair is of no study, item or number.
    return Case(
        path, json_damage(whole), lambda: _judgments(folder), oracle, said="answers"
    )


def answers_csv(folder: pathlib.Path) -> Case:
    made, key = _answers(folder)
    path = folder / sheets.ANSWERS / "annotator-1.csv"
    rows = json.loads(path.with_suffix(".json").read_text())["answers"]
    path.with_suffix(".json").unlink()
    other = json.loads(path.with_name("annotator-2.json").read_text())["answers"]
    out = io.StringIO()
    csv.writer(out).writerows(
        [["study", "item", "prompt", "answer"]]
        + [[made.id, row["item"], 'a, "b"\nc', row["answer"]] for row in rows]
    )

    def oracle(data: bytes) -> list:
        text = s.decoded(data)
        top = text.split("\n")[0]
        mark = max(",;\t", key=top.count)
        try:
            read = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
        except csv.Error as error:
            raise s.Refuse(str(error)) from error
        names = [name.strip() for name in read[0]] if read else []
        s.need({"study", "item", "answer"} <= set(names))
        filled = [name for name in names if name]
        s.need(len(set(filled)) == len(filled))
        own: dict[str, list] = {}
        for cells in read[1:]:
            if not "".join(cells).strip():
                continue
            s.need(not "".join(cells[len(names) :]).strip())
            row = dict(zip(names, cells + [""] * len(names), strict=False))
            s.need(row["study"] == made.id and key.get(row["item"]) == "annotator-1")
            s.need(row.get("annotator") in (None, "annotator-1"))
            s.need(row["item"] not in own)
            own[row["item"]] = [row["item"], _rating(row["answer"]), None]
        for row in other:
            own[row["item"]] = [row["item"], row["answer"], row["seconds"]]
        s.need(own.keys() == key.keys())
        return [own[item] for item in key]

    content = out.getvalue().encode()
    return Case(
        path,
        damage.contents(content),
        lambda: _judgments(folder),
        oracle,
        said="answers",
    )


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    one.__name__: one
    for one in (
        *(pairs, dropped, judged, scores, metrics, done, prompts, task_file, hh_rows),
        *(samples, gold, study_key, study_facts, answers_json, answers_csv),
    )
}
