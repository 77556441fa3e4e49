r"""Compare two systems by people: make the sheets, read the answers.

    python -m experiments.human make --samples RUN/evaluate/samples.jsonl \
        --systems rlcd base --per_annotator 200 --annotators 3 --workdir DIR
    python -m experiments.human read --workdir DIR

With --protocol paper a comparison is that of the paper: 200 examples, in random order,
each judged once on the scale from 1 to 8, without checks.

`make` writes a page and a CSV sheet for each annotator into DIR/annotators; give one of
the two to each, and nothing else of DIR. Put the files that come back into DIR/answers.
`read` checks them, un-blinds them with DIR/key, and writes tables into DIR/results.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax.command_line import flag_help
from rlcd_jax.human import checks, ratings, study_files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    action = make if args.command == "make" else read
    command.for_people(lambda: print("\n".join(action(args))))


def make(args: argparse.Namespace) -> list[str]:
    """Write the sheets of a study; return what to tell the user."""
    return study_files.make(
        args.samples,
        tuple(args.systems),
        args.workdir,
        protocol=args.protocol,
        num_annotators=args.annotators,
        per_annotator=args.per_annotator,
        shared=args.shared,
        repeats=args.repeats,
        num_gold=args.gold,
        gold_kind=args.gold_kind,
        gold_file=args.gold_file,
        task_name=args.task,
        question_name=args.question,
        seed=args.seed,
    )


def read(args: argparse.Namespace) -> list[str]:
    """Write the tables of one or more studies; return them as text."""
    return study_files.read(
        args.workdir,
        partial=args.partial,
        shift=args.shift,
        min_gold=args.min_gold,
        verdicts_file=args.verdicts,
        seed=args.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("human", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "make",
        help="write blind sheets for annotators",
        formatter_class=flag_help.Help,
    )
    one.add_argument(
        "--samples",
        required=True,
        type=pathlib.Path,
        help="evaluate/samples.jsonl of a run",
    )
    one.add_argument(
        "--systems",
        required=True,
        nargs=2,
        metavar=("FIRST", "SECOND"),
        help="two that the samples name, as the table of the run does",
    )
    one.add_argument("--workdir", required=True, type=pathlib.Path, help="new folder")
    one.add_argument(
        "--protocol",
        choices=study_files.PROTOCOLS,
        default=study_files.CAREFUL,
        help="paper: 200 examples, each judged once, no checks",
    )
    one.add_argument("--annotators", type=int, help="how many; default: 3; paper: 1")
    one.add_argument(
        "--per_annotator",
        type=int,
        help="different prompts, of each; default: 200; paper: their share of 200",
    )
    one.add_argument(
        "--shared", type=int, help="pairs that all judge; default: all; paper: 0"
    )
    one.add_argument(
        "--repeats", type=int, help="pairs shown twice; default: 1 in 20; paper: 0"
    )
    one.add_argument(
        "--gold", type=int, help="checks of attention; default: 1 in 25; paper: 0"
    )
    one.add_argument(
        "--gold_kind",
        choices=sorted(checks.KINDS),
        default="attention",
        help="garbled: a reply against mixed-up letters; not for harmlessness",
    )
    one.add_argument("--gold_file", help="JSON lines with prompt, better and worse")
    one.add_argument("--task", help="name or file; default: of the run's config.json")
    one.add_argument("--question", help="name; default: the task's first question")
    one.add_argument("--seed", type=int, default=0, help="of order and sides")
    two = commands.add_parser(
        "read",
        help="check answers and write tables",
        formatter_class=flag_help.Help,
    )
    two.add_argument(
        "--workdir",
        required=True,
        nargs="+",
        type=pathlib.Path,
        help="folders of studies",
    )
    two.add_argument("--partial", action="store_true", help="accept missing answers")
    two.add_argument(
        "--shift",
        choices=ratings.SHIFTS,
        default="none",
        help="remove each annotator's lean to a side, or offset of the mean",
    )
    two.add_argument(
        "--min_gold",
        type=float,
        default=0.0,
        help="share of the checks of attention that an annotator must pass, 0 to 1",
    )
    two.add_argument("--verdicts", help="of other judges, to compare: verdicts.jsonl")
    two.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


if __name__ == "__main__":
    main()
