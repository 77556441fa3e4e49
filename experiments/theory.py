"""Appendix N of the paper: how often labels are right, in figures and on a run.

    python -m experiments.theory
    python -m experiments.theory --pairs RUN/pairs/pairs.jsonl [--scores FILE]

The first prints closed forms beside the published digits and a Monte Carlo check, in
seconds; it fails when a closed form misses a published digit. The second fits the
model to a run's pairs and prints predicted and measured label accuracy of RLCD, RLAIF
and Rescore. The truth is stood in for by a word list of sentiment, which means
something for tasks about mood only, or by ``--scores``: JSON lines with the fields
"id" (of the pair), "score_1" and "score_2" (of its replies).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from rlcd_jax import diagnostics, judges, label_noise, records, tables, tasks

SCORE_FIELDS = ("id", "score_1", "score_2")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        if args.pairs:
            table, wrong = run_table(args), []
        else:
            table = label_noise.paper_table(trials=args.trials, seed=args.seed)
            wrong = label_noise.disagreements(table)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(tables.as_json(table), indent=2))
    else:
        print(tables.markdown(table), end="")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.theory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--pairs",
        nargs="+",
        type=pathlib.Path,
        default=(),
        metavar="FILE",
        help="pairs.jsonl of one or more runs of one task, such as RLCD's and RLAIF's",
    )
    parser.add_argument("--task", help="name or file; default: that of the pairs")
    parser.add_argument("--scores", type=pathlib.Path, help="a trusted judge's scores")
    parser.add_argument("--trials", type=int, default=3_000_000, help="for each shift")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run_table(args: argparse.Namespace) -> tables.Table:
    """Return predicted and measured label accuracy of files of pairs."""
    pairs = [p for path in args.pairs for p in records.read_jsonl(path, records.Pair)]
    if not pairs:
        raise ValueError(f"no pairs in {', '.join(map(str, args.pairs))}")
    task = tasks.load_task(args.task or pairs[0].task)
    name, score = judges.LEXICON, diagnostics.lexicon
    if args.scores:
        found = read_scores(args.scores, pairs)
        name, score = args.scores.name, lambda texts: [found[text] for text in texts]
    elif task.lexicon is None:
        why = judges.JUDGES[judges.LEXICON].misfit(task)
        raise ValueError(f"{why}; give a trusted judge's scores of the pairs: --scores")
    readings = diagnostics.measure(pairs, task, outside={name: score})
    judged = label_noise.judged(diagnostics.one_each(readings), name)
    return label_noise.run_table(judged, judge=name, seed=args.seed)


def read_scores(
    path: pathlib.Path, pairs: Sequence[records.Pair]
) -> dict[tuple[str, str], float]:
    """Return the score of each (prompt, reply) in the pairs."""
    found = {}
    for number, row in enumerate(records.read_jsonl(path), start=1):
        absent = [field for field in SCORE_FIELDS if field not in row]
        if absent:
            raise ValueError(f"{path}: row {number} has no field {absent[0]!r}")
        found[row["id"]] = (float(row["score_1"]), float(row["score_2"]))
    lacking = [pair.id for pair in pairs if pair.id not in found]
    if lacking:
        raise ValueError(
            f"{path} has no scores of {len(lacking)} pairs, such as {lacking[0]!r}; "
            "give one row for each pair"
        )
    return {
        (pair.prompt, reply): score
        for pair in pairs
        for reply, score in zip(
            (pair.reply_1, pair.reply_2), found[pair.id], strict=True
        )
    }


if __name__ == "__main__":
    sys.exit(main())
