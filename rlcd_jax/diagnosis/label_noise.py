"""The label-noise calculator: from a run's pairs to predicted label accuracy.

`paper.appendix_n` says how often labels are right given the shift between the two
contrast prompts, the spread of a generator's replies and the noise of a scorer. Here
the three are fitted to pairs whose replies a trusted judge has scored, all in the
judge's units, and what the model then predicts is set beside the measured share of
labels that agree with the judge.

The judge stands for the truth: where it is noisy, the fitted spread is too large and
every predicted and measured share is an agreement with the judge and not an accuracy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # whose packages load when they are first named

from rlcd_jax import records
from rlcd_jax.diagnosis import pair_readings, reading_tables
from rlcd_jax.paper import appendix_n
from rlcd_jax.statistics import estimates, tables
from rlcd_jax.statistics.estimates import Missing

METHODS = ("RLCD", "RLAIF", "Rescore")


@dataclasses.dataclass(frozen=True)
class JudgedPair:
    """What the calculator needs of a pair.

    Attributes:
      prompt_id: pairs of one prompt, several draws of it, are one observation.
      contrast: whether its replies are of contrast prompts.
      margin: the trusted judge's score of one side less that of the other; of the
        positive side less the negative one when `contrast`.
      scored: a scorer's probability that the first of these sides is better; None: no
        scorer saw the pair.
    """

    prompt_id: str
    contrast: bool
    margin: float
    scored: float | None


@dataclasses.dataclass(frozen=True)
class Fit:
    """Fitted numbers, in units of the trusted judge, or why they are missing."""

    shift: float | Missing
    sigma_generator: float | Missing
    sigma_scorer: float | Missing
    scorer_from: str  # which pairs gave the scorer's noise, or ""


def judged(readings: Sequence[pair_readings.Reading], judge: str) -> list[JudgedPair]:
    """Return the pairs of readings that have an outside score called `judge`.

    Args:
      readings: one for each pair of replies; see `pair_readings.one_each`.
      judge: name of the trusted judge.
    """
    return [
        JudgedPair(
            r.prompt_id,
            r.sampling in records.CONTRASTING,
            r.outside[judge],
            r.scored,
        )
        for r in readings
    ]


def fit(pairs: Sequence[JudgedPair]) -> Fit:
    """Fit shift, spread and scorer noise to judged pairs.

    The shift is the mean margin of contrast pairs. The spread is that of same-prompt
    pairs where there are any, `sqrt(mean margin^2 / 2)`, else that of contrast pairs.
    The scorer's noise inverts its agreement with the judge: RLAIF's formula on
    same-prompt pairs, else Rescore's on contrast pairs.
    """
    contrast = [p for p in pairs if p.contrast]
    same = [p for p in pairs if not p.contrast]
    shift: float | Missing = Missing("no contrast pairs")
    spread: float | Missing = Missing("fewer than two pairs")
    if len(contrast) >= 2:
        shift, spread = appendix_n.fit_generator([p.margin for p in contrast])
    if len(same) >= 2:
        spread = math.sqrt(float(np.mean([p.margin**2 for p in same])) / 2)
    if not isinstance(spread, Missing) and spread == 0:
        spread = Missing("the judge gave equal scores to both replies of every pair")
    noise, origin = _fit_scorer(same, contrast, shift, spread)
    return Fit(shift, spread, noise, origin)


def rescore_noise(agreement: float, shift: float, sigma_generator: float) -> float:
    """Return the scorer noise at which Rescore has a given label accuracy.

    Inverts `appendix_n.rescore_accuracy`, which falls from 1 to 1/2 as the noise grows.

    Args:
      agreement: share of contrast pairs with the trusted label, without ties.
      shift: of the contrast prompts.
      sigma_generator: spread of the values on one side, positive.

    Returns:
      The spread of the noise; infinite for an agreement of one half or less.

    Raises:
      ValueError: the agreement is no share.
    """
    if not 0.0 <= agreement <= 1.0:
        raise ValueError(f"agreement must be a share in [0, 1], got {agreement}")
    if agreement <= 0.5:
        return math.inf
    if agreement == 1.0:
        return 0.0

    def gap(log_noise: float) -> float:
        noise = math.exp(log_noise)
        return appendix_n.rescore_accuracy(shift, sigma_generator, noise) - agreement

    scale = math.log(math.hypot(shift, sigma_generator))
    low, high = scale - 12.0, scale + 12.0
    if gap(high) > 0:
        return math.inf
    if gap(low) < 0:
        return 0.0
    return math.exp(float(scipy.optimize.brentq(gap, low, high, xtol=1e-10)))


def predicted(fitted: Fit) -> dict[str, float | Missing]:
    """Return the label accuracy that the model predicts for each method."""
    gap, spread, noise = fitted.shift, fitted.sigma_generator, fitted.sigma_scorer

    def ask(formula: Callable[..., float], *values: float | Missing) -> Any:
        lacking = next((v for v in values if isinstance(v, Missing)), None)
        return lacking or formula(*values)

    return {
        "RLCD": ask(appendix_n.rlcd_accuracy, gap, spread),
        "RLAIF": ask(appendix_n.rlaif_accuracy, spread, noise),
        "Rescore": ask(appendix_n.rescore_accuracy, gap, spread, noise),
    }


def measured(
    pairs: Sequence[JudgedPair], level: float
) -> dict[str, estimates.Estimate | Missing]:
    """Return the share of labels that agree with the judge, for each method.

    Pairs that the judge or the label leaves undecided do not count; several pairs of
    one prompt are one observation.
    """
    contrast = [p for p in pairs if p.contrast]
    same = [p for p in pairs if not p.contrast]
    return {
        "RLCD": _share(
            [(p.prompt_id, p.margin > 0) for p in contrast if p.margin], level
        ),
        "RLAIF": _share(_agreements(same), level),
        "Rescore": _share(_agreements(contrast), level),
    }


def run_table(
    pairs: Sequence[JudgedPair], *, judge: str, seed: int, level: float = 0.95
) -> tables.Table:
    """Return predicted and measured label accuracy of a run's pairs, one row a method.

    Args:
      pairs: judged pairs.
      judge: name of the trusted judge.
      seed: of the bootstrap over prompts of the predicted shares.
      level: coverage of the intervals.
    """
    fitted = fit(pairs)
    foretold, observed = predicted(fitted), measured(pairs, level)
    spans = _predicted_intervals(pairs, foretold, seed=seed, level=level)
    rows = [(name, (spans[name], observed[name])) for name in METHODS]

    def shown(value: float | Missing) -> str:
        return (
            f"missing ({value.reason})"
            if isinstance(value, Missing)
            else f"{value:.4g}"
        )

    notes = [
        f"Fitted in units of {judge}: shift {shown(fitted.shift)}, generator spread "
        f"{shown(fitted.sigma_generator)}, scorer noise {shown(fitted.sigma_scorer)}"
        + (f" (from {fitted.scorer_from} pairs)." if fitted.scorer_from else "."),
        f"Measured: labels that agree with {judge}, which stands for the truth here.",
        "Predicted: the Gaussian model of Appendix N, interval by bootstrap over "
        "prompts. A model calculation, not evidence.",
    ]
    columns = (tables.Column("predicted", 3), tables.Column("measured", 3))
    caption = "Label accuracy, predicted and measured"
    return tables.Table(caption, "labels by", columns, tuple(rows), tuple(notes))


def _agreements(pairs: Sequence[JudgedPair]) -> list[tuple[str, bool]]:
    """Return (prompt id, whether score and judge agree) of the decided pairs."""
    return [
        (p.prompt_id, (p.margin > 0) == (p.scored > 0.5))
        for p in pairs
        if p.scored is not None and p.scored != 0.5 and p.margin != 0
    ]


def _share(
    hits: Sequence[tuple[str, bool]], level: float
) -> estimates.Estimate | Missing:
    if not hits:
        return Missing("no such pair that both judge and label decide")
    how = reading_tables.Intervals(seed=0, resamples=0, level=level)
    return how.share(hits)


def _mean_agreement(hits: Sequence[tuple[str, bool]]) -> float:
    means = estimates.mean_by_prompt(hits).values()
    return sum(means) / len(means)


def _fit_scorer(
    same: Sequence[JudgedPair],
    contrast: Sequence[JudgedPair],
    shift: float | Missing,
    spread: float | Missing,
) -> tuple[float | Missing, str]:
    if isinstance(spread, Missing):
        return spread, ""
    hits = _agreements(same)
    if hits:
        return appendix_n.fit_scorer(_mean_agreement(hits), spread), "same-prompt"
    hits = _agreements(contrast)
    if hits and not isinstance(shift, Missing):
        return rescore_noise(_mean_agreement(hits), shift, spread), "contrast"
    return Missing("no pair has a scored label; give a run of RLAIF or Rescore"), ""


def _predicted_intervals(
    pairs: Sequence[JudgedPair],
    foretold: dict[str, float | Missing],
    *,
    seed: int,
    level: float,
    resamples: int = 200,
) -> dict[str, estimates.Estimate | Missing]:
    """Return the predictions with percentile intervals, fitted anew to each sample."""
    groups: dict[str, list[JudgedPair]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt_id, []).append(pair)
    prompts = list(groups.values())
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(resamples if len(prompts) > 1 else 0):
        chosen = rng.integers(0, len(prompts), len(prompts))
        again = predicted(fit([pair for i in chosen for pair in prompts[i]]))
        for name, value in again.items():
            if not isinstance(value, Missing):
                drawn[name].append(value)
    out: dict[str, estimates.Estimate | Missing] = {}
    for name, value in foretold.items():
        if isinstance(value, Missing) or len(drawn[name]) < resamples // 2:
            known = isinstance(value, Missing)
            out[name] = value if known else Missing("too few prompts for an interval")
            continue
        low, high = np.quantile(drawn[name], [(1 - level) / 2, (1 + level) / 2])
        out[name] = estimates.Estimate(
            value, float(low), float(high), level, len(prompts)
        )
    return out
