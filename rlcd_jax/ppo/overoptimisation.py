"""Whether PPO improves replies, or only the preference model's opinion of them.

`watch_points` joins what `metrics.jsonl` and the saved samples say about each step,
`warnings` names what went wrong, and `choose_checkpoint` is the rule, fixed before any
run, by which a checkpoint is taken:

    Of the checkpoints whose KL from the reference is at most the limit, take the one
    whose replies to the dev prompts have the highest mean score by the run's own
    preference model; of equal ones the earliest.

No held-out judge takes part in the choice, so that what it says of the chosen
checkpoint is not selected for. Source: RLCD (arXiv 2307.12950) appendix E chooses by
each method's own preference model on dev prompts; the KL limit is this project's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # whose packages load when they are first named

from rlcd_jax.statistics import diversity, estimates, tables, wording

METRICS = {
    "score": "rollout/reward_mean",
    "kl": "rollout/kl_sum_mean",
    "length": "rollout/response_length_mean",
    "entropy": "rollout/entropy",
}
ScoreReplies = Callable[[list[tuple[str, str]]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A step of PPO; None where nothing was recorded.

    Attributes:
      step: number of the step.
      score: mean reward by the run's preference model, before terminal rules.
      kl: from the reference, nats a reply.
      length: tokens a reply.
      entropy: nats a token.
      held_out: scores of the step's saved replies by a judge that PPO never sees.
      prompts: what these replies answer.
      distinct_2: distinct bigrams over all, in equal amounts of text at all steps.
    """

    step: int
    score: float | None = None
    kl: float | None = None
    length: float | None = None
    entropy: float | None = None
    held_out: tuple[float, ...] = ()
    prompts: tuple[str, ...] = ()
    distinct_2: float | None = None


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a curve is worth a warning.

    Attributes:
      window: recorded values averaged at the start, and then at each step, so that one
        noisy step is no warning.
      fall: standard errors by which the held-out judge must fall from its best step;
        of the mean difference where both steps answered the same prompts.
      collapse: entropy or distinct bigrams below this part of the start.
      drift: relative change of the length from the start.
    """

    window: int = 3
    fall: float = 2.0
    collapse: float = 0.5
    drift: float = 0.5


@dataclasses.dataclass(frozen=True)
class Warned:
    """What went wrong, and at which step it first showed."""

    kind: str
    step: int
    detail: str


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A checkpoint: mean score on dev prompts by its own preference model, and KL."""

    step: int
    dev_score: float
    kl: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dev_score) and math.isfinite(self.kl)):
            raise ValueError(f"a candidate needs finite numbers, got {self}")


def watch_points(
    rows: Sequence[Mapping[str, Any]],
    samples: Mapping[int, Sequence[Mapping[str, Any]]],
    held_out: ScoreReplies | None,
) -> list[Point]:
    """Return the points of a run, by step.

    Args:
      rows: of stage "policy", from `metrics.read_metrics`.
      samples: by step, saved replies with the fields "prompt" and "reply".
      held_out: scores (prompt, reply) pairs; None leaves the held-out judge out.
    """
    points = {}
    for row in rows:
        known = {
            name: float(row[path]) for name, path in METRICS.items() if path in row
        }
        points[int(row["step"])] = Point(int(row["step"]), **known)
    steps = sorted(samples)
    texts = [[wording.words(row["reply"]) for row in samples[step]] for step in steps]
    for step, cut in zip(steps, wording.equal_amounts(texts), strict=True):
        share = diversity.distinct_n(cut, 2)
        shown = [(row["prompt"], row["reply"]) for row in samples[step]]
        points[step] = dataclasses.replace(
            points.get(step, Point(step)),
            distinct_2=None if isinstance(share, estimates.Missing) else share,
            held_out=tuple(map(float, held_out(shown))) if held_out else (),
            prompts=tuple(prompt for prompt, _ in shown),
        )
    return [points[step] for step in sorted(points)]


def warnings(points: Sequence[Point], limits: Limits) -> list[Warned]:
    """Return what the curves warn of, by the step at which it first showed."""
    warned = [_held_out_falls(points, limits)]
    for name in ("entropy", "distinct_2"):
        warned.append(
            _first_crossing(
                points, name, f"{name}_collapse", limits, high=None, low=limits.collapse
            )
        )
    warned.append(
        _first_crossing(
            points,
            "length",
            "length_drift",
            limits,
            high=1 + limits.drift,
            low=1 - limits.drift,
        )
    )
    return sorted((w for w in warned if w is not None), key=lambda w: w.step)


def choose_checkpoint(
    candidates: Sequence[Candidate], *, kl_limit: float
) -> Candidate | estimates.Missing:
    """Return the checkpoint that the rule of this module takes.

    Args:
      candidates: checkpoints with distinct steps.
      kl_limit: nats a reply, chosen before the run; infinite is the paper's rule.

    Returns:
      The candidate, or why there is none.

    Raises:
      ValueError: a step is there twice, or the limit is no number.
    """
    if len({c.step for c in candidates}) < len(candidates):
        steps = sorted(c.step for c in candidates)
        raise ValueError(f"candidates have the steps {steps}; accepted: each once")
    if math.isnan(kl_limit):
        raise ValueError("kl_limit is nan; accepted: a number of nats, or infinity")
    near = [c for c in candidates if c.kl <= kl_limit]
    if not near:
        least = min((c.kl for c in candidates), default=math.nan)
        return estimates.Missing(
            f"none of {len(candidates)} checkpoints is within KL {kl_limit:g} of the "
            f"reference; the nearest is at {least:.3g} nats"
        )
    return min(near, key=lambda c: (-c.dev_score, c.step))


def watch_table(
    points: Sequence[Point],
    warned: Sequence[Warned],
    *,
    judge: str | None,
    every: int = 1,
    level: float = 0.95,
) -> tables.Table:
    """Return the points as a table, warnings below it.

    Args:
      points: of a run.
      warned: what `warnings` found.
      judge: name of the held-out judge; None when there was none.
      every: keep each step with samples, and every so many of the others.
      level: of the held-out judge's interval, Student's over the replies.
    """
    estimates.check_level(level)
    names = ["preference score", f"held-out ({judge or 'no judge'})", "KL, nats"]
    names += ["tokens", "entropy, nats", "distinct-2"]
    columns = [tables.Column(name, 3) for name in names]
    columns[3] = tables.Column("tokens", 1)
    kept = [p for i, p in enumerate(points) if p.held_out or i % every == 0]
    kept += [p for p in points[-1:] if p not in kept]
    rows = []
    for p in kept:
        cells = [_cell(p.score), _held_out_cell(p, level), _cell(p.kl)]
        cells += [_cell(p.length), _cell(p.entropy), _cell(p.distinct_2)]
        rows.append((str(p.step), tuple(cells)))
    notes = [f"Warning, step {w.step}: {w.kind}: {w.detail}" for w in warned]
    return tables.Table(
        caption="Over-optimisation watch",
        row_header="step",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes or ["No warning."]),
    )


def _held_out_falls(points: Sequence[Point], limits: Limits) -> Warned | None:
    """Warn when the score rose while the held-out judge fell, past its noise."""
    judged = [p for p in points if p.held_out and p.score is not None]
    best: Point | None = None
    for point in judged:
        mean, _ = _mean_error(point.held_out)
        if best is None or mean > _mean_error(best.held_out)[0]:
            best = point
            continue
        top, noise = _mean_error(best.held_out)[0], _noise(best, point)
        if top - mean > limits.fall * noise and point.score > best.score:
            detail = (
                f"the held-out judge fell from {top:.3g} at step {best.step} to "
                f"{mean:.3g} (noise {noise:.2g}) while the preference score rose from "
                f"{best.score:.3g} to {point.score:.3g}"
            )
            return Warned("score_up_judge_down", point.step, detail)
    return None


def _first_crossing(
    points: Sequence[Point],
    name: str,
    kind: str,
    limits: Limits,
    *,
    high: float | None,
    low: float,
) -> Warned | None:
    """Warn when a curve, smoothed, leaves [low, high] times its start."""
    values = [(p.step, getattr(p, name)) for p in points]
    values = [(step, value) for step, value in values if value is not None]
    width = min(limits.window, max(1, len(values) // 2))
    start = float(np.mean([value for _, value in values[:width]])) if values else 0.0
    if start <= 0:
        return None
    for end in range(width, len(values) + 1):
        now = float(np.mean([value for _, value in values[end - width : end]]))
        above = high is not None and now > high * start
        if above or now < low * start:
            detail = f"{name} went from {start:.3g} to {now:.3g}"
            return Warned(kind, values[end - 1][0], detail)
    return None


def _noise(one: Point, two: Point) -> float:
    """Return the standard error of the difference of two steps' held-out scores."""
    if one.prompts and one.prompts == two.prompts:
        return _mean_error(np.subtract(one.held_out, two.held_out))[1]
    return math.hypot(_mean_error(one.held_out)[1], _mean_error(two.held_out)[1])


def _mean_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return mean and standard error; infinite for a single value."""
    scores = np.asarray(values, np.float64)
    if scores.size < 2:
        return float(scores.mean()), math.inf
    return float(scores.mean()), float(scores.std(ddof=1) / math.sqrt(scores.size))


def _cell(value: float | None) -> tables.Cell:
    return estimates.Missing("not recorded") if value is None else value


def _held_out_cell(point: Point, level: float) -> tables.Cell:
    if not point.held_out:
        return estimates.Missing("not judged")
    if len(point.held_out) < 2:
        return estimates.Missing("one reply is too few")
    mean, error = _mean_error(point.held_out)
    half = error * float(scipy.stats.t.ppf((1 + level) / 2, len(point.held_out) - 1))
    return estimates.Estimate(
        mean, mean - half, mean + half, level, len(point.held_out)
    )
