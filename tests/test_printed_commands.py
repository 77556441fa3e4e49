"""Every command that this project prints can be typed as it stands.

Nothing is trained: a command is parsed by its own parser, and its config is asked what
a run asks first. Models, data and folders are not looked for.
`tests/test_printed_commands_run.py` runs them, small.
"""

import importlib
import math
import os
import pathlib
import re
import subprocess
import sys

import made_inputs
import printed
import pytest
from absl import flags

import experiments
from configs import paper
from experiments import command, quickstart
from rlcd_jax import dotted, launching
from rlcd_jax.checks import fields, refusals
from rlcd_jax.command_line import config_flag, quickstart_words
from rlcd_jax.launching import sweeps
from rlcd_jax.models import presets
from rlcd_jax.paper import nodes, read_config
from rlcd_jax.planning import chips, plan

ROOT, SOURCES, START = printed.ROOT, printed.SOURCES, printed.START
PRINTED, commands_of, words_of = printed.PRINTED, printed.commands_of, printed.words_of
# Commands that take a config, by their own definition of flags.
WITH_CONFIG = ("run", "plan", "reproduce", "verify_resume")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in a folder with task files of prompts enough for a result, and a method."""
    for name in ("polite", "YOURNAME"):
        made_inputs.write_task(tmp_path, name)
    made_inputs.write_method(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(name: str, words: list[str], monkeypatch):
    """Return the config that a command line of a command makes."""
    values = flags.FlagValues()
    importlib.import_module(f"experiments.{name}").define_flags(values)
    argv = [name, *words]
    monkeypatch.setattr(sys, "argv", argv)
    rest = config_flag.parse(argv, values, experiments.CONFIGS)
    assert rest == [name], "words that are no flags"
    return values


def check_run(config, needs_weights: bool, devices: int = 0) -> None:
    """Ask what a run asks first, of other machines: models are not opened."""
    refusals.check_config(config)
    mesh = config.mesh
    devices = devices or math.prod(
        (mesh.slices, max(mesh.data, 1), mesh.fsdp, mesh.tensor)
    )
    told = refusals.verdict(config, num_devices=devices)
    assert not told, told
    if needs_weights:
        spec = config.model.spec
        shapes = set(presets.PRESETS) - {"smollm2-135m"}
        assert spec not in shapes, f"model={spec} is a shape without weights"
        assert spec == "smollm2-135m" or re.match("(hf|gguf|random):.", spec)


def check_tables(config, workdir: pathlib.Path) -> None:
    """Ask what the tables ask first, and of each run of theirs what it asks."""
    setup = read_config.read_setup(
        config,
        workdir,
        make_config=command.method_config,
        cache_dir="",
        api_key=None,
        dry=True,
    )
    for task in setup.tasks:
        for name in setup.methods or ("rlcd", "distill"):
            own = nodes.METHODS.get(name, name)
            refusals.check_config(read_config.run_config(setup, own, task, 1))


def test_commands_are_found_where_they_are_printed():
    files = {where for where, _ in PRINTED}
    assert {"README.md", "experiments/README.md", "experiments/run.py"} <= files
    assert {"experiments/docs/own_task.md", "rlcd_jax/tasks/template.toml"} <= files
    assert {f"configs/{name}.py" for name in ("rlcd", "rlaif", "evaluate")} <= files
    assert len(PRINTED) > 40
    assert commands_of("`python -m experiments.a b \\\n    c` and\n") == [
        f"{START}a b c"
    ]
    assert commands_of(f"{START}a --b    says") == [f"{START}a --b"]


@pytest.mark.parametrize(("where", "line"), PRINTED)
def test_printed_command_works(where, line, folder, monkeypatch):
    name, words = words_of(line)
    module = importlib.import_module(f"experiments.{name}")
    if not words or words == ["--help"]:
        assert hasattr(module, "main")
    elif name == "quickstart":
        asked, others = quickstart._parser().parse_known_args(words)
        fields_of = {n: getattr(asked, n) for n in ("task", "model", "size", "seed")}
        as_run = quickstart_words.as_run("quickstart", "w", **fields_of, others=others)
        config = config_of("run", as_run, monkeypatch).config
        check_run(config, needs_weights=True)
    elif name == "bench":
        _, fields = module._parser().parse_known_args(words)
        config_flag.with_fields(command.method_config("rlcd", "size=paper"), fields)
    elif name in WITH_CONFIG:
        values = config_of(name, words, monkeypatch)
        if name == "reproduce":
            check_tables(values.config, folder / "tables")
        elif name == "plan":
            topology = chips.parse_topology(values.topology)
            check_run(values.config, False, topology.num_devices)
            assert plan.make_plan(values.config, topology, values.config.stages).works
        else:
            check_run(values.config, needs_weights=True)
    elif name == "sweep":
        place = words.index("--")
        asked = module._parser().parse_args(words[:place])
        for one in sweeps.commands(sweeps.read(asked.fields), words[place + 1 :]):
            check_run(config_of("run", one, monkeypatch).config, needs_weights=True)
    elif name == "launch":
        place = words.index("--")
        target = launching.TARGETS[words[words.index("--target") + 1]]
        module.make_parser(target).parse_args(words[:place])
        inner, *words = words[place + 1 :]
        values = config_of(inner, words, monkeypatch)
        if inner == "reproduce":
            check_tables(values.config, folder / "tables")
        else:
            check_run(values.config, needs_weights=True)
    else:
        module._parser().parse_args(words)


def test_guide_task_is_enough_for_its_smoke_run(folder, monkeypatch):
    (folder / "polite.toml").write_text(made_inputs.guide_task())
    smoke = [line for _, line in PRINTED if "task=polite.toml" in line]
    words = [words_of(line)[1] for line in smoke if "size=smoke" in line]
    assert len(words) == 1
    check_run(config_of("run", words[0], monkeypatch).config, needs_weights=True)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_printed_field_exists(path):
    text = (ROOT / path).read_text("utf-8")
    tables = dotted.flatten(paper.get_config().to_dict())
    known = {*fields.FIELDS, *tables, *(f"run.{name}" for name in fields.FIELDS)}
    sections = {name.rpartition(".")[0] for name in known}
    for name in re.findall(r"--config\.([a-z][a-z_0-9.]*[a-z_0-9])", text):
        assert name in {*known, *sections, "field"}, f"--config.{name}"


def test_a_shape_without_weights_is_no_model_to_run(folder, monkeypatch):
    words = ["--workdir=w", "--config=rlcd:task=cheerful,model=llama-7b"]
    config = config_of("run", words, monkeypatch).config
    with pytest.raises(AssertionError, match="shape without weights"):
        check_run(config, needs_weights=True)


@pytest.mark.parametrize("named", ["rlcd", "configs/rlcd.py"])
def test_folders_of_the_user_do_not_shadow_the_configs(folder, named):
    """As with an installed package: nothing of ours is in the current folder."""
    (folder / "experiments").mkdir()
    (folder / "configs").mkdir()
    for name in ("__init__", "common", "hardware", "sizes", "switches"):
        (folder / "configs" / f"{name}.py").write_text("raise RuntimeError('theirs')")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.run", "--workdir=w"),
            *("--config", f"{named}:size=smoke", "--config.policy.steps=0"),
            "--stage=nosuch",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "policy.steps=0; accepted: a whole number, from 1" in done.stderr


HELPED = {
    "run": ("--stage", "--config.policy.gamma  a finite number, from 0 up to 1 (disc"),
    "plan": (
        "--topology",
        "--config.mesh.tensor  a whole number, from 1 up to 2147483647 (ways)",
    ),
    "quickstart": ("--size", "--config.policy.gamma  a finite number"),
    "reproduce": (
        "--dry_run",
        "--config.judge.offline  True or False; False  # answer",
    ),
}


@pytest.mark.parametrize("name", HELPED)
def test_help_lists_every_field(name, monkeypatch, capsys):
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    module.main()
    shown = capsys.readouterr().out
    for part in HELPED[name]:
        assert part in shown
    told = re.findall(r"^  --config\.(\S+)  \S", shown, re.M)
    if name == "reproduce":
        tables = dotted.flatten(paper.get_config().to_dict())
        assert sorted(told) == sorted(tables)
    else:
        assert told == list(fields.FIELDS)


WITH_PARSER = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "def _parser" in path.read_text("utf-8")
)


def actions_of(parser):
    """Yield the flags and words of a parser, and those of its commands."""
    for action in parser._actions:
        yield action
        inner = action.choices if isinstance(action.choices, dict) else {}
        for one in inner.values():
            yield from actions_of(one)


@pytest.mark.parametrize("name", WITH_PARSER)
def test_every_flag_says_what_it_is(name):
    parser = importlib.import_module(f"experiments.{name}")._parser()
    actions = list(actions_of(parser))
    assert parser.prog == f"python -m experiments.{name}"
    assert not [a.dest for a in actions if not a.help and a.dest != "command"]
    hyphens = [word for a in actions for word in a.option_strings if "-" in word[2:]]
    assert not hyphens, "flags are spelt alike: with _"


def test_help_ends_quietly_when_its_reader_stops(folder):
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m experiments.run --help | true",
        shell=True,
        executable="/bin/bash",
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr
