"""All commands under one name: `rlcd WORD …` is `python -m experiments.WORD …`.

`rlcd` alone lists them, as does `python -m experiments`.
"""

from __future__ import annotations

import importlib
import pathlib
import sys

import rlcd_jax
from experiments import command
from rlcd_jax.command_line import commands

PROGRAM = "rlcd"
# In the order in which somebody meets them; each says what its docstring says first.
COMMANDS = (
    "quickstart",
    "run",
    "sweep",
    "task",
    "plan",
    "report",
    "diagnose",
    "pairs",
    "weights",
    "human",
    "replay",
    "reproduce",
    "launch",
    "bench",
    "verify_resume",
    "theory",
)


def main() -> None:
    """Start the command that the first word names with the words after it."""
    word, *words = sys.argv[1:] or ["--help"]
    if word in command.HELP:
        lines = commands.read_lines(pathlib.Path(__file__).parent, COMMANDS)
        command.print_help(commands.overview(PROGRAM, lines))
    elif word == "--version":
        print(rlcd_jax.__version__)
    else:
        command.for_people(lambda: commands.check(word, COMMANDS))
        sys.argv[:] = [f"{PROGRAM} {word}", *words]
        importlib.import_module(f"experiments.{word}").main()


if __name__ == "__main__":
    main()
