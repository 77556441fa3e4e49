"""A task of your own: start its file, and see what was read of it.

    python -m experiments.task new polite.toml     writes a form to fill in
    python -m experiments.task show polite.toml    what it says, or all that is wrong

`show` also takes the name of a task of this package.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments import command
from rlcd_jax import tasks
from rlcd_jax.judging import judges


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "new":
            path = tasks.write_template(pathlib.Path(args.task))
            print(f"wrote {path}; change its affix pairs and prompts, then: show")
        else:
            task = tasks.load_task(args.task)
            print(tasks.describe(task))
            for judge in judges.JUDGES.values():
                print(f"judge {judge.name}: {judge.misfit(task) or judge.what}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("task", __doc__)
    parser.add_argument("command", choices=("new", "show"))
    parser.add_argument("task", help="path of a .toml file; a name for 'show'")
    return parser


if __name__ == "__main__":
    sys.exit(main())
