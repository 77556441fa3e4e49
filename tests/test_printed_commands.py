"""Every command that this project prints can be typed as it stands.

Nothing is trained: a command is parsed by its own parser, and its config is asked what
a run asks first. Models, data and folders are not looked for.
"""

import importlib
import pathlib
import re
import shlex
import sys

import pytest
from absl import flags

from configs import paper
from experiments import command, field_help, quickstart
from rlcd_jax.checks import fields, refusals
from rlcd_jax.models import presets
from rlcd_jax.paper import read_config

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("experiments", "configs", "rlcd_jax")
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", *(ROOT / "experiments").rglob("*.md")]
    + [p for f in FOLDERS for e in ("py", "toml") for p in (ROOT / f).rglob(f"*.{e}")]
)
START = "python -m experiments."
# Commands that take a config, by their own definition of flags.
WITH_CONFIG = ("run", "plan", "reproduce")


def commands_of(text: str) -> list[str]:
    """Return the commands that begin a line, a comment or a quotation."""
    text = re.sub(r"\\\s*\n[\s#]*", " ", text)  # lines that go on
    text = re.sub(r'"\n\s+f?"', "", text)  # literals of Python that go on
    found = []
    for line in text.splitlines():
        for part in re.findall(rf"{re.escape(START)}[^`]*", line):
            words = re.split(r"\s{3,}|\\n|\s#|\"(?=[,)]|$)| && ", part)[0]
            found.append(words.strip().rstrip(".,;"))
    return found


def collect() -> list[tuple[str, str]]:
    """Return each printed command once, with the first file that prints it."""
    found: dict[str, str] = {}
    for path in SOURCES:
        for printed in commands_of((ROOT / path).read_text("utf-8")):
            if re.match(rf"{re.escape(START)}[a-z]", printed):
                found.setdefault(printed, str(path))
    return [(where, printed) for printed, where in found.items()]


PRINTED = collect()


def words_of(printed: str) -> tuple[str, list[str]]:
    """Return a command's module and words, with all that is optional."""
    printed = re.sub(r"\[(-[^\]]*)\]", r"\1", printed)
    name, *words = shlex.split(printed.removeprefix("python -m "))
    return name.removeprefix("experiments."), words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in an empty folder with the task of the guide and of the form."""
    page = (ROOT / "experiments" / "docs" / "own_task.md").read_text("utf-8")
    task = next(
        block
        for block in re.findall(r"```toml\n(.*?)```", page, re.S)
        if 'name = "polite"' in block
    )
    (tmp_path / "polite.toml").write_text(task)
    (tmp_path / "YOURNAME.toml").write_text(task.replace('"polite"', '"YOURNAME"', 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(name: str, words: list[str], monkeypatch):
    """Return the config that a command line of a command makes."""
    values = flags.FlagValues()
    importlib.import_module(f"experiments.{name}").define_flags(values)
    argv = [name, *words]
    monkeypatch.setattr(sys, "argv", argv)
    assert command.parse_flags(argv, values) == [name], "words that are no flags"
    return values


def check_run(config, needs_weights: bool) -> None:
    """Ask what a run asks first, of other machines: models are not opened."""
    refusals.check_config(config)
    devices = config.mesh.fsdp * config.mesh.tensor * max(config.mesh.data, 1)
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
            refusals.check_config(read_config.run_config(setup, name, task, 1))


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


@pytest.mark.parametrize(("where", "printed"), PRINTED)
def test_printed_command_works(where, printed, folder, monkeypatch):
    name, words = words_of(printed)
    module = importlib.import_module(f"experiments.{name}")
    if not words or words == ["--help"]:
        assert hasattr(module, "main") or hasattr(module, "start")
    elif name == "quickstart":
        config = config_of("run", quickstart.as_run(words)[1][1:], monkeypatch).config
        check_run(config, needs_weights=True)
    elif name in WITH_CONFIG:
        config = config_of(name, words, monkeypatch).config
        if name == "reproduce":
            check_tables(config, folder / "tables")
        else:
            check_run(config, needs_weights=name == "run")
    else:
        module._parser().parse_args(words)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_printed_field_exists(path):
    text = (ROOT / path).read_text("utf-8")
    tables = dict(field_help.flatten(paper.get_config()))
    known = {*fields.FIELDS, *tables, *(f"run.{name}" for name in fields.FIELDS)}
    sections = {name.rpartition(".")[0] for name in known}
    for name in re.findall(r"--config\.([a-z][a-z_0-9.]*[a-z_0-9])", text):
        assert name in {*known, *sections, "field"}, f"--config.{name}"
