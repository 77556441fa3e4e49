"""The label-noise calculator: from a run's pairs to predicted label accuracy.

`theory` says how often labels are right given the shift between the two contrast
prompts, the spread of a generator's replies and the noise of a scorer. Here the three
are fitted to pairs whose replies a trusted judge has scored, all in the judge's units,
and what the model then predicts is set beside the measured share of labels that agree
with the judge.

The judge stands for the truth: where it is noisy, the fitted spread is too large and
every predicted and measured share is an agreement with the judge and not an accuracy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from rlcd_jax import diagnostic_tables, diagnostics, estimates, tables, theory
from rlcd_jax.estimates import Missing

METHODS = ("RLCD", "RLAIF", "Rescore")
PUBLISHED = (  # what, published digits, number of decimals; paper, Appendix N
    ("RLAIF, all pairs", 0.750, 3),
    ("RLAIF, hard pairs", 0.528, 3),
    ("RLCD, hard pairs, shift 3", 0.574, 3),
    ("RLCD, hard pairs, shift 0", 0.5, 1),
)
HARD = 0.2  # bound of the paper's hard pairs
SHIFTS = (0.0, 1.0, 2.0, 3.0, 4.0)


@dataclasses.dataclass(frozen=True)
class JudgedPair:
    """What the calculator needs of a pair.

    Attributes:
      prompt_id: pairs of one prompt, several draws of it, are one observation.
      contrast: whether its replies are of contrast prompts.
      margin: the trusted judge's score of one side less that of the other; of the
        positive side less the negative one when ``contrast``.
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


def judged(readings: Sequence[diagnostics.Reading], judge: str) -> list[JudgedPair]:
    """Return the pairs of readings that have an outside score called ``judge``.

    Args:
      readings: one for each pair of replies; see `diagnostics.one_each`.
      judge: name of the trusted judge.
    """
    return [
        JudgedPair(r.prompt_id, r.sampling == "contrast", r.outside[judge], r.scored)
        for r in readings
    ]


def fit(pairs: Sequence[JudgedPair]) -> Fit:
    """Fit shift, spread and scorer noise to judged pairs.

    The shift is the mean margin of contrast pairs. The spread is that of same-prompt
    pairs where there are any, ``sqrt(mean margin^2 / 2)``, else that of contrast pairs.
    The scorer's noise inverts its agreement with the judge: RLAIF's formula on
    same-prompt pairs, else Rescore's on contrast pairs.
    """
    contrast = [p for p in pairs if p.contrast]
    same = [p for p in pairs if not p.contrast]
    shift: float | Missing = Missing("no contrast pairs")
    spread: float | Missing = Missing("fewer than two pairs")
    if len(contrast) >= 2:
        shift, spread = theory.fit_generator([p.margin for p in contrast])
    if len(same) >= 2:
        spread = math.sqrt(float(np.mean([p.margin**2 for p in same])) / 2)
    if not isinstance(spread, Missing) and spread == 0:
        spread = Missing("the judge gave equal scores to both replies of every pair")
    noise, origin = _fit_scorer(same, contrast, shift, spread)
    return Fit(shift, spread, noise, origin)


def rescore_noise(agreement: float, shift: float, sigma_generator: float) -> float:
    """Return the scorer noise at which Rescore has a given label accuracy.

    Inverts `theory.rescore_accuracy`, which falls from 1 to 1/2 as the noise grows.

    Args:
      agreement: share of contrast pairs with the trusted label, without ties.
      shift: of the contrast prompts.
      sigma_generator: spread of the values on one side, positive.

    Returns:
      The spread of the noise; infinite for an agreement of one half or less.
    """
    if not 0.0 <= agreement <= 1.0:
        raise ValueError(f"agreement must be a share in [0, 1], got {agreement}")
    if agreement <= 0.5:
        return math.inf
    if agreement == 1.0:
        return 0.0

    def gap(log_noise: float) -> float:
        noise = math.exp(log_noise)
        return theory.rescore_accuracy(shift, sigma_generator, noise) - agreement

    scale = math.log(math.hypot(shift, sigma_generator))
    low, high = scale - 12.0, scale + 12.0
    if gap(high) > 0:
        return math.inf
    if gap(low) < 0:
        return 0.0
    return math.exp(float(optimize.brentq(gap, low, high, xtol=1e-10)))


def predicted(fitted: Fit) -> dict[str, float | Missing]:
    """Return the label accuracy that the model predicts for each method."""
    gap, spread, noise = fitted.shift, fitted.sigma_generator, fitted.sigma_scorer

    def ask(formula: Callable[..., float], *values: float | Missing) -> Any:
        lacking = next((v for v in values if isinstance(v, Missing)), None)
        return lacking or formula(*values)

    return {
        "RLCD": ask(theory.rlcd_accuracy, gap, spread),
        "RLAIF": ask(theory.rlaif_accuracy, spread, noise),
        "Rescore": ask(theory.rescore_accuracy, gap, spread, noise),
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
    foretold, found = predicted(fitted), measured(pairs, level)
    spans = _predicted_intervals(pairs, foretold, seed=seed, level=level)
    rows = [(name, (spans[name], found[name])) for name in METHODS]

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


def paper_table(*, trials: int, seed: int, level: float = 0.95) -> tables.Table:
    """Return Appendix N: published digits, closed forms and a Monte Carlo check.

    All with spread and noise 1 and hard pairs within 0.2, as in the paper.

    Args:
      trials: pairs drawn for each shift; the paper uses 10^8.
      seed: of the draws.
      level: of the Monte Carlo intervals.
    """
    z = float(special.ndtri((1 + level) / 2))
    published = {name: f"{value:.{digits}f}" for name, value, digits in PUBLISHED}
    rows, even = [], theory.break_even_shift(1.0, 1.0)
    for shift in SHIFTS:
        args = (shift, 1.0, 1.0, HARD)
        exact = theory.predict(*args)
        shares, errors = theory.simulate(*args, trials=trials, seed=seed)
        for name, label in _paper_rows(shift):
            value = getattr(shares, name)
            half = z * getattr(errors, name)
            among = round(trials * _among(name, shares))
            cell = (
                Missing("no hard pair was drawn")
                if math.isnan(value)
                else estimates.Estimate(value, value - half, value + half, level, among)
            )
            figures = (published.get(label, ""), getattr(exact, name), cell)
            rows.append((label, figures))
    columns = (
        tables.Column("published"),
        tables.Column("closed form", 4),
        tables.Column("Monte Carlo", 4),
    )
    notes = (
        "Generator spread 1, scorer noise 1 on each reply, hard pairs differ by at "
        f"most {HARD}. Monte Carlo: {trials:g} pairs for each shift, normal intervals.",
        f"RLCD's labels are right more often than RLAIF's from shift {even:.2f} on.",
    )
    caption = "Share of right labels (Appendix N)"
    return tables.Table(caption, "labels and pairs", columns, tuple(rows), notes)


def disagreements(table: tables.Table) -> list[str]:
    """Return the rows of `paper_table` that miss the published digits."""
    out = []
    for name, (published, exact, _) in table.rows:
        if published and published != f"{exact:.{len(published.split('.')[1])}f}":
            out.append(f"{name}: published {published}, closed form {exact:.6f}")
    return out


def _among(name: str, shares: theory.LabelAccuracy) -> float:
    """Return the part of the drawn pairs that a share is about."""
    if not name.endswith("_hard"):
        return 1.0
    same = name.startswith("rlaif")
    return shares.hard_share_same if same else shares.hard_share_contrast


def _paper_rows(shift: float) -> list[tuple[str, str]]:
    """Return (field of `theory.LabelAccuracy`, name of the row) for one shift."""
    rows = [
        ("rlcd", f"RLCD, all pairs, shift {shift:g}"),
        ("rlcd_hard", f"RLCD, hard pairs, shift {shift:g}"),
        ("rescore", f"Rescore, all pairs, shift {shift:g}"),
        ("rescore_hard", f"Rescore, hard pairs, shift {shift:g}"),
        ("hard_share_contrast", f"share of hard pairs, shift {shift:g}"),
    ]
    if shift:
        return rows
    same = [("rlaif", "RLAIF, all pairs"), ("rlaif_hard", "RLAIF, hard pairs")]
    # Without a shift Rescore is RLAIF.
    return same + [row for row in rows if not row[0].startswith("rescore")]


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
    how = diagnostic_tables.Intervals(seed=0, resamples=0, level=level)
    return how.share(hits)


def _mean_agreement(hits: Sequence[tuple[str, bool]]) -> float:
    means = diagnostic_tables.by_prompt(hits)
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
        return theory.fit_scorer(_mean_agreement(hits), spread), "same-prompt"
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
