"""Win rates from the verdicts of a judge, and how far judges agree.

A verdict on one prompt is worth 1 point when the first system wins, 0 when the second
does and 0.5 for a tie.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy  # whose packages load when they are first named
from scipy import special

from rlcd_jax.statistics import estimates


def win_rate(
    points: Sequence[float] | np.ndarray, *, level: float = 0.95
) -> estimates.Estimate | estimates.Missing:
    """Estimate how often the first system wins; a tie counts half.

    Args:
      points: [num] 1, 0.5 (tie) or 0 for each prompt.
      level: coverage of the Wilson interval.

    Returns:
      The win rate; its p-value is the exact sign test on the prompts without a tie.
    """
    points = _points(points)
    if not points.size:
        return estimates.Missing("no verdicts")
    wins, losses = int(np.sum(points == 1)), int(np.sum(points == 0))
    estimate = estimates.proportion_interval(
        float(points.sum()), points.size, level=level
    )
    clear = wins + losses
    p_value = float(scipy.stats.binomtest(wins, clear).pvalue) if clear else 1.0
    return dataclasses.replace(estimate, p_value=p_value)


def length_controlled_win_rate(
    points: Sequence[float] | np.ndarray,
    lengths_1: Sequence[float] | np.ndarray,
    lengths_2: Sequence[float] | np.ndarray,
    *,
    prompts: Sequence[str] | None = None,
    level: float = 0.95,
) -> estimates.Estimate | estimates.Missing:
    """Estimate the win rate that is left when both replies are equally long.

    A logistic regression `P(first wins) = sigmoid(a + b (length_1 - length_2) / sd)`
    is fitted, ties as half a win, and `sigmoid(a)` is returned. Its interval is that
    of `a` by the sandwich estimator with prompts as clusters, so several verdicts on
    a prompt count for what they are worth; quantiles are Student's. It controls for
    length in this one way only: an effect that is not logistic in the difference stays.

    Args:
      points: [num] 1, 0.5 (tie) or 0 for each verdict.
      lengths_1: [num] length of the first system's reply.
      lengths_2: [num] length of the second system's reply, in the same unit.
      prompts: [num] the prompt of each verdict; None: each has its own.
      level: coverage of the interval.

    Returns:
      The estimate over so many prompts, or why there is none (too few, wins that the
      length separates).

    Raises:
      ValueError: verdicts, lengths and prompts differ in number.

    Source: Liang & Zeger 1986 (the interval).
    """
    points = _points(points)
    one = estimates.vector(lengths_1, "lengths_1")
    gap = one - estimates.vector(lengths_2, "lengths_2")
    estimates.check_level(level)
    if gap.size != points.size:
        raise ValueError(f"{points.size} verdicts but {gap.size} pairs of lengths")
    names = [str(n) for n in range(points.size)] if prompts is None else list(prompts)
    if len(names) != points.size:
        raise ValueError(f"{points.size} verdicts but {len(names)} prompts")
    count = len(set(names))
    if count < 10:
        return estimates.Missing(f"{count} prompts are too few for a length control")
    if np.all(gap == 0) and count == points.size:
        return win_rate(points, level=level)
    if np.all(gap == gap[0]) and gap[0]:
        return estimates.Missing("the length difference is the same on every prompt")
    if _separable(points, gap):
        return estimates.Missing(
            "all verdicts are alike, or the length difference decides every verdict"
        )
    columns = [np.ones_like(gap)] + ([gap / gap.std()] if gap.any() else [])
    design = np.stack(columns, axis=1)  # [num, 1 or 2]
    fit, covariance = _logistic(design, points, names)
    freedom = count - design.shape[1]
    half = special.stdtrit(freedom, (1 + level) / 2) * math.sqrt(covariance[0, 0])
    low, value, high = special.expit([fit[0] - half, fit[0], fit[0] + half])
    return estimates.Estimate(float(value), float(low), float(high), level, count)


def agreement_rate(
    points_1: Sequence[float] | np.ndarray,
    points_2: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
) -> estimates.Estimate | estimates.Missing:
    """Estimate how often two judges choose the same winner; ties are left out.

    Args:
      points_1: [num] 1, 0.5 or 0 by the first judge for each pair of replies.
      points_2: [num] the same by the second judge.
      level: coverage of the Wilson interval.

    Raises:
      ValueError: the judges saw different numbers of pairs.
    """
    one, two = _points(points_1), _points(points_2)
    if one.size != two.size:
        raise ValueError(f"judges saw {one.size} and {two.size} pairs")
    clear = (one != 0.5) & (two != 0.5)
    if not clear.any():
        return estimates.Missing("no pair on which both judges chose")
    same = int(np.sum(one[clear] == two[clear]))
    return estimates.proportion_interval(same, int(clear.sum()), level=level)


def human_agreement(
    chosen: Sequence[float] | np.ndarray,
    rejected: Sequence[float] | np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
) -> tuple[estimates.Estimate, estimates.Estimate]:
    """Estimate how well a preference model agrees with pairs that people labelled.

    Args:
      chosen: [num] rewards of the replies that people preferred.
      rejected: [num] rewards of the other replies.
      seed: of the bootstrap of the second figure.
      level: coverage of the intervals.

    Returns:
      The share with a higher reward for the chosen reply, where equal rewards count as
      wrong (Wilson interval), and the mean of `sigmoid(chosen - rejected)`
      (bootstrap interval).

    Raises:
      ValueError: the two kinds of rewards differ in number.

    Source: RLCD Table 5.
    """
    one = estimates.vector(chosen, "chosen", at_least=2)
    two = estimates.vector(rejected, "rejected", at_least=2)
    if one.size != two.size:
        raise ValueError(f"{one.size} chosen but {two.size} rejected rewards")
    right = int(np.sum(one > two))
    probabilities = special.expit(one - two)
    return (
        estimates.proportion_interval(right, one.size, level=level),
        estimates.bootstrap_interval(probabilities, seed=seed, level=level),
    )


def _points(points: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return points of verdicts as a vector of 0, 0.5 and 1."""
    data = estimates.vector(points, "points")
    odd = data[~np.isin(data, (0.0, 0.5, 1.0))]
    if odd.size:
        raise ValueError(f"points must be 0, 0.5 or 1, got {odd[0]}")
    return data


def _separable(points: np.ndarray, gap: np.ndarray) -> bool:
    """Say whether a logistic regression on the gap has no finite solution."""
    if points.min() == points.max() and points[0] != 0.5:
        return True
    if not gap.any():
        return False
    may_win, may_lose = gap[points > 0], gap[points < 1]  # a tie is in both
    return bool(may_win.min() >= may_lose.max() or may_win.max() <= may_lose.min())


def _logistic(
    design: np.ndarray, points: np.ndarray, clusters: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a logistic regression; return coefficients and their sandwich covariance."""

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logit = design @ weights
        value = np.sum(np.logaddexp(0.0, logit) - points * logit)
        return float(value), design.T @ (special.expit(logit) - points)

    def curvature(weights: np.ndarray) -> np.ndarray:
        share = special.expit(design @ weights)
        return (design * (share * (1 - share))[:, None]).T @ design

    start = np.zeros(design.shape[1])
    fit = scipy.optimize.minimize(
        loss,
        start,
        jac=True,
        hess=curvature,
        method="trust-exact",
        options={"gtol": 1e-8},
    )
    scores = design * (points - special.expit(design @ fit.x))[:, None]
    names, cluster = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(names), design.shape[1]))
    np.add.at(sums, cluster, scores)
    bread = np.linalg.inv(curvature(fit.x))
    few = len(names) / (len(names) - 1)  # against too small a spread of few clusters
    return fit.x, few * bread @ (sums.T @ sums) @ bread
