"""Which metrics make which curves: the ones to look at first, then all others."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from rlcd_jax import stages
from rlcd_jax.report import panels, plots, reading, sections
from rlcd_jax.statistics.estimates import Missing

HELD_OUT = "held_out|heldout|eval|dev|validation|test"
RESERVED = ("stage", "step", "wall_time")
MAX_OTHERS = 60  # curves of a stage beside those to look at first
FEW_POINTS = 100  # of each of them, so that the page stays small


class Point(NamedTuple):
    """A metric at a step: of one run, or the mean of several with their range."""

    step: int
    value: float
    low: float | None = None
    high: float | None = None


Series = dict[str, list[Point]]  # by metric


@dataclasses.dataclass(frozen=True)
class CurvePanel:
    """A curve to look at: its title, the end of its metrics' names, and its unit."""

    title: str
    leaf: str  # a regular expression
    unit: str = ""


PANELS = {
    "preference": (
        CurvePanel("Loss", "loss", "nats a pair"),
        CurvePanel("Accuracy", "accuracy", "share of decided pairs"),
        CurvePanel("Margin", "margin(_mean)?", "reward, better less other"),
    ),
    "distill": (CurvePanel("Loss", "loss", "nats a token"),),
    "direct": (
        CurvePanel("Loss", "loss", "a pair"),
        CurvePanel("Accuracy", "accuracy", "share of decided pairs"),
        CurvePanel("Margin", "margin(_mean)?", "reward, better less other"),
    ),
    "policy": (
        CurvePanel("Reward", "reward_mean", "by the preference model"),
        CurvePanel(
            "Rewards of each model", r"reward/[\w.-]+", "in deviations at start"
        ),
        CurvePanel("KL to the reference", "kl_sum(_mean)?", "nats a reply"),
        CurvePanel("Entropy", "entropy(_mean|_per_token)?", "nats a token"),
        CurvePanel("Length", "(response|reply)_length(_mean)?", "tokens a reply"),
        CurvePanel("Clip fraction", "clip_fraction", "share of tokens"),
        CurvePanel("Unfinished replies", "unfinished_rate", "share of replies"),
        CurvePanel("Distinct n-grams", "distinct_?[0-9n]", "share of n-grams"),
        CurvePanel("Value: explained variance", "explained_variance"),
    ),
}
# Not named when they are not there; RLOO and GRPO have no values, most runs
# one reward.
OPTIONAL = (
    "Margin",
    "Rewards of each model",
    "Distinct n-grams",
    "Value: explained variance",
)


def stage_curves(
    runs: Mapping[str, list[dict[str, Any]] | Missing],
    *,
    apart: Collection[str] = (),
) -> list[dict[str, Any]] | Missing:
    """Return for each stage its first curves, its other curves and single figures.

    Args:
      runs: rows of `metrics.jsonl` by the run's label, "" for a single run; runs with
        one letter, A1 and A2, make one curve with a band.
      apart: titles of first curves that another section shows.

    Returns:
      Dicts with stage, panels, the panels `apart`, others, figures (name, run, value)
      and `not_there`, the titles of first curves for which nothing was recorded.
    """
    there = {k: rows for k, rows in runs.items() if not reading.is_missing(rows)}
    if not there:
        return next(iter(runs.values()))
    stages = dict.fromkeys(row["stage"] for rows in there.values() for row in rows)
    ordered = sorted(stages, key=_order)
    return [_stage(stage, there, apart) for stage in ordered]


def _order(stage: str) -> int:
    names = list(stages.STAGES)
    return names.index(stage) if stage in names else len(names)


def _stage(
    stage: str, runs: Mapping[str, list[dict[str, Any]]], apart: Collection[str]
) -> dict[str, Any]:
    series = _by_group(
        {
            label: _series([row for row in rows if row["stage"] == stage])
            for label, rows in runs.items()
        }
    )
    names = list(dict.fromkeys(name for points in series.values() for name in points))
    first, elsewhere, not_there, used = [], [], [], set()
    for panel in PANELS.get(stage, ()):
        pattern = re.compile(rf"(?:^|/)(?:(?:{HELD_OUT})[_/])*(?:{panel.leaf})$")
        matched = [name for name in names if pattern.search(name)]
        used.update(matched)
        if matched:
            lines = _lines(matched, series)
            place = elsewhere if panel.title in apart else first
            place.append(plots.curve(panel.title, lines, unit=panel.unit))
        elif panel.title not in (*OPTIONAL, *apart):
            not_there.append(panel.title.lower())
    rest = [name for name in names if name not in used]
    long = [
        n for n in rest if any(len(points.get(n, ())) > 1 for points in series.values())
    ]
    others = [
        plots.curve(n, _lines([n], series), points=FEW_POINTS)
        for n in long[:MAX_OTHERS]
    ]
    figures = [
        (name, label, sections.show(points[name][0].value))
        for name in rest
        if name not in long
        for label, points in series.items()
        if name in points
    ]
    return {
        "stage": stage,
        "panels": [svg for svg in first if svg],
        "apart": [svg for svg in elsewhere if svg],
        "not_there": not_there,
        "others": [svg for svg in others if svg],
        "left_out": max(0, len(long) - MAX_OTHERS),
        "figures": figures,
        "with_run": any(runs),
    }


def _series(rows: list[dict[str, Any]]) -> Series:
    """Return the points of each metric, in the order of the rows."""
    points: Series = {}
    for row in rows:
        for name, value in row.items():
            if name not in RESERVED and isinstance(value, int | float):
                points.setdefault(name, []).append(Point(row["step"], value))
    return points


def _by_group(series: Mapping[str, Series]) -> dict[str, Series]:
    """Return one series for runs A1, A2, A3: their mean, from lowest to highest.

    Over the steps that all of them have; a run with a letter to itself stays as it is.
    """
    groups: dict[str, list[Series]] = {}
    for label, points in series.items():
        groups.setdefault(label[:1], []).append(points)
    return {
        letter: own[0] if len(own) == 1 else _together(own)
        for letter, own in groups.items()
    }


def _together(several: Sequence[Series]) -> Series:
    merged: Series = {}
    for name in several[0]:
        by_step = [{p.step: p.value for p in one.get(name, ())} for one in several]
        steps = [step for step in by_step[0] if all(step in one for one in by_step)]
        values = [[one[step] for one in by_step] for step in steps]
        if steps:
            merged[name] = [
                Point(step, statistics.fmean(own), min(own), max(own))
                for step, own in zip(steps, values, strict=True)
            ]
    return merged


def _lines(names: list[str], series: Mapping[str, Series]) -> list[panels.Line]:
    """Return the lines of one panel: each metric of each run that has it."""
    held_out = {
        name: bool(re.search(rf"(?:^|[/_])(?:{HELD_OUT})[/_]", name)) for name in names
    }
    plain = [name for name in names if not held_out[name]]
    lines = []
    for label, points in series.items():
        for name in names:
            if name not in points:
                continue
            if len(names) == 1:
                kind = "held out" if held_out[name] else ""
            elif len(plain) <= 1 and len(names) <= 2:
                kind = "held out" if held_out[name] else "training"
            else:
                kind = name
            text = " · ".join(part for part in (label, kind) if part)
            steps, values, low, high = zip(*points[name], strict=True)
            band = {} if low[0] is None else {"low": low, "high": high}
            lines.append(
                panels.Line(text, steps, values, label, held_out[name], **band)
            )
    return lines
