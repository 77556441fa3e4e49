r"""The whole job on the embedded real model: pairs, preference model, PPO, a table.

  python -m experiments.quickstart [--size full] [--seed 7] [--workdir DIR] \
      [--config.policy.steps=40]

Two CPU cores are enough. `--size full` takes hours there and minutes on a GPU. The
same as `experiments.run --config configs/quickstart.py:size=quick`.
"""

from __future__ import annotations

import argparse
import os
import sys

from configs import common, quickstart
from experiments import command, run
from rlcd_jax.command_line import quickstart_words, workdir_name


def main() -> None:
    """Run the quickstart config and print its table."""
    parser = _parser()
    if command.asks_help():
        command.print_help(f"{parser.format_help()}\n{run.describe_fields()}")
        return
    asked, others = parser.parse_known_args()
    command.for_people(lambda: start(asked, others))


def start(asked: argparse.Namespace, others: list[str]) -> None:
    """Start a run with the words of these flags, and print what it leaves."""
    own = workdir_name.of("quickstart", asked.task, asked.size)
    workdir = asked.workdir or own
    words = quickstart_words.as_run(
        os.path.relpath(quickstart.__file__),
        workdir,
        task=asked.task,
        model=asked.model,
        size=asked.size,
        seed=asked.seed,
        others=others,
    )
    sys.argv[1:] = words  # where the flags of single fields are looked for
    command.start(run.run, run.define_flags, __doc__, run.describe_fields)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("quickstart", __doc__)
    parser.add_argument(
        "--workdir", default="", help="default: runs/quickstart-TASK-SIZE"
    )
    parser.add_argument(
        "--size",
        default="quick",
        choices=common.ARGUMENTS["size"],
        help="how much: the paper's numbers, hours, minutes or seconds on two cores",
    )
    parser.add_argument("--task", default="cheerful", help="task name or file")
    parser.add_argument("--model", default="smollm2-135m", help="model spec")
    parser.add_argument("--seed", default="", help="root of all randomness")
    parser.add_argument(
        "--config.FIELD",
        metavar="VALUE",
        help="set a field, as --config.policy.steps=9; --help lists them",
    )
    return parser


if __name__ == "__main__":
    main()
