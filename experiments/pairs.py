"""Pairs of replies, from and to the files of others.

    python -m experiments.pairs import trl:theirs.parquet --out pairs.jsonl
    python -m experiments.pairs export runs/rlcd --out trl:pairs.jsonl
    python -m experiments.pairs export runs/rlcd --out alpaca_farm:pairs.csv

Formats: trl (prompt, chosen, rejected; texts, or messages by --conversational) and
alpaca_farm (instruction, input, output_1, output_2, preference; the CSV of RLCD's
scripts has these columns). Files end in .jsonl, .json, .csv or .parquet. `import` reads
a file as a run would (preference.data=trl:FILE), says what it holds, and with --out
writes it as records of this package.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax.datasets import comparisons
from rlcd_jax.job import workspace


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "export" and not args.out:
        parser.error("export needs --out FORMAT:FILE")
    command.for_people(lambda: {"import": read, "export": write}[args.command](args))


def read(args: argparse.Namespace) -> None:
    """Say what a file of others holds, and write it as records."""
    found = comparisons.read(args.what, seed=args.seed)
    print(comparisons.describe(found))
    if args.out:
        made = comparisons.write(f"rlcd:{args.out}", comparisons.as_records(found))
        print(f"wrote {made.said(args.out)}")


def write(args: argparse.Namespace) -> None:
    """Write the pairs of a run, or of a file of records, for others."""
    source = pathlib.Path(args.what)
    if source.is_dir():
        source = workspace.stage_folder(source, "simulate") / "pairs.jsonl"
    rows = comparisons.read_records(source)
    made = comparisons.write(args.out, rows, conversational=args.conversational)
    print(f"wrote {made.said(args.out)}")


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("pairs", __doc__)
    parser.add_argument("command", choices=("import", "export"), help="as above")
    parser.add_argument("what", help="FORMAT:FILE to import; workdir or file to export")
    parser.add_argument("--out", default="", help="file to write, as above")
    parser.add_argument(
        "--conversational", action="store_true", help="export lists of messages (trl)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the coins for which reply is first"
    )
    return parser


if __name__ == "__main__":
    main()
