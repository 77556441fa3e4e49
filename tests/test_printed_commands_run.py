"""Every command that this project prints runs to its end, and leaves what it promises.

Each is typed into its own launcher, in a folder with what it reads, after the
substitutions of `runnable` alone: what is large becomes small, and nothing else.

The suite runs each path once: a line that differs from another in values alone (a
name of a package's task, a path, a number, a field of the config) would run the same
code again, and tests of parsing read its values. `AGAIN` lists these lines; `python -m
pytest -m "" tests/test_printed_commands_run.py` runs them too.
"""

import contextlib
import importlib
import logging as python_logging
import re
import shutil
import sys

import jax
import made_inputs
import printed
import pytest
import runs
from absl import flags, logging

from rlcd_jax import leaving, record_files, records, stages
from rlcd_jax.datasets import comparisons

# What cannot run on a machine like this one, and why; it is parsed all the same.
ONE_MACHINE = "takes two machines; other tests run two processes"
NOT_HERE = {
    ("run", "--coordinator=10.0.0.2:8476"): ONE_MACHINE,
    ("run", "--num_processes=2"): ONE_MACHINE,
    ("run", "--process_id=0"): ONE_MACHINE,
    ("plan", "--compile"): "h100:8 is compiled for with the extra cuda",
    ("plan", "--search"): "ranks settings of LLaMA-7B for longer than a test has",
    ("plan", "--only=decode,update"): "chooses what --compile compiles",
    ("bench", "--peer=hf"): "the peer is torch's, of the extra bench",
    ("bench", "--peer=torch"): "of the extra bench",
    ("bench", "--peer=trl"): "of an older TRL, with torch",
    ("bench", "--what=quickstart"): "a process for minutes; test_bench measures one",
    ("bench", "--cold"): "is of it",
    (
        "bench",
        "--what=ppo",
    ): "a step of 300 tokens a reply; test_bench makes a small one",
}
NO_EXPERIMENT = {
    "pip install -e .": "fetches packages from an index",
    "pip install -e '.[test]'": "fetches packages from an index",
    "python -m pytest": "is what runs this",
}
# Names of commands in a sentence, not commands: their help is asked for.
HELP_ALONE = ("run", "plan", "weights", "diagnose")
# Commands of which only the help is asked for here, and what runs them.
ELSEWHERE = {
    "replay": "test_replaying and test_step_replays, with ids and steps of a run",
    "verify_resume": "test_resuming",
    "sweep": "test_sweeps, with the lines of runs",
}
# What the suite does not run again: how a small line begins, and whose path it takes.
AGAIN = {
    "plan --topology=v5p:2x2x4 ": "plan --topology=h100:8; test_roles plans two models",
    "run --workdir=runs/rlcd --config=configs/rlcd.py:task=harmless,model=hf:model,"
    "size=smoke --config.model.generator=": "runs/rlcd; test_roles runs five models",
    "run --workdir=runs/few ": "runs/rlaif; test_scored_labels has solved examples",
    "run --config=configs/rlcd.py:task=harmless,model=hf:model,size=smoke "
    "--config.stages=": "runs/rlcd, of which these are two stages",
    "run --workdir=runs/both ": "runs/rlcd; test_weighted_rewards has two models",
    "run --workdir=shared/rlcd ": "runs/rlcd; parsing reads the short name of a config",
    "run --workdir=runs/polite ": "runs/polite_smoke; runs/rlcd has this model",
    "run --workdir=runs/YOURNAME ": "runs/polite_smoke, a task file too",
    "run --workdir=D --config=configs/rlcd.py:task=outline": "runs/rlcd; sizes of long "
    "texts are those of test_long_replies",
    "run --stage=policy --workdir=D --config=configs/rlcd.py:task=harmless": "runs/rlcd, "
    "of which this is one stage, with few rollouts",
    "run --config=configs/evaluate.py:task=cheerful": "the same without the suite that "
    "says what alignment cost, which test_regression has",
    "task show YOURNAME.toml": "task show polite.toml",
    "quickstart --size=smoke --workdir=DIR ": "quickstart into the folder it chooses",
    "quickstart --size=smoke --seed=7 ": "quickstart of seed 0",
    "reproduce --config=configs/paper.py:table=methods,scale=tiny --workdir=D "
    "--config.size=smoke --config.tasks=cheerful --config.seeds=1 --config.methods": (
        "table=methods as is"
    ),
    "reproduce --config=configs/paper.py:table=quirks,scale=tiny --workdir=D "
    "--config.": "table=quirks with the same switch",
    "launch --target slurm -- reproduce --config configs/paper.py:table=3": (
        "launch of table=methods"
    ),
    "report --workdir runs/rlcd --studies": "report of RUN with studies",
    "report --workdir runs --compare runs/rlcd": "report that compares RUN, RUN2",
    "diagnose --workdir=runs/polite ": "diagnose of RUN",
    "diagnose --workdir=D ": "diagnose of RUN",
    "diagnose --workdir={folder} ": "diagnose of RUN",
    "plan --topology=h100:1 ": "plan of eight; test_lora_plan has adapters on one",
    "pairs export RUN --out alpaca_farm:": "pairs export RUN in another format",
    "pairs export runs/rlcd ": "pairs export RUN; formats have tests of their own",
    "bench --what=preference --model=tiny --config.preference.batch_size": (
        "bench --what=preference"
    ),
    "bench --what=preference --model=tiny --prompt=12 --repeats=1": (
        "bench --what=preference; test_blocked has blocks"
    ),
    "bench --what=train --model=tiny --prompt=12 --config.distill.batch_size=8 "
    "--config.distill.lengths=": "bench --what=train with a smaller batch",
    "bench --model=tiny ": "bench --what=decode, which is what it measures by itself",
    "weights import --model {about.base} --out BASE": "weights import of a GGUF file",
    "weights export --checkpoint RUN/policy --out policy_of_bytes": (
        "weights export of RUN/policy"
    ),
    "human make --samples=RUN/evaluate/samples.jsonl --systems rlcd base --per": (
        "human make into FOLDER"
    ),
    "human read --workdir=DIR": "human read of FOLDER",
}
PATHS = {
    "/models/llama-7b": "model",
    "/models/llama-30b": "model",
    "/data/hh-rlhf": "hh",
    "/shared/": "shared/",
    "gguf:PATH": "gguf:model.gguf",
    # The tiny run reads bytes, and a GGUF file has merges: test_gguf_writing writes it.
    "--out policy.gguf": "--out policy_of_bytes",
    "{place}": "FOLDER",
    "--samples FILE": "--samples RUN/evaluate/samples.jsonl",
    "--task TASK": "--task cheerful",
    "--systems FIRST SECOND": "--systems rlcd base",
}
# Flags whose value becomes small; "+" adds the flag where the command has none.
OF_HH = (
    "--config.prompts.source=hh_rlhf",
    "--config.prompts.data_dir=data",
    "--config.prompts.hh_dev_split=test[:4]",  # of twelve, not of two thousand
)
RUN = {
    "config.policy.steps": "+1",
    "config.policy.rollouts": "+4",  # RLOO and GRPO compare four to a prompt
    "config.policy.warmup_steps": "+1",
    "config.policy.update_batch": "4",  # of four rollouts
    "config.pairs.unfinished": "keep",  # those of random weights never end
    "config.mesh.data": "+1",  # of eight fake devices
    "config.pairs.part_prompts": "1",  # of as many prompts as parts
}
SMALL = {
    "run": RUN,
    "quickstart": {"size": "+smoke", "model": "+hf:model", **RUN},
    "reproduce": {
        "config.size": "smoke",
        "config.tasks": "+cheerful",
        "config.methods": "+rlaif,rlcd",
        "config.seeds": "+1",
        "config.grid.kl_coef": "+0.02",
        "config.grid.steps": "+1",
        "config.run.prompts.limit": "+6",
        "config.run.preference.held_out": "+1",
        "config.run.policy.rollouts": "+2",
        "config.run.policy.epochs": "+1",
        "config.run.policy.checkpoint_every": "+1",
        "config.run.evaluate.resamples": "+50",
        "config.run.evaluate.reply_tokens": "+8",
        "config.run.evaluate.samples_per_prompt": "1",
        "config.run.mesh.data": "+1",
        "config.quirks": "+policy.kl_estimator",
    },
    "plan": {},
    "bench": {
        "model": "+tiny",
        "slots": "+2",
        "pairs": "+2",
        "repeats": "+1",
        "prompt": "+12",
        "new": "+8",
        "config.distill.batch_size": "8",  # of eight fake devices
    },
    "human": {"per_annotator": "+2", "annotators": "+2"},
    "theory": {"trials": "+20000"},
    "diagnose": {"resamples": "+50"},
}
# Which flags name what a command reads, and what is laid there before.
READS = {
    ("bench", "hh_dir"): "hh",
    ("diagnose", "scored"): "rescored",
    ("diagnose", "workdir"): "run",
    ("human", "samples"): "run",
    ("report", "compare"): "run",
    ("report", "studies"): "study",
    ("report", "workdir"): "run",
    ("theory", "pairs"): "run",
    ("weights", "checkpoint"): "run",
}


# --- from what is printed to what is run ----------------------------------------------


def runnable(line):
    """Return the small command lines of a printed one: without and with its options."""
    lines = {}
    for one in (re.sub(r"\s*\[-[^\]]*\]", "", line), line):
        for path, made in PATHS.items():
            one = one.replace(path, made)
        lines[small(*printed.words_of(one))] = None
    return tuple(lines)


def small(name, words):
    """Return a command's name and words, in the form --flag=value, made small."""
    if not words and name in HELP_ALONE:
        return name, "--help"
    if name in ELSEWHERE:
        return name, "--help"
    if "--help" in words or name in ("task", "weights", "report", "launch", "pairs"):
        return name, *words
    given = join_values(words)
    given = [word for word in given if (name, word) not in NOT_HERE]
    if name == "run":
        given = [one for word in given for one in small_run(word)]
    if name == "reproduce":
        given = [re.sub(r"scale=[^,]*", "scale=tiny", word) for word in given]
    own = dict(SMALL[name])
    if name == "human" and given[0] == "read" or name == "theory" and len(given) > 0:
        own = {}
    for index, word in enumerate(given):
        flag = word.removeprefix("--").partition("=")[0]
        if flag in own:
            given[index] = f"--{flag}={own.pop(flag).removeprefix('+')}"
    more = [f"--{flag}={value[1:]}" for flag, value in own.items() if value[0] == "+"]
    return name, *given, *more


def join_values(words):
    """Return words of which a flag and its one value are one: --flag=value."""
    joined = []
    for word in words:
        before = joined[-1] if joined else ""
        takes = before.startswith("--") and "=" not in before
        if takes and not word.startswith("--") and before != "--systems":
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def small_run(word):
    """Return a word of a run's line with the smallest size and a tiny model.

    Prompts of hh-rlhf stay those of hh-rlhf, which the smallest size would not ask.
    """
    if word.startswith("--config.prompts.hh_dir"):
        return word, *OF_HH
    if not word.startswith("--config="):
        return (word,)
    file, _, argument = word.partition(":")
    parts = dict(part.split("=") for part in argument.split(","))
    if not parts.get("model", "").startswith("random:"):
        parts["model"] = "hf:model"
    parts["size"] = "smoke"
    parts.pop("hardware", "")  # of eight large devices
    return (file + ":" + ",".join(f"{k}={v}" for k, v in parts.items()),)


def collect():
    """Return the small lines of all printed commands, less those in another's."""
    found = dict.fromkeys(runnable(line) for _, line in printed.PRINTED)
    as_sets = {lines: {frozenset(line) for line in lines} for lines in found}
    kept = []
    for lines in found:
        inside = any(as_sets[lines] <= as_sets[one] for one in kept)
        inside |= any(as_sets[lines] < as_sets[one] for one in found)
        kept += [] if inside else [lines]
    seen: set[frozenset[str]] = set()
    once = []
    for lines in kept:  # a stage alone needs the run before it
        new = [x for x in lines if x[0] == "run" or frozenset(x) not in seen]
        once.append(tuple(new) or lines[-1:])
        seen |= as_sets[lines]
    return once


LINES = collect()
# Flags whose values choose what is run, and words that do so.
CHOOSING = ("--what", "--item", "--format")
VERBS = ("new", "show", "import", "export", "make", "read", "run", "reproduce")


def path_of(line):
    """Return what of a small line chooses the code that it runs."""
    name, *words = line
    marks = [name]
    for word in words:
        flag, _, value = word.partition("=")
        if flag == "--config":
            table = re.search(r"table=\w+", value) if name == "reproduce" else None
            own = re.search(r"task=\w+\.toml", value)
            file = value.partition(":")[0].removeprefix("configs/")
            marks += [file.removesuffix(".py") if name == "run" else ""]
            marks += [table[0] if table else "", "own task" if own else ""]
        elif flag in CHOOSING or word in VERBS:
            marks.append(word)
        elif flag.startswith("--") and not flag.startswith("--config."):
            marks.append(flag)
    return frozenset(marks) - {"--workdir", "--seed", ""}


def parted():
    """Return the lines that the suite runs, and those whose path another has run."""
    seen: set[frozenset[str]] = set()
    first, again = [], []
    for lines in sorted(LINES, key=len, reverse=True):
        new = []
        for line in lines:
            if path_of(line) not in seen:
                new.append(line)
                seen.add(path_of(line))
        if new and lines[0][0] == "run":
            new = [*lines]  # a stage alone needs the run before it
        first += [tuple(new)] if new else []
        rest = tuple(line for line in lines if line not in new)
        again += [rest] if rest else []
    return first, again


FIRST, REPEATED = parted()


# --- what a user has ------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory, finished_run):
    """Return a folder with all that commands read: models, data, runs, a study."""
    folder = tmp_path_factory.mktemp("world")
    made_inputs.write_bytes_model(folder / "model")
    made_inputs.write_gguf(folder / "model.gguf")
    made_inputs.write_hh(folder / "hh")
    shutil.copytree(finished_run, folder / "run")
    rescored = runs.tiny_config(pairs__labels=("scoring",))
    runs.run(rescored, folder / "rescored", "simulate")
    made_inputs.answer_study(folder / "run", folder / "study")
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, world):
    """Stand in a folder with models, data and a task of one's own."""
    for name in ("model", "model.gguf", "hh"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "D").symlink_to(world / "D")  # tables share what they make
    (world / "D").mkdir(exist_ok=True)
    for name in ("polite", "YOURNAME"):
        made_inputs.write_task(tmp_path, name)
    made_inputs.write_method(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay(place, world, line):
    """Put what a command reads where its flags say."""
    name, *words = line
    if name in ("run", "diagnose") and (place / "D").is_symlink():
        (place / "D").unlink()  # a run has its folder for itself
    reads = {flag: what for (one, flag), what in READS.items() if one == name}
    if name == "human" and words[0] == "read":
        reads = {"workdir": "study"}
    if name == "report" and "--compare" in words:
        del reads["workdir"]
    if name == "pairs":
        if words[0] == "export":
            copy(world, "run", root_of(place, words[1]))
        own = record_files.read_jsonl(world / "run/pairs/pairs.jsonl", records.Pair)
        comparisons.write(f"trl:{place / 'theirs.parquet'}", own)
    if name == "task" and words[0] == "new":
        (place / words[1]).unlink()
    for flag, value in flags_of(words):
        if flag in reads:
            copy(world, reads[flag], root_of(place, value))
        elif flag == "scores":
            pairs = record_files.read_jsonl("RUN/pairs/pairs.jsonl", records.Pair)
            rows = [{"id": p.id, "score_1": 1.0, "score_2": 0.0} for p in pairs]
            record_files.write_jsonl(place / value, rows)
        elif flag == "config.evaluate.checkpoints":
            copy(world, "run", place / "runs" / "rlcd")
        elif flag == "config.policy.rewards":
            other = runs.tiny_config(model__spec=f"hf:{place / 'model'}")
            runs.run(other, place / "runs/harmless", "simulate", "preference")


def root_of(place, path):
    """Return the folder of a run, of a path in it."""
    parts = path.split("/")
    return place.joinpath(*parts[: 2 if parts[0] in ("runs", "studies") else 1])


def copy(world, what, target):
    if not target.exists():
        shutil.copytree(world / what, target)


# --- running --------------------------------------------------------------------------


@contextlib.contextmanager
def as_a_process():
    """Put back what a command sets for its whole process: flags, logs, JAX's cache."""
    values, root = flags.FLAGS, python_logging.getLogger()
    before, handlers = {*values}, root.handlers[:]
    filters, verbosity = logging.get_absl_handler().filters[:], logging.get_verbosity()
    level = logging.get_absl_logger().level
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    settings = {name: getattr(jax.config, name) for name in names}
    try:
        with runs.devices_by_mesh():
            yield
    finally:
        for name in {*values} - before:
            delattr(values, name)
        root.handlers[:] = handlers
        logging.get_absl_handler().filters[:] = filters
        logging.set_verbosity(verbosity)
        logging.get_absl_logger().setLevel(level)
        leaving.ASKED.clear()
        for name, value in settings.items():
            jax.config.update(name, value)


def type_in(monkeypatch, name, words):
    """Type a command line into its launcher; return the exit status."""
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, *words])
    with as_a_process():
        try:
            status = module.main()
        except SystemExit as stopped:
            status = stopped.code
    return status or 0


# What a command leaves, by its name or its first two words; a "{flag}" is its value.
LEAVES = {
    "bench": (),
    "diagnose": ("{workdir}/diagnostics/pairs.md", "{workdir}/diagnostics/watch.json"),
    "human make": ("{workdir}/annotators/annotator-1.csv", "{workdir}/key"),
    "human read": ("{workdir}/results/table.md",),
    "launch": (),
    "pairs": (),
    "pairs --out": ("{out}",),
    "plan": (),
    "quickstart": ("{workdir}/evaluate/table.md", "{workdir}/report.html"),
    "report": ("{workdir}/report.html",),
    "report --compare": ("{workdir}/compare.html",),
    "reproduce": ("{workdir}/tables/tables.html",),
    "reproduce --dry_run": (),
    "run": ("{workdir}/evaluate/table.md", "{workdir}/report.html"),
    "run --part": ("{workdir}/pairs/",),
    "run --config.stages": ("{workdir}/preference/summary.json",),
    "run --stage": ("{workdir}/{made_in}/summary.json", "{workdir}/report.html"),
    "task": (),
    "theory": (),
    "weights": ("{out}/config.json", "{out}/model.safetensors"),
}
# What a command says; the rest of what it says is for people.
SAYS = {
    "bench": r'"what": "(decode|simulate|train|preference)"',
    "pairs": r"\d+ pairs of \d+ prompts",
    "pairs --out": r"wrote \d+ pairs to",
    "plan": r"fits|does not say",
    "plan --format": r"program\tparameters\t",
    "launch": r"sbatch --parsable",
    "quickstart": r"lexicon score +\S[\s\S]*Everything else: ",
    "run": "Everything else: ",
    "reproduce": r"Table|table",
    "reproduce --dry_run": r"\d+ nodes, \d+ to make: ",
    "task": r"wrote polite\.toml|judge log_odds: ",
    "theory": r"\| RLCD",
    "weights": r"checked: \d+ weights and the tokenizer",
}


def flags_of(words):
    """Yield each flag of a command line with each of its values."""
    flag = ""
    for word in (part for one in words for part in one.split("=", 1)):
        if word.startswith("--"):
            flag = word.removeprefix("--")
        elif flag:
            yield flag, word


def kind_of(name, words, known):
    """Return under what a command is in a table: with one of its words, or alone."""
    names = [f"{name} {word.partition('=')[0]}" for word in words]
    return next((one for one in known if one in names), name)


def leaves(place, name, words):
    """Return the files that a command promises."""
    kind = kind_of(name, words, LEAVES)
    values = dict(flags_of(words))
    values.setdefault("workdir", "runs/quickstart-cheerful-smoke")
    values["out"] = values.get("out", "").rpartition(":")[2]  # behind its format
    stage = stages.STAGES.get(values.get("stage"))
    values["made_in"] = stage and stage.folder
    return [place / path.format(**values) for path in LEAVES[kind]]


def name_of(lines):
    return " ".join(lines[-1])[:90]


WHOLE = [pytest.param(lines, marks=pytest.mark.whole) for lines in REPEATED]


@pytest.mark.parametrize("lines", [*FIRST, *WHOLE], ids=name_of)
def test_printed_command_runs(lines, place, world, monkeypatch, capsys):
    for name, *words in lines:
        lay(place, world, (name, *words))
        status = type_in(monkeypatch, name, words)
        shown = capsys.readouterr()
        assert status == 0, shown.err[-2000:]
        assert "Traceback" not in shown.err
        if words == ["--help"]:
            assert "--" in shown.out and f"experiments.{name}" in shown.out
            continue
        for made in leaves(place, name, words):
            assert made.exists(), made
        assert re.search(SAYS.get(kind_of(name, words, SAYS), ""), shown.out), (
            shown.out[-2000:]
        )


# --- what is not run ------------------------------------------------------------------


def test_lines_of_pages_that_are_no_experiment_are_known():
    """What stands alone in a page's block and begins with a program is a command."""
    found = set()
    for path in printed.SOURCES:
        if path.suffix != ".md":
            continue
        text = (printed.ROOT / path).read_text("utf-8")
        text = re.sub(r"\\\n\s*", " ", text)
        for block in re.findall(r"```\n(.*?)```", text, re.S):
            for line in re.split(r"\n| && ", block):
                if re.match(r"(pip|python|git|cd|export|docker|kubectl|sbatch) ", line):
                    found.add(line.strip())
    others = {line for line in found if not line.startswith(printed.START)}
    assert others == {*NO_EXPERIMENT}


def test_extras_that_are_named_exist():
    text = (printed.ROOT / "setup.py").read_text("utf-8")
    known = {*re.findall(r'^    "(\w+)": \[', text, re.M)}
    named = set()
    for path in printed.SOURCES:
        page = (printed.ROOT / path).read_text("utf-8")
        named |= {*re.findall(r"-e '\.\[(\w+)\]'", page)}
    assert {"test", "cuda", "tpu"} <= named <= known


def test_what_cannot_run_here_is_printed_and_left_out_for_a_reason():
    printed_words = {
        (name, word)
        for _, line in printed.PRINTED
        for name, words in [printed.words_of(line)]
        for word in join_values(words)
    }
    assert {*NOT_HERE} <= printed_words and all(NOT_HERE.values())
    ran = {(name, word) for lines in LINES for name, *words in lines for word in words}
    assert not {*NOT_HERE} & ran


def test_what_the_suite_does_not_run_again_is_listed():
    shown = [" ".join(line) for lines in REPEATED for line in lines]
    for line in shown:
        assert any(f"{line} ".startswith(start) for start in AGAIN), line
    for start in AGAIN:
        assert any(f"{line} ".startswith(start) for line in shown), start
    ran = {path_of(line) for lines in FIRST for line in lines}
    assert {path_of(line) for lines in REPEATED for line in lines} <= ran


def test_only_what_is_stated_is_changed():
    line = (
        "python -m experiments.run --workdir runs/a --config configs/rlcd.py:"
        "task=harmless,model=hf:/models/llama-7b --config.prompts.hh_dir=/data/hh-rlhf "
        "[--stage preference] --config.policy.steps=40"
    )
    plain, whole = runnable(line)
    assert [word for word in whole if word not in plain] == ["--stage=preference"]
    assert plain == (
        "run",
        "--workdir=runs/a",
        "--config=configs/rlcd.py:task=harmless,model=hf:model,size=smoke",
        "--config.prompts.hh_dir=hh",
        *OF_HH,
        "--config.policy.steps=1",
        "--config.policy.rollouts=4",
        "--config.policy.warmup_steps=1",
        "--config.mesh.data=1",
    )
    assert runnable("python -m experiments.theory") == (("theory", "--trials=20000"),)
