"""Appendix N of the paper: how often labels are right, in figures and on a run.

    python -m experiments.theory
    python -m experiments.theory --pairs RUN/pairs/pairs.jsonl [--scores FILE]

The first prints closed forms beside the published digits and a Monte Carlo check, in
seconds; it fails when a closed form misses a published digit. The second fits the
model to a run's pairs and prints predicted and measured label accuracy of RLCD, RLAIF
and Rescore. The truth is stood in for by a word list of sentiment, which means
something for tasks about mood only, or by `--scores`: JSON lines with the fields
"id" (of the pair), "score_1" and "score_2" (of its replies).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from experiments import command
from rlcd_jax.diagnosis import label_noise_files
from rlcd_jax.paper import appendix_n_table
from rlcd_jax.statistics import tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the exit status is 1 if a published digit is missed."""
    args = _parser().parse_args(argv)
    command.for_people(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Print a table; exit with 1 if a published digit is missed."""
    wrong: list[str] = []
    if args.pairs:
        table = label_noise_files.files_table(
            args.pairs, task_name=args.task, scores=args.scores, seed=args.seed
        )
    else:
        table = appendix_n_table.paper_table(trials=args.trials, seed=args.seed)
        wrong = appendix_n_table.disagreements(table)
    if args.json:
        print(json.dumps(tables.as_json(table), indent=2))
    else:
        print(tables.markdown(table), end="")
    if wrong:
        sys.stderr.writelines(f"error: {line}\n" for line in wrong)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("theory", __doc__)
    parser.add_argument(
        "--pairs",
        nargs="+",
        type=pathlib.Path,
        default=(),
        metavar="FILE",
        help="pairs.jsonl of one or more runs of one task, such as RLCD's and RLAIF's",
    )
    parser.add_argument("--task", help="name or file; default: that of the pairs")
    parser.add_argument(
        "--scores", type=pathlib.Path, help="JSON lines with a trusted judge's scores"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=3_000_000,
        help="of the Monte Carlo check, for each shift",
    )
    parser.add_argument("--seed", type=int, default=0, help="of trials and bootstrap")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    main()
