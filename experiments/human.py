"""Compare two systems by people: make the sheets, read the answers.

    python -m experiments.human make --samples RUN/evaluate/samples.jsonl \
        --systems rlcd base --per_annotator 200 --annotators 3 --out DIR
    python -m experiments.human read --folder DIR

`make` writes a page and a CSV sheet for each annotator into DIR/annotators; give one of
the two to each, and nothing else of DIR. Put the files that come back into DIR/answers.
`read` checks them, un-blinds them with DIR/key, and writes tables into DIR/results.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from rlcd_jax import records, tables, tasks, verdicts
from rlcd_jax.human import checks, ratings, reading, results, sheets, study

SAMPLE_FIELDS = ("prompt_id", "system", "prompt", "reply")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        lines = make(args) if args.command == "make" else read(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.human",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("make", help="write blind sheets for annotators")
    one.add_argument("--samples", required=True, type=pathlib.Path)
    one.add_argument("--systems", required=True, nargs=2, metavar=("FIRST", "SECOND"))
    one.add_argument("--out", required=True, type=pathlib.Path, help="new folder")
    one.add_argument("--annotators", type=int, default=3, help="how many")
    one.add_argument("--per_annotator", type=int, default=200, help="different pairs")
    one.add_argument("--shared", type=int, help="pairs that all judge; default: all")
    one.add_argument("--repeats", type=int, help="pairs shown twice; default: 1 in 20")
    one.add_argument("--gold", type=int, help="checks of attention; default: 1 in 25")
    one.add_argument(
        "--gold_kind",
        choices=sorted(checks.KINDS),
        default="attention",
        help="garbled: a reply against mixed-up letters; not for harmlessness",
    )
    one.add_argument("--gold_file", help="JSON lines with prompt, better and worse")
    one.add_argument("--task", help="name or file; default: of the run's config.json")
    one.add_argument("--question", help="name; default: the task's first question")
    one.add_argument("--seed", type=int, default=0)
    two = commands.add_parser("read", help="check answers and write tables")
    two.add_argument("--folder", required=True, nargs="+", type=pathlib.Path)
    two.add_argument("--partial", action="store_true", help="accept missing answers")
    two.add_argument(
        "--shift",
        choices=ratings.SHIFTS,
        default="none",
        help="remove each annotator's lean to a side, or offset of the mean",
    )
    two.add_argument(
        "--min_gold", type=float, default=0.0, help="else left out; 0 to 1"
    )
    two.add_argument("--verdicts", help="of other judges, to compare: verdicts.jsonl")
    two.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def make(args: argparse.Namespace) -> list[str]:
    """Write the sheets of a study; return what to tell the user."""
    samples = read_samples(args.samples)
    task = tasks.load_task(args.task or _task_of_run(args.samples))
    question = _question(task, args.question)
    systems = tuple(args.systems)
    repeats = args.per_annotator // 20 if args.repeats is None else args.repeats
    if args.gold_file:
        gold = records.read_jsonl(args.gold_file, checks.Gold)
    else:
        num = args.per_annotator // 25 if args.gold is None else args.gold
        pairs, _ = study.comparisons(samples, systems)
        gold = checks.KINDS[args.gold_kind](pairs, num, args.seed)
    made, written = study.make_study(
        samples,
        systems,
        task=task.name,
        question=question,
        num_annotators=args.annotators,
        per_annotator=args.per_annotator,
        shared=args.per_annotator if args.shared is None else args.shared,
        repeats=repeats,
        gold=gold,
        seed=args.seed,
    )
    sheets.write_study(args.out, made, written)
    return [
        f"question {question[0]}: {sheets.shown_question(question[1])}",
        f"{len(written)} sheets of {len(written[0].items)} items in "
        f"{args.out / sheets.PAGES}: give each annotator one page or one CSV file",
        f"keep {args.out / sheets.KEY} to yourself; put the answers into "
        f"{args.out / sheets.ANSWERS}",
        f"then: python -m experiments.human read --folder {args.out}",
    ]


def read(args: argparse.Namespace) -> list[str]:
    """Write the tables of one or more studies; return them as text."""
    given = None
    if args.verdicts:
        given = records.read_jsonl(args.verdicts, verdicts.Verdict)
    found, shown = [], []
    for folder in args.folder:
        made, judgments = reading.read_study(folder, partial=args.partial)
        rated = ratings.rate(
            made, judgments, shift=args.shift, min_gold=args.min_gold, seed=args.seed
        )
        written = {
            "table": results.rating_table(rated, judgments, seed=args.seed),
            "annotators": results.annotator_table(judgments),
        }
        if given is not None:
            written["judges"] = results.judge_table(rated, given)
        place = results.write_results(folder, written, judgments)
        shown += [tables.markdown(table) for table in written.values()]
        shown.append(f"wrote {place}\n")
        found.append(rated)
    if len(found) > 1:
        shown.append(tables.markdown(results.paper_table(found)))
    return shown


def read_samples(path: pathlib.Path) -> list[verdicts.Sample]:
    """Return the replies of a run's ``evaluate/samples.jsonl``."""
    if not path.is_file():
        raise ValueError(f"{path} is not there; name a run's evaluate/samples.jsonl")
    samples = []
    for number, row in enumerate(records.read_jsonl(path), start=1):
        absent = [field for field in SAMPLE_FIELDS if field not in row]
        if absent:
            raise ValueError(f"{path}: row {number} has no field {absent[0]!r}")
        try:
            whole = records.with_draw(verdicts.Sample, row)
            fields = {name: whole[name] for name in (*SAMPLE_FIELDS, "draw")}
            samples.append(verdicts.Sample(**fields))
        except ValueError as error:
            raise ValueError(f"{path}: row {number}: {error}") from error
    return samples


def _task_of_run(samples: pathlib.Path) -> str:
    """Return the task of the run whose ``evaluate`` folder holds the samples."""
    path = samples.parent.parent / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is not there; name the task with --task")
    return json.loads(path.read_text("utf-8"))["task"]


def _question(task: tasks.Task, name: str | None) -> tuple[str, str]:
    """Return the name and the text of a question of the task."""
    name = name or next(iter(task.judge_questions))
    if name not in task.judge_questions:
        raise ValueError(
            f"question is {name!r}; accepted: " + ", ".join(task.judge_questions)
        )
    return name, task.judge_questions[name]


if __name__ == "__main__":
    sys.exit(main())
