"""What is typed at a command: the config it names, mistakes in it, its fields."""

import argparse
import errno
import os
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

import experiments
from experiments import command
from rlcd_jax.command_line import (
    config_flag,
    field_help,
    flag_help,
    job_flags,
    last_words,
    quickstart_words,
    workdir_name,
)
from rlcd_jax.job import hosts
from rlcd_jax.statistics import estimates, tables

CONFIGS = experiments.CONFIGS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*words: str) -> list[str]:
    return config_flag.name_file(["run", *words], CONFIGS)


def test_a_bare_name_is_a_config_of_this_project(folder):
    own = CONFIGS / "rlcd.py"
    for named in ("rlcd", "configs/rlcd.py"):
        argument = f"{named}:task=harmless,model=hf:/a/b"
        resolved = f"{own}:task=harmless,model=hf:/a/b"
        assert typed("--config", argument, "--workdir=w") == [
            *("run", "--config", resolved, "--workdir=w")
        ]
        assert typed(f"--config={argument}") == ["run", f"--config={resolved}"]
        assert typed(f"--config={named}") == ["run", f"--config={own}"]


def test_a_path_that_exists_or_is_elsewhere_stays(folder):
    (folder / "configs").mkdir()
    (folder / "configs" / "rlcd.py").write_text("")
    (folder / "rlcd").mkdir()
    for named in ("configs/rlcd.py:size=full", "mine.py", "my/rlcd.py", "configs/a.py"):
        assert typed("--config", named) == ["run", "--config", named]
    own = str(CONFIGS / "rlcd.py")
    assert typed("--config", "rlcd") == ["run", "--config", own]
    assert typed("--workdir=w") == ["run", "--workdir=w"]
    assert typed("--config") == ["run", "--config"]


@pytest.mark.parametrize(
    "name", ["nosuch", "common", "hardware", "sizes", "switches", ""]
)
def test_an_unknown_name_lists_the_names(name):
    with pytest.raises(ValueError, match="no config has this name; .*rlaif, rlcd"):
        typed(f"--config={name}:size=full")


@pytest.fixture
def values():
    """The flags of a command that takes a config."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    return values


def parsed(values, monkeypatch, *words: str) -> list[str]:
    monkeypatch.setattr("sys.argv", ["run", *words])  # where overrides are looked for
    return config_flag.parse(["run", *words], values, CONFIGS)


def test_words_that_are_no_flags_are_left(values, monkeypatch):
    left = parsed(values, monkeypatch, "--config=rlcd", "x", "--config.seed=7")
    assert left == ["run", "x"] and values.config.seed == 7


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--config=rlcd", "--config.policy.gama=1"), "no field 'policy.gama'"),
        (("--config=rlcd", "--config.seed.low=1"), "place of 'low': nothing"),
        (("--config=rlcd:size=huge",), "size='huge'; accepted: paper, long"),
        (("--config=none/such.py",), "the config cannot be read"),
        (("--config=rlcd", "--nosuch=1"), "nosuch"),
    ],
)
def test_mistakes_are_told_in_one_line(values, words, told, monkeypatch):
    with pytest.raises(ValueError, match=told) as caught:
        parsed(values, monkeypatch, *words)
    assert "\n" not in str(caught.value)


def test_a_reader_that_left_is_no_mistake(tmp_path, monkeypatch):
    class Closed:
        """Standard output into a pipe whose reader has gone."""

        def __init__(self, file):
            self.fileno = file.fileno

        def flush(self):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def tell():
        sys.stdout.flush()

    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", Closed(file))
        command.for_people(tell)
        file.write("the rest")
    assert (tmp_path / "out").read_text() == ""


def test_a_flag_that_is_missing_is_told_with_what_it_is(values, monkeypatch):
    command.define_workdir(values)
    told = "--workdir is missing. Folder of results; made when absent."
    with pytest.raises(ValueError, match=told):
        parsed(values, monkeypatch, "--config=rlcd")


def test_a_field_of_the_argument_is_not_overridden(values, monkeypatch):
    parsed(values, monkeypatch, "--config=rlcd", "--config.size=quick")
    config_flag.refuse_overrides(values, ("preset", "task"))
    with pytest.raises(ValueError, match="--config FILE:size=VALUE"):
        config_flag.refuse_overrides(values, ("preset", "size"))


def test_flags_of_a_job_stand_for_variables():
    def read(*words):
        values = flags.FlagValues()
        job_flags.define(values)
        values(["run", *words])
        return job_flags.read(values)

    assert read() == job_flags.ALONE
    found = read("--coordinator=a:8476", "--process_id=0", "--lost_seconds=90")
    assert found.variables == {hosts.COORDINATOR: "a:8476", hosts.INDEX: "0"}
    assert (found.start_seconds, found.lost_seconds) == (300.0, 90.0)
    whole = read("--coordinator=a:8476", "--num_processes=2", "--process_id=1")
    assert hosts.find(whole.variables).index == 1
    with pytest.raises(flags.IllegalFlagValueError, match="lost_seconds"):
        read("--lost_seconds=1")


def test_comments_are_those_beside_the_fields(tmp_path):
    path = tmp_path / "one.py"
    path.write_text(
        "# of the file\n\n"
        "config.a.b = 1  # beside; more\n"
        "# above,\n# two lines\nc.d = 2\n"
        "e.f = (\n    3  # inside\n)\n"
        "g.h = 4\n"
        "config.a.b = 5  # again\n"
    )
    assert field_help.comments(path) == {
        "a.b": "beside; more",
        "c.d": "above, two lines",
        "e.f": "inside",
    }


def test_quickstart_takes_a_seed_and_fields_as_run_does():
    flags_of = {"task": "cheerful", "model": "smollm2-135m", "size": "smoke"}
    others = ["--config.policy.steps=3"]
    assert quickstart_words.as_run("f.py", "w", **flags_of) == [
        "--config=f.py:task=cheerful,model=smollm2-135m,size=smoke",
        "--workdir=w",
    ]
    words = quickstart_words.as_run("f.py", "w", **flags_of, seed="7", others=others)
    assert words[1:] == ["--workdir=w", "--config.seed=7", "--config.policy.steps=3"]
    for other in ("--polcy.steps=3", "--config.policy.steps", "more"):
        with pytest.raises(ValueError, match="accepted beside these: --config.field="):
            quickstart_words.as_run("f.py", "w", **flags_of, others=[other])


def test_a_run_without_a_workdir_has_one_of_its_method_task_and_size():
    assert workdir_name.of("rlcd", "my/own.toml", "quick") == "runs/rlcd-own-quick"
    own = flags.FlagValues()
    command.define_workdir(own, default="runs/METHOD-TASK-SIZE")
    own(["run"])
    assert own.workdir == "" and "Default: runs/METHOD" in own["workdir"].help


def test_a_run_tells_its_table_where_there_is_one(tmp_path):
    workdir = str(tmp_path)
    assert last_words.of(workdir) == f"Everything else: {workdir}"
    (tmp_path / "report.html").touch()
    place = f"Everything else: {workdir}/report.html"
    assert last_words.of(workdir) == place
    (tmp_path / "evaluate").mkdir()
    columns = tuple(tables.Column(f"figure {i}") for i in range(9))
    wide = estimates.Estimate(0.5, 0.25, 0.75, 0.95, 51)
    cells = (wide, estimates.Missing("the base model itself and no other"), *[wide] * 7)
    rows = tuple((name, cells) for name in ("base", "distill", "rlcd", "rlaif"))
    table = tables.Table("cheerful", "system", columns, rows, ("a note " * 30,))
    tables.write_table(table, tmp_path / "evaluate")
    for width, most in ((80, 80), (100, 100), (200, 100)):
        told = last_words.of(workdir, width)
        assert told.endswith(place) and "n = 51 in every cell" in told
        assert max(map(len, told.removesuffix(place).splitlines())) <= most
        for part in ("rlaif", "figure 8", "0.50 [0.25, 0.75]", "missing: the base"):
            assert part in told
    assert tables.from_json(tables.as_json(table)) == table


def test_flags_are_listed_with_the_defaults_that_need_telling():
    own = flags.FlagValues()
    flags.DEFINE_string("format", "text", "What is printed.", flag_values=own)
    flags.DEFINE_integer("slices", 0, "0: one.", flag_values=own)
    flags.DEFINE_bool("search", False, "Rank.", flag_values=own)
    flags.DEFINE_list("stage", [], "Stages.", flag_values=own)
    listed = flag_help.of_flags(own).splitlines()
    assert sorted(listed) == [
        "  --format  What is printed; default: 'text'",
        "  --search  Rank",
        "  --slices  0: one",
        "  --stage  Stages",
    ]


def test_arguments_are_listed_with_the_defaults_that_need_telling():
    parser = argparse.ArgumentParser(
        description="a\n    b", formatter_class=flag_help.Help
    )
    parser.add_argument("--trials", type=int, default=0, help="how many")
    parser.add_argument("--model", default="tiny", help="its spec")
    parser.add_argument("--out", default="", help="a file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--must", required=True, default="x", help="given")
    shown = parser.format_help()
    assert "a\n    b" in shown
    flat = f"{' '.join(shown.split())} -"
    for told in (
        "how many; default: 0",
        "its spec; default: tiny",
        "a file",
        "print JSON",
    ):
        assert f" {told} -" in flat
    assert " given -" in flat


RLCD = "--config=rlcd:size=smoke,model=random:tiny"
# Imports that take long. What is asked or refused before the first check needs none;
# a check needs those of the core, and none that only the work itself uses.
WORK = {"matplotlib", "tensorflow_datasets", "transformers", "scipy.stats"}
CORE = {"jax", "flax", "optax", "orbax", "grain", "scipy", "pyarrow", "httpx", "rich"}
SEEN = """
import runpy, sys
module, heavy = sys.argv[1], sys.argv[2].split(",")
sys.argv[:3] = [module]
try:
    runpy.run_module(module, run_name="__main__")
finally:
    print("imported:", *(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("name", "words", "unneeded", "told"),
    [
        ("run", ("--help",), WORK, "--config.policy.gamma"),
        ("reproduce", ("--help",), WORK, "--config.judge.offline"),
        ("run", (RLCD, "--config.policy.stepz=1"), WORK | CORE, "policy.stepz"),
        ("run", (RLCD, "--stag=policy"), WORK | CORE, "flag 'stag'"),
        ("run", (RLCD, "--config.policy.steps=0"), WORK, "policy.steps=0"),
        (
            "reproduce",
            ("--config=paper:table=3,scale=tiny", "--config.stepz=1"),
            WORK | CORE,
            "stepz",
        ),
    ],
)
def test_help_and_mistakes_are_answered_before_long_imports(
    folder, name, words, unneeded, told
):
    heavy = ",".join(sorted(unneeded))
    done = subprocess.run(
        [
            *(sys.executable, "-c", SEEN, f"experiments.{name}", heavy),
            *(*words, "--workdir=w"),
        ],
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told in done.stdout + done.stderr
    assert (done.returncode == 0) == (words == ("--help",))
    assert done.stdout.splitlines()[-1] == "imported:"
