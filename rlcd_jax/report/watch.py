"""The section on over-optimisation: curves, warnings in words, an outside judge.

Shown where PPO ran. The task's word list of sentiment is the held-out judge where the
task names it, for it needs no model; without it the other curves are watched alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rlcd_jax import diagnostics, estimates, judges, overoptimisation, tables, tasks
from rlcd_jax.report import plots, reading, tabulate

# Panels of `curves.PANELS` that stand in this section, and therefore nowhere else.
CURVES = ("Reward", "KL to the reference", "Length", "Entropy")
KINDS = {
    "score_up_judge_down": "Reward up, held-out judge down",
    "entropy_collapse": "Entropy collapses",
    "distinct_2_collapse": "Replies repeat themselves",
    "length_drift": "Length drifts",
}
NAMES = {
    "score": "reward",
    "kl": "KL",
    "length": "length",
    "entropy": "entropy",
    "distinct_2": "distinct-2",
}
STEPS = 40  # rows of the table, beside those with saved replies


def watch(
    run: reading.Run, drawn: list[dict[str, Any]] | estimates.Missing
) -> dict[str, Any] | None:
    """Return the section of a run, or None where no PPO left anything.

    Args:
      run: with its metrics and the samples of its policy.
      drawn: what ``curves.stage_curves`` made with ``apart=CURVES``.

    Returns:
      A dict with warnings of (step, what, detail), panels, table and notes.
    """
    rows = [] if reading.is_missing(run.metrics) else run.metrics
    rows = [row for row in rows if row["stage"] == "policy"]
    samples = {} if reading.is_missing(run.policy_samples) else run.policy_samples
    if not (rows or samples):
        return None
    task = _outside_task(run)
    outside = None if reading.is_missing(task) else diagnostics.lexicon
    points = overoptimisation.watch_points(rows, samples, outside)
    limits = overoptimisation.Limits()
    warned = overoptimisation.warnings(points, limits)
    table = overoptimisation.watch_table(
        points,
        warned,
        judge=judges.LEXICON if outside else None,
        every=max(1, len(points) // STEPS),
    )
    (shown,) = tabulate.tables({"": [tables.as_json(_without_notes(table))]})
    parts = [] if isinstance(drawn, estimates.Missing) else drawn
    apart = [
        svg for part in parts if part["stage"] == "policy" for svg in part["apart"]
    ]
    return {
        "warnings": [(w.step, KINDS[w.kind], w.detail) for w in warned],
        "panels": apart + [svg for svg in _panels(points, table) if svg],
        "table": shown | {"plots": []},
        "notes": _notes(points, task, limits),
    }


def _outside_task(run: reading.Run) -> tasks.Task | estimates.Missing:
    """Return the task when it names the word list, else why there is no judge."""
    if reading.is_missing(run.config):
        return run.config
    if reading.is_missing(run.policy_samples):
        return run.policy_samples
    try:
        task = tasks.load_task(str(run.config.get("task")))
    except ValueError as error:  # such as a task file that has moved since
        return estimates.Missing(str(error))
    if judges.LEXICON not in task.judges:
        return estimates.Missing(f"the task {task.name} has no judge without a model")
    return task


def _without_notes(table: tables.Table) -> tables.Table:
    """Leave out the warnings below a table, which stand above the curves."""
    return dataclasses.replace(table, notes=())


def _panels(
    points: Sequence[overoptimisation.Point], table: tables.Table
) -> list[plots.Svg | None]:
    """Return the curves that come from saved replies: judge and repetition."""
    judged = [
        (int(step), cells[1])
        for step, cells in table.rows
        if isinstance(cells[1], estimates.Estimate)
    ]
    held_out = plots.Line(
        "",
        [step for step, _ in judged],
        [cell.value for _, cell in judged],
        low=[cell.low for _, cell in judged],
        high=[cell.high for _, cell in judged],
    )
    known = [(p.step, p.distinct_2) for p in points if p.distinct_2 is not None]
    distinct = plots.Line("", *zip(*known, strict=True)) if known else None
    return [
        plots.curve(
            f"Held-out judge: {judges.LEXICON}",
            [held_out] if judged else [],
            unit="mean score of saved replies",
        ),
        plots.curve(
            "Distinct-2", [distinct] if distinct else [], unit="of saved replies"
        ),
    ]


def _notes(
    points: Sequence[overoptimisation.Point],
    task: tasks.Task | estimates.Missing,
    limits: overoptimisation.Limits,
) -> list[str]:
    """Return what was watched, what could not be, and when a curve is a warning."""
    if isinstance(task, estimates.Missing):
        notes = [f"Held-out judge: missing: {task.reason}."]
    else:
        notes = [
            f"Held-out judge: {judges.LEXICON}, which PPO never sees, on the replies "
            "saved at some steps; band: interval of the mean over these replies."
        ]
    absent = [
        name
        for field, name in NAMES.items()
        if all(getattr(point, field) is None for point in points)
    ]
    if absent:
        notes.append(f"Not recorded, so not watched: {', '.join(absent)}.")
    notes.append(
        "A warning: the held-out judge falls by more than "
        f"{limits.fall:g} standard errors from its best step while the reward rises; "
        f"entropy or distinct-2 below {limits.collapse:.0%} of the start; a length "
        f"{limits.drift:.0%} away from it (means over {limits.window} recorded values)."
    )
    return notes
