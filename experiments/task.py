"""A task of your own: start its file, and see what was read of it.

    python -m experiments.task new polite.toml     writes a form to fill in
    python -m experiments.task show polite.toml    what it says, or all that is wrong

`show` also takes the name of a task of this package.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax import tasks
from rlcd_jax.judging import judges


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    command.for_people(lambda: {"new": new, "show": show}[args.command](args.task))


def new(path: str) -> None:
    """Write a form to fill in."""
    made = tasks.write_template(pathlib.Path(path))
    print(f"wrote {made}; change its affix pairs and prompts, then: show")


def show(name: str) -> None:
    """Print what a task says, and which judges fit it."""
    task = tasks.load_task(name)
    print(f"{tasks.describe(task)}\n{judges.describe(task)}")


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("task", __doc__)
    parser.add_argument("command", choices=("new", "show"), help="as above")
    parser.add_argument("task", help="path of a .toml file; a name for 'show'")
    return parser


if __name__ == "__main__":
    main()
