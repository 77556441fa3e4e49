"""The section on over-optimisation: curves, warnings in words, an outside judge.

Shown where PPO ran. The task's word list of sentiment is the held-out judge where the
task names it, for it needs no model; without it the other curves are watched alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlcd_jax import tasks
from rlcd_jax.diagnosis import pair_readings
from rlcd_jax.judging import judges
from rlcd_jax.ppo import overoptimisation
from rlcd_jax.report import panels, plots, reading, tabulate
from rlcd_jax.statistics import estimates, tables

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
LIMITS = overoptimisation.Limits()
STEPS = 40  # rows of the table, beside those with saved replies


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of one run: its points, warnings, and the table of both."""

    points: list[overoptimisation.Point]
    warned: list[overoptimisation.Warned]
    table: tables.Table
    task: tasks.Task | estimates.Missing


def watch(
    run: reading.Run, drawn: list[dict[str, Any]] | estimates.Missing
) -> dict[str, Any] | None:
    """Return the section of a run, or None where no PPO left anything.

    Args:
      run: with its metrics and the samples of its policy.
      drawn: what `curves.stage_curves` made with `apart=CURVES`.

    Returns:
      A dict with warnings of (step, what, detail), panels, table and notes.
    """
    seen = _look(run)
    if seen is None:
        return None
    (shown,) = tabulate.tables({"": [tables.as_json(_without_notes(seen.table))]})
    parts = [] if isinstance(drawn, estimates.Missing) else drawn
    apart = [
        svg for part in parts if part["stage"] == "policy" for svg in part["apart"]
    ]
    return {
        "warnings": [(w.step, KINDS[w.kind], w.detail) for w in seen.warned],
        "panels": apart + _panels({"": seen}),
        "table": shown | {"plots": []},
        "notes": _notes(seen),
    }


def compared(runs: Mapping[str, reading.Run]) -> dict[str, Any] | None:
    """Return the section of several runs, by label, or None where no PPO left anything.

    Reward, KL, length and entropy are among the other curves of a comparison.

    Returns:
      A dict with warnings of (label, step, what, detail), panels, and notes of (label,
      note), the label being "" where a note is about all.
    """
    looked = {label: _look(run) for label, run in runs.items()}
    seen = {label: one for label, one in looked.items() if one is not None}
    if not seen:
        return None
    notes: dict[str, list[str]] = {}
    for label, one in seen.items():
        for note in _notes(one):
            notes.setdefault(note, []).append(label)
    return {
        "warnings": [
            (label, w.step, KINDS[w.kind], w.detail)
            for label, one in seen.items()
            for w in one.warned
        ],
        "panels": _panels(seen),
        "notes": [
            ("" if len(labels) == len(runs) else " ".join(labels), note)
            for note, labels in notes.items()
        ],
    }


def _look(run: reading.Run) -> Seen | None:
    """Return what there is to see of a run; None where PPO left nothing."""
    rows = [] if reading.is_missing(run.metrics) else run.metrics
    rows = [row for row in rows if row["stage"] == "policy"]
    samples = {} if reading.is_missing(run.policy_samples) else run.policy_samples
    if not (rows or samples):
        return None
    task = _outside_task(run)
    outside = None if reading.is_missing(task) else pair_readings.lexicon
    points = overoptimisation.watch_points(rows, samples, outside)
    warned = overoptimisation.warnings(points, LIMITS)
    table = overoptimisation.watch_table(
        points,
        warned,
        judge=judges.LEXICON if outside else None,
        every=max(1, len(points) // STEPS),
    )
    return Seen(points, warned, table, task)


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
    if task.lexicon is None:
        return estimates.Missing(f"the task {task.name} has no judge without a model")
    return task


def _without_notes(table: tables.Table) -> tables.Table:
    """Leave out the warnings below a table, which stand above the curves."""
    return dataclasses.replace(table, notes=())


def _panels(seen: Mapping[str, Seen]) -> list[plots.Svg]:
    """Return the curves that come from saved replies: judge and repetition."""
    held_out, distinct = [], []
    for label, one in seen.items():
        judged = [
            (int(step), cells[1])
            for step, cells in one.table.rows
            if isinstance(cells[1], estimates.Estimate)
        ]
        if judged:
            steps, estimated = zip(*judged, strict=True)
            low, high = (
                [getattr(e, end) for e in estimated] for end in ("low", "high")
            )
            values = [estimate.value for estimate in estimated]
            line = panels.Line(label, steps, values, label, low=low, high=high)
            held_out.append(line)
        known = [(p.step, p.distinct_2) for p in one.points if p.distinct_2 is not None]
        if known:
            distinct.append(panels.Line(label, *zip(*known, strict=True), label))
    title, unit = f"Held-out judge: {judges.LEXICON}", "mean score of saved replies"
    drawn = [
        plots.curve(title, held_out, unit=unit),
        plots.curve("Distinct-2", distinct, unit="of saved replies"),
    ]
    return [svg for svg in drawn if svg]


def _notes(seen: Seen) -> list[str]:
    """Return what was watched, what could not be, and when a curve is a warning."""
    if isinstance(seen.task, estimates.Missing):
        notes = [f"Held-out judge: missing: {seen.task.reason}."]
    else:
        notes = [
            f"Held-out judge: {judges.LEXICON}, which PPO never sees, on the replies "
            "saved at some steps; band: interval of the mean over these replies."
        ]
    absent = [
        name
        for field, name in NAMES.items()
        if all(getattr(point, field) is None for point in seen.points)
    ]
    if absent:
        notes.append(f"Not recorded, so not watched: {', '.join(absent)}.")
    notes.append(
        "A warning: the held-out judge falls by more than "
        f"{LIMITS.fall:g} standard errors from its best step while the reward rises; "
        f"entropy or distinct-2 below {LIMITS.collapse:.0%} of the start; a length "
        f"{LIMITS.drift:.0%} away from it (means over {LIMITS.window} recorded values)."
    )
    return notes
