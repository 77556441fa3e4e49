"""What a run's pairs are like, and what the contrast of each affix pair does.

    python -m experiments.diagnose --workdir RUN [--likelihoods] [--scored RUN2]

Reads RUN/pairs and writes RUN/diagnostics: pairs.md and pairs.json (by side and by
cell of the grid), affixes.md and affixes.json (by affix pair, with the linter's
findings), readings.jsonl (one line a pair) and, for a run with a policy, watch.md and
watch.json (over-optimisation). ``--likelihoods`` loads the model that wrote the pairs
and asks how likely each reply is under both prompts; without it those columns say that
they are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import (
    affixes,
    diagnostic_tables,
    diagnostics,
    judges,
    label_noise,
    metrics,
    overoptimisation,
    records,
    tables,
    tasks,
)
from rlcd_jax.stages import inputs, likelihoods, workspace


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        written = diagnose(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of a run")
    parser.add_argument(
        "--scored",
        type=pathlib.Path,
        help="workdir of a run whose scored labels are of the same replies, as those "
        "of Rescore with the same seed are",
    )
    parser.add_argument(
        "--likelihoods", action="store_true", help="ask the model; takes a while"
    )
    parser.add_argument(
        "--lexicon",
        action="store_true",
        help="score with the word list of sentiment though the task does not name it",
    )
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser


def diagnose(args: argparse.Namespace) -> list[pathlib.Path]:
    """Write the diagnostics of a run; return the files."""
    config, task = read_config(args.workdir)
    folder = args.workdir / "diagnostics"
    pairs, dropped = read_pairs(args.workdir)
    lexicon = args.lexicon or task.lexicon is not None
    readings = diagnostics.measure(
        pairs,
        task,
        scored=read_pairs(args.scored)[0] if args.scored else (),
        logprob=make_logprob(config) if args.likelihoods else None,
        outside={judges.LEXICON: diagnostics.lexicon} if lexicon else None,
    )
    how = diagnostic_tables.Intervals(args.seed, args.resamples, 0.95)
    by_affix = diagnostic_tables.dropped_by_affix(pairs, dropped, task)
    about_pairs = [
        diagnostic_tables.pairs_table(readings, how),
        diagnostic_tables.sides_table(readings, how),
        diagnostic_tables.drops_table(readings, dropped, how),
    ]
    if lexicon:
        judged = label_noise.judged(diagnostics.one_each(readings), judges.LEXICON)
        about_pairs.append(
            label_noise.run_table(judged, judge=judges.LEXICON, seed=args.seed)
        )
    about_affixes = [
        diagnostic_tables.affixes_table(readings, by_affix, task, how),
        *lint_tables(task),
    ]
    written = write(folder, "pairs", about_pairs)
    written += write(folder, "affixes", about_affixes)
    path = folder / "readings.jsonl"
    records.write_jsonl(path, map(dataclasses.asdict, readings))
    written.append(path)
    rows = metrics.read_metrics(args.workdir, "policy")
    if rows:
        score = diagnostics.lexicon if lexicon else None
        written += write(folder, "watch", [watch(args.workdir, rows, score)])
    return written


def read_config(workdir: pathlib.Path) -> tuple[ConfigDict, tasks.Task]:
    """Return a run's config and its task."""
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is not there; give the --workdir of a run")
    config = ConfigDict(json.loads(path.read_text("utf-8")))
    return config, inputs.load_task(config)


def read_pairs(
    workdir: pathlib.Path,
) -> tuple[list[records.Pair], list[records.Dropped]]:
    """Return the pairs of a run, and the sides that gave none."""
    folder = workspace.stage_folder(workdir, "simulate")
    if not (folder / "pairs.jsonl").is_file():
        raise ValueError(f"{folder} has no pairs.jsonl; run the stage simulate first")
    pairs = records.read_jsonl(folder / "pairs.jsonl", records.Pair)
    return pairs, records.read_jsonl(folder / "dropped.jsonl", records.Dropped)


def make_logprob(config: ConfigDict) -> diagnostics.LogProb:
    """Return the log-probabilities of the model that wrote the pairs."""
    found = inputs.load_inputs(config)
    return likelihoods.reply_scorer(found, found.load_base())


def lint_tables(task: tasks.Task) -> list[tables.Table]:
    """Return the linter's findings on what makes the task's prompts differ."""
    chat = task.format == "chat"
    texts = task.systems if chat else task.affixes
    what = "system messages" if chat else "affixes"
    caption = f"Linter, {what} of {task.name}"
    return [affixes.findings_table(texts, affixes.lint(texts), caption)]


def watch(
    workdir: pathlib.Path, rows: list[dict[str, Any]], score: Any
) -> tables.Table:
    """Return the over-optimisation watch of a run's policy stage."""
    folder = workspace.stage_folder(workdir, "policy") / "samples"
    samples = {
        int(path.stem): records.read_jsonl(path)
        for path in folder.glob("*.jsonl")
        if path.stem.isdigit()
    }
    points = overoptimisation.watch_points(rows, samples, score)
    warned = overoptimisation.warnings(points, overoptimisation.Limits())
    judge = judges.LEXICON if score else None
    every = max(1, len(points) // 40)
    return overoptimisation.watch_table(points, warned, judge=judge, every=every)


def write(
    folder: pathlib.Path, stem: str, shown: Sequence[tables.Table]
) -> list[pathlib.Path]:
    """Write tables into one markdown and one JSON file."""
    text, values = folder / f"{stem}.md", folder / f"{stem}.json"
    records.write_text(text, "\n\n".join(map(tables.markdown, shown)))
    records.write_json(values, {"tables": [tables.as_json(table) for table in shown]})
    return [text, values]


if __name__ == "__main__":
    sys.exit(main())
