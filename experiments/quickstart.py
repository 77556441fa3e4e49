r"""The whole job on the embedded real model: pairs, preference model, PPO, a table.

  python -m experiments.quickstart [--size full] [--seed 7] [--workdir DIR] \
      [--config.policy.steps=40]

Two CPU cores are enough. `--size full` takes hours there and minutes on a GPU. The
same as `experiments.run --config configs/quickstart.py:size=quick`, with a table.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

from ml_collections import ConfigDict

from configs import common, quickstart
from experiments import command, field_help, run


def main() -> None:
    """Run the quickstart config and print its table."""
    if command.asks_help(sys.argv):
        command.print_help(f"{_parser().format_help()}\n{field_help.of_runs()}")
        return
    workdir, argv = as_run(sys.argv[1:])
    sys.argv[:] = argv  # where the flags of single fields are looked for

    def act(config: ConfigDict) -> None:
        run.run(config)
        table = pathlib.Path(workdir) / "evaluate" / "table.md"
        if table.exists():  # it is not where evaluate was left out of the stages
            print(table.read_text())
        print(f"Everything else: {workdir}/report.html")

    command.start(act, run.define_flags, __doc__, field_help.of_runs)


def as_run(given: list[str]) -> tuple[str, list[str]]:
    """Return the workdir, and the command line of `experiments.run` for the same."""
    parser = _parser()
    asked, others = parser.parse_known_args(given)
    for flag in others:
        if not (flag.startswith("--config.") and "=" in flag):
            parser.error(f"{flag!r}; accepted beside these: --config.field=value")
    name = pathlib.Path(asked.task).stem  # of a task file, its name alone
    workdir = asked.workdir or f"runs/quickstart-{name}-{asked.size}"
    argument = f"task={asked.task},model={asked.model},size={asked.size}"
    seed = [f"--config.seed={asked.seed}"] if asked.seed else []
    config = f"--config={os.path.relpath(quickstart.__file__)}:{argument}"
    return workdir, ["quickstart", config, f"--workdir={workdir}", *seed, *others]


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("quickstart", __doc__)
    parser.add_argument("--workdir", default="", help="folder of the run")
    parser.add_argument("--size", default="quick", choices=common.ARGUMENTS["size"])
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
