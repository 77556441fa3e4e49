"""Write the page of a run, or of several runs side by side.

Command:  python -m experiments.report --workdir runs/rlcd
          python -m experiments.report --workdir runs/rlcd --studies studies/one
          python -m experiments.report --workdir runs --compare runs/rlcd runs/rlaif

The first writes report.html, the second adds the results of human studies to it, the
third writes compare.html, all into the workdir; runs that differ in the seed alone are
one group there. The page shows what was changed from the run's preset, when its config
file still exists.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax import report
from rlcd_jax.report import run_preset


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.compare and args.studies:
        parser.error("--studies belong to the report of one run; leave out --compare")
    command.for_people(lambda: print(write(args)))


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("report", __doc__)
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="workdirs")
    parser.add_argument(
        "--studies",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="of human studies, read by experiments.human",
    )
    return parser


def write(args: argparse.Namespace) -> pathlib.Path:
    """Write a page and return its path."""
    if args.compare:
        path = pathlib.Path(args.workdir) / report.COMPARISON_NAME
        return report.write_comparison(args.compare, path)
    preset = run_preset.find(args.workdir, command.method_config)
    return report.write_report(args.workdir, preset=preset, studies=args.studies)


if __name__ == "__main__":
    main()
