"""What an installation has: every file of the packages, and one command for all."""

import importlib
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest

import rlcd_jax
from experiments import __main__ as program
from rlcd_jax.command_line import commands
from rlcd_jax.job import workspace

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("rlcd_jax", "configs", "experiments")
LAUNCHERS = ROOT / "experiments"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of all that a wheel of this project holds."""
    folder = tmp_path_factory.mktemp("built")
    words = ("-q", "build", "--build-base", str(folder / "base"))
    words += ("--build-lib", str(folder / "lib"))
    subprocess.run([sys.executable, "setup.py", *words], cwd=ROOT, check=True)
    return folder / "lib"


def files_of(folder: pathlib.Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_packages_is_installed(built):
    assert files_of(built) == files_of(ROOT)
    assert "rlcd_jax/py.typed" in files_of(built)


def in_an_empty_folder(folder, built, *words):
    """Type words after `rlcd`, where nothing of ours lies but what is installed."""
    start = "import sys; from experiments.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", start, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(built), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_installed_finds_its_own_files(built, tmp_path):
    (tmp_path / "experiments").mkdir()  # of the user, and none of our business
    shown = in_an_empty_folder(tmp_path, built, "task", "show", "cheerful")
    assert shown.returncode == 0, shown.stderr
    assert "cheerful" in shown.stdout
    words = ("--config", "rlcd:task=cheerful,size=smoke", "--workdir=w")
    refused = in_an_empty_folder(tmp_path, built, "run", *words, "--config.seed=-1")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "seed=-1; accepted: " in refused.stderr


def test_a_clone_that_is_not_installed_says_its_version(monkeypatch):
    known = importlib.metadata.version

    def version(name):
        if name == "rlcd_jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    told = workspace.environment()["packages"]
    assert told["rlcd_jax"] == rlcd_jax.__version__ and told["jax"] == known("jax")


def test_the_command_is_what_setup_names():
    named = re.search(r'"rlcd = ([\w.]+):(\w+)"', (ROOT / "setup.py").read_text())
    found = getattr(importlib.import_module(named[1]), named[2])
    assert found is program.main and program.PROGRAM == "rlcd"


def test_every_launcher_is_a_command():
    launchers = {
        path.stem
        for path in LAUNCHERS.glob("*.py")
        if "__main__" in path.read_text("utf-8") and path.stem != "__main__"
    }
    assert set(program.COMMANDS) == launchers
    lines = commands.read_lines(LAUNCHERS, program.COMMANDS)
    assert all(line.endswith(".") for line in lines.values())


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_all_commands_are_listed(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlcd", *words])
    program.main()
    shown = capsys.readouterr().out
    listed = re.findall(r"^  (\w+)  +\S.*$", shown, re.M)
    assert tuple(listed) == program.COMMANDS
    assert max(map(len, shown.splitlines())) <= 100


def test_a_word_starts_its_command_with_the_other_words(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlcd", "task", "show", "cheerful"])
    program.main()
    assert "cheerful" in capsys.readouterr().out
    assert sys.argv == ["rlcd task", "show", "cheerful"]


@pytest.mark.parametrize(
    ("word", "near"),
    [("rum", "run"), ("verify-resume", "verify_resume"), ("quick-start", "quickstart")],
)
def test_a_wrong_word_is_told_the_near_one(word, near, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlcd", word])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: no command '{word}' (did you mean '{near}'?); ")


def test_a_word_that_is_near_to_none_lists_them():
    with pytest.raises(ValueError, match="^no command 'xyz'; accepted: run, plan$"):
        commands.check("xyz", ("run", "plan"))
