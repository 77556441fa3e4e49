"""How far annotators agree: with each other, with themselves, with known answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlcd_jax import records
from rlcd_jax.human import reading
from rlcd_jax.human import study as studies
from rlcd_jax.judging import verdicts
from rlcd_jax.statistics import estimates, win_rates

METRICS = ("nominal", "ordinal", "interval")
MIDDLE = reading.SUM / 2  # 4.5: neither system is better


def krippendorff_alpha(
    ratings: np.ndarray,
    *,
    metric: str,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
) -> estimates.Estimate | estimates.Missing:
    """Estimate Krippendorff's alpha, 1 minus observed over expected disagreement.

    With o_ck the coincidences of values c and k within units, each unit weighted by
    1 / (its ratings - 1), n_c their margins and n their sum:
    `alpha = 1 - (n - 1) sum_ck o_ck d_ck^2 / sum_ck n_c n_k d_ck^2`. The distance d
    is 1 for different values (nominal), the difference of the values (interval), or
    that of their mid-ranks (ordinal).

    Args:
      ratings: [annotators, units] float; NaN where an annotator gave none.
      metric: "nominal", "ordinal" or "interval".
      seed: of the bootstrap.
      level: coverage of the interval.
      resamples: bootstrap samples of whole units, which is not Krippendorff's own
        bootstrap of single disagreements and allows for units that differ.

    Returns:
      Alpha with `num` the units of two ratings or more, or why there is none.

    Raises:
      ValueError: there is no such metric, or the ratings are no table.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; accepted: {', '.join(METRICS)}")
    estimates.check_level(level)
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or np.isinf(ratings).any():
        raise ValueError(
            f"ratings have shape {ratings.shape}; accepted: [annotators, units] of "
            "finite numbers, NaN where there is no rating"
        )
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=0).astype(np.float64)  # [U, V]
    counts = counts[counts.sum(axis=1) >= 2]
    units = counts.shape[0]
    if units < 2:
        return estimates.Missing(f"{units} pairs were rated by two annotators or more")
    own = counts[:, :, None] * np.eye(values.size)  # a rating is no pair with itself
    pairs = counts[:, :, None] * counts[:, None, :] - own
    pairs /= counts.sum(axis=1)[:, None, None] - 1  # [U, V, V]
    value = _alpha(pairs.sum(axis=0)[None], values, metric)[0]
    if np.isnan(value):
        return estimates.Missing("all ratings are the same")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
    drawn = (weights @ pairs.reshape(units, -1)).reshape(-1, *pairs.shape[1:])
    alphas = _alpha(drawn, values, metric)
    shares = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(alphas[~np.isnan(alphas)], shares)
    return estimates.Estimate(float(value), float(low), float(high), level, units)


def _alpha(pairs: np.ndarray, values: np.ndarray, metric: str) -> np.ndarray:
    """Return alpha of coincidences [samples, V, V]; NaN where all values are equal."""
    margins = pairs.sum(axis=2)  # [samples, V]
    total = margins.sum(axis=1)
    if metric == "ordinal":
        places = np.cumsum(margins, axis=1) - margins / 2  # mid-ranks
    else:
        places = np.broadcast_to(values, margins.shape)
    distance = (places[:, :, None] - places[:, None, :]) ** 2
    if metric == "nominal":
        distance = (distance > 0).astype(np.float64)
    observed = np.sum(pairs * distance, axis=(1, 2))
    expected = np.einsum("rc,rk,rck->r", margins, margins, distance)
    safe = np.where(expected > 0, expected, 1.0)
    return np.where(expected > 0, 1 - (total - 1) * observed / safe, np.nan)


def rating_matrix(judgments: Sequence[reading.Judgment]) -> np.ndarray:
    """Return scores of the second system [annotators, prompts], NaN where none."""
    judged = [j for j in judgments if j.kind == "pair"]
    names = {n: i for i, n in enumerate(dict.fromkeys(j.annotator for j in judged))}
    units = {p: i for i, p in enumerate(dict.fromkeys(j.prompt_id for j in judged))}
    ratings = np.full((len(names), len(units)), np.nan)
    for judgment in judged:
        place = names[judgment.annotator], units[judgment.prompt_id]
        ratings[place] = judgment.score_2
    return ratings


def gold_rate(
    judgments: Sequence[reading.Judgment], *, level: float = 0.95
) -> estimates.Estimate | estimates.Missing:
    """Estimate the share of gold checks in which the better reply was chosen."""
    passed = [j.score_2 > MIDDLE for j in judgments if j.kind == "gold"]
    if not passed:
        return estimates.Missing("no gold checks were answered")
    return estimates.proportion_interval(sum(passed), len(passed), level=level)


def self_consistency(
    judgments: Sequence[reading.Judgment], *, level: float = 0.95
) -> tuple[estimates.Estimate | estimates.Missing, float | estimates.Missing]:
    """Estimate how often an annotator chooses the same system again, sides changed.

    Returns:
      The share of repeats with the same choice, and the mean absolute difference of
      the two scores, in points of the scale.
    """
    scores = {j.item: j.score_2 for j in judgments}
    twice = [
        (scores[j.repeat_of], j.score_2)
        for j in judgments
        if j.kind == "repeat" and j.repeat_of in scores
    ]
    if not twice:
        none = estimates.Missing("no pair was answered twice")
        return none, none
    same = sum((one > MIDDLE) == (two > MIDDLE) for one, two in twice)
    rate = estimates.proportion_interval(same, len(twice), level=level)
    return rate, float(np.mean([abs(one - two) for one, two in twice]))


def judge_agreement(
    study: studies.Study,
    scores_2: dict[str, float],
    judged: Sequence[verdicts.Verdict],
    *,
    judge: str,
    level: float = 0.95,
) -> estimates.Estimate | estimates.Missing:
    """Estimate how often people and another judge choose the same system.

    A prompt is left out when the judge had no clear choice, or when the mean score is
    exactly 4.5.

    Args:
      study: names the two systems.
      scores_2: mean score of the second system by prompt and draw, `Ratings`' own.
      judged: verdicts on the same replies, the systems in either order.
      judge: whose verdicts to use.
      level: coverage of the Wilson interval.

    Raises:
      ValueError: the judge has no verdict on these systems.

    Source: RLCD Table 23.
    """
    systems = (study.system_1, study.system_2)
    points: dict[str, float] = {}
    for verdict in judged:
        if verdict.judge != judge:
            continue
        if (verdict.system_1, verdict.system_2) == systems:
            points[records.key_of(verdict)] = verdict.points
        elif (verdict.system_2, verdict.system_1) == systems:
            points[records.key_of(verdict)] = 1 - verdict.points
    if not points:
        known = sorted({v.judge for v in judged})
        raise ValueError(
            f"judge {judge!r} has no verdict on {systems[0]!r} and {systems[1]!r}; "
            f"judges in the file: {', '.join(known) or 'none'}"
        )
    both = [key for key in scores_2 if key in points]
    gaps = np.round([MIDDLE - scores_2[p] for p in both], 9)  # shifts leave rounding
    ours = 0.5 + 0.5 * np.sign(gaps)
    return win_rates.agreement_rate(ours, [points[p] for p in both], level=level)
