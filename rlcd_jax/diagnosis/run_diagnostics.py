"""The diagnostics of one run: read from its folder, written as tables beside it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import diagnosis, jsonl, metrics, record_files, records, schema, tasks
from rlcd_jax.checks import refusals
from rlcd_jax.diagnosis import affixes, label_noise, pair_readings, reading_tables
from rlcd_jax.job import roles, setup, workspace
from rlcd_jax.judging import judges
from rlcd_jax.pairs import training_texts
from rlcd_jax.ppo import overoptimisation
from rlcd_jax.scoring import likelihoods
from rlcd_jax.statistics import tables

LEVEL = 0.95


def diagnose(
    workdir: pathlib.Path,
    *,
    scored: pathlib.Path | None,
    with_likelihoods: bool,
    with_lexicon: bool,
    resamples: int,
    seed: int,
) -> list[pathlib.Path]:
    """Write the diagnostics of a run; return the files.

    Args:
      workdir: folder of the run.
      scored: workdir of a run whose scored labels are of the same replies; None: none.
      with_likelihoods: ask the model that wrote the pairs.
      with_lexicon: score by the word list of sentiment even if the task has other
        judges.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    config, task = read_config(workdir)
    folder = workdir / diagnosis.FOLDER
    pairs, dropped = read_pairs(workdir)
    lexicon = with_lexicon or task.lexicon is not None
    logprob, turn = make_logprob(config) if with_likelihoods else (None, None)
    readings = pair_readings.measure(
        pairs,
        task,
        scored=read_pairs(scored)[0] if scored else (),
        logprob=logprob,
        turn=turn,
        outside={judges.LEXICON: pair_readings.lexicon} if lexicon else None,
    )
    how = reading_tables.Intervals(seed, resamples, LEVEL)
    by_affix = reading_tables.dropped_by_affix(pairs, dropped, task)
    about_pairs = [
        reading_tables.pairs_table(readings, how),
        reading_tables.sides_table(readings, how),
        reading_tables.drops_table(readings, dropped, how),
    ]
    if lexicon:
        judged = label_noise.judged(pair_readings.one_each(readings), judges.LEXICON)
        about_pairs.append(
            label_noise.run_table(judged, judge=judges.LEXICON, seed=seed)
        )
    about_affixes = [
        reading_tables.affixes_table(readings, by_affix, task, how),
        *lint_tables(task),
    ]
    written = write(folder, "pairs", about_pairs)
    written += write(folder, diagnosis.AFFIXES, about_affixes)
    path = folder / "readings.jsonl"
    record_files.write_jsonl(path, map(dataclasses.asdict, readings))
    written.append(path)
    rows = metrics.read_metrics(workdir, "policy")
    if rows:
        score = pair_readings.lexicon if lexicon else None
        written += write(folder, "watch", [watch(workdir, rows, score)])
    return written


def read_config(workdir: pathlib.Path) -> tuple[ConfigDict, tasks.Task]:
    """Return a run's config and its task.

    Raises:
      ValueError: the folder is of no run, or its config is not as a run wrote it.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is not there; give the --workdir of a run")
    record = jsonl.read_object(path)
    try:
        config = ConfigDict(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole config of a run: {error}") from error
    if told := refusals.problems(config):
        lines = "\n  ".join(told)
        raise ValueError(f"{path} is no whole config of a run:\n  {lines}")
    return config, setup.load_task(config)


def read_pairs(
    workdir: pathlib.Path,
) -> tuple[list[records.Pair], list[records.Dropped]]:
    """Return the pairs of a run, and the sides that gave none.

    Raises:
      ValueError: the folder has no pairs.
    """
    folder = workspace.stage_folder(workdir, "simulate")
    if not (folder / "pairs.jsonl").is_file():
        raise ValueError(f"{folder} has no pairs.jsonl; run the stage simulate first")
    pairs = record_files.read_jsonl(folder / "pairs.jsonl", records.Pair)
    return pairs, record_files.read_jsonl(folder / "dropped.jsonl", records.Dropped)


def make_logprob(
    config: ConfigDict,
) -> tuple[pair_readings.LogProb, training_texts.ChatTurn | None]:
    """Return the log-probabilities of the model that wrote the pairs.

    And what its chat template writes around a reply, in the chat format.
    """
    job = setup.load_job(config, role=roles.GENERATOR)
    return likelihoods.reply_scorer(job, job.load_base()), job.chat_turn


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
        int(path.stem): _read_samples(path)
        for path in folder.glob("*.jsonl")
        if path.stem.isdigit()
    }
    points = overoptimisation.watch_points(rows, samples, score)
    warned = overoptimisation.warnings(points, overoptimisation.Limits())
    judge = judges.LEXICON if score else None
    every = max(1, len(points) // 40)
    return overoptimisation.watch_table(points, warned, judge=judge, every=every)


def _read_samples(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return saved replies to dev prompts.

    Raises:
      ValueError: it names the file, the line and the field that is wrong.
    """
    rows = []
    for number, row in jsonl.read(path):
        for name in ("prompt", "reply"):
            if not isinstance(row.get(name), str):
                raise ValueError(
                    f"{path}:{number}: field {name!r} is "
                    f"{schema.shown(row.get(name))}; accepted: text"
                )
        rows.append(row)
    return rows


def write(
    folder: pathlib.Path, stem: str, shown: Sequence[tables.Table]
) -> list[pathlib.Path]:
    """Write tables into one markdown and one JSON file."""
    text, values = folder / f"{stem}.md", folder / f"{stem}.json"
    record_files.write_text(text, "\n\n".join(map(tables.markdown, shown)))
    record_files.write_json(
        values, {"tables": [tables.as_json(table) for table in shown]}
    )
    return [text, values]
