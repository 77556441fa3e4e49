"""Estimates with intervals: means, differences, proportions, lengths.

Nothing here draws without a seed. An estimate carries its interval, its level and the
number of things it rests on; what cannot be computed is a `Missing` with its reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import scipy  # whose packages load when they are first named
from scipy import special

BLOCK_ENTRIES = 4_000_000  # drawn at once, to bound memory
EXACT_SIGNS = 14  # up to 2**14 sign flips are enumerated


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its interval, from `num` prompts, pairs or replies."""

    value: float
    low: float
    high: float
    level: float
    num: int
    p_value: float | None = None

    def __post_init__(self) -> None:
        figures = (self.value, self.low, self.high, self.p_value or 0.0)
        if not all(math.isfinite(figure) for figure in figures):
            raise ValueError(f"an estimate must be finite, got {self}; use Missing")


@dataclasses.dataclass(frozen=True)
class Missing:
    """Stands where a number could not be computed."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("a missing cell needs a reason")


@dataclasses.dataclass(frozen=True)
class LengthStats:
    """Mean, standard deviation and quantiles of lengths."""

    mean: float
    sd: float
    median: float
    low_decile: float
    high_decile: float
    num: int


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    seed: int,
    statistic: Callable[..., Any] = np.mean,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Estimate:
    """Estimate a statistic with a percentile bootstrap interval.

    Args:
      values: [num] independent values, one a prompt; at least two.
      seed: of the resampling.
      statistic: function of an array and `axis`, such as `np.mean`.
      level: coverage of the interval.
      resamples: number of bootstrap samples.
    """
    data = vector(values, "values", at_least=2)
    check_level(level)
    found = scipy.stats.bootstrap(
        (data,),
        statistic,
        n_resamples=resamples,
        batch=min(resamples, max(1, BLOCK_ENTRIES // data.size)),
        vectorized=True,
        axis=-1,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = float(statistic(data, axis=-1))
    return Estimate(value, float(found.low), float(found.high), level, data.size)


def paired_difference(
    values_1: Sequence[float] | np.ndarray,
    values_2: Sequence[float] | np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Estimate:
    """Estimate the mean of `values_1 - values_2` over the same prompts.

    The interval is a percentile bootstrap over prompts. The p-value is two-sided, of
    the hypothesis that each difference could have either sign: all signs when there
    are few prompts, else `resamples` drawn ones.

    Args:
      values_1: [num] value of the first system on each prompt.
      values_2: [num] value of the second system on the same prompts.
      seed: of the draws.
      level: coverage of the interval.
      resamples: number of bootstrap samples, and of drawn sign patterns.

    Raises:
      ValueError: the values differ in number.
    """
    one, two = vector(values_1, "values_1"), vector(values_2, "values_2")
    if one.size != two.size:
        raise ValueError(f"paired values differ in number: {one.size} and {two.size}")
    differences = one - two
    estimate = bootstrap_interval(
        differences, seed=seed, level=level, resamples=resamples
    )
    p_value = _sign_flip_p(differences, resamples, seed)
    return dataclasses.replace(estimate, p_value=p_value)


def proportion_interval(
    successes: float, total: int, *, level: float = 0.95
) -> Estimate:
    """Estimate a proportion with the score interval of Wilson (1927).

    Args:
      successes: how many; halves are allowed and make the interval too wide, not too
        narrow.
      total: of how many, at least one.
      level: coverage of the interval.

    Raises:
      ValueError: the two are no proportion.
    """
    check_level(level)
    if total < 1 or not 0 <= successes <= total:
        raise ValueError(f"cannot take {successes} of {total} as a proportion")
    z = special.ndtri((1 + level) / 2)
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    half = z * spread / (1 + z * z / total)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == total else centre + half
    return Estimate(share, float(low), float(high), level, int(total))


def mean_by_prompt(entries: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Return the mean of each prompt's values, in the order of the prompts.

    Several replies to a prompt are one observation: its draws are, and its
    replies of several seeds.

    Args:
      entries: (prompt id, value); None is left out.
    """
    groups: dict[str, list[float]] = {}
    for prompt_id, value in entries:
        if value is not None:
            groups.setdefault(prompt_id, []).append(float(value))
    return {prompt_id: float(np.mean(own)) for prompt_id, own in groups.items()}


def length_stats(lengths: Sequence[float] | np.ndarray) -> LengthStats | Missing:
    """Return mean, standard deviation (of the sample), median and deciles."""
    data = vector(lengths, "lengths")
    if data.size < 2:
        return Missing(f"{data.size} texts are too few")
    low, median, high = np.quantile(data, [0.1, 0.5, 0.9])
    mean, sd = data.mean(), data.std(ddof=1)
    return LengthStats(*map(float, (mean, sd, median, low, high)), num=data.size)


def vector(
    values: Sequence[float] | np.ndarray, name: str, at_least: int = 0
) -> np.ndarray:
    """Return finite numbers as a float64 vector.

    Raises:
      ValueError: the values are no row of enough finite numbers.
    """
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or data.size < at_least or not np.all(np.isfinite(data)):
        raise ValueError(
            f"{name} must be a row of {at_least} or more finite numbers, got shape "
            f"{data.shape} with {int(np.sum(~np.isfinite(data)))} not finite"
        )
    return data


def check_level(level: float) -> None:
    """Refuse a coverage outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), such as 0.95, got {level}")


def _sign_flip_p(differences: np.ndarray, resamples: int, seed: int) -> float:
    """Return the two-sided sign-flip p-value of the mean difference being zero."""
    size = differences.size
    observed = abs(differences.sum())
    least = observed - 1e-9 * np.abs(differences).sum()  # rounding is not a difference
    if size <= EXACT_SIGNS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=size)))
        return float(np.mean(np.abs(signs @ differences) >= least))
    rng = np.random.default_rng([seed, 1])
    block = max(1, BLOCK_ENTRIES // size)
    extreme = 0
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), size)
        signs = rng.integers(0, 2, shape) * 2.0 - 1.0
        extreme += int(np.sum(np.abs(signs @ differences) >= least))
    return (extreme + 1) / (resamples + 1)
