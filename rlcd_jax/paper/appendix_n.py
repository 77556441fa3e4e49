"""How often a simulated pair carries the right label, in a Gaussian model.

The model (paper, Appendix N). The true attribute value of a reply is
`N(mu(prompt), sigma_generator^2)`. A scorer sees each value through its own noise
`N(0, sigma_scorer^2)`, independent for each reply.

* RLAIF draws two replies from one prompt; the noisy scores give the label.
* RLCD draws one reply from p+ and one from p-, whose means differ by `shift`; the
  prompts give the label.
* RLCD-Rescore draws as RLCD and labels as RLAIF.

Pairs whose true values differ by at most `hard` are the hard pairs. With
`s = sqrt(2) sigma_generator` the true difference is `N(shift, s^2)`.

Limits. Values are Gaussian with one spread for all prompts; a scorer has noise but no
bias, so an agreement below one half cannot be explained; both sides of a contrast pair
have the same spread; nothing is said about what is learnt from the labels. What comes
out is a model calculation to set beside measurements, never in their place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import integrate, special

CHUNK = 1_000_000  # trials held in memory at once
SIMULATED = (
    "rlaif",
    "rlaif_hard",
    "rlcd",
    "rlcd_hard",
    "rescore",
    "rescore_hard",
    "hard_share_same",
    "hard_share_contrast",
)


@dataclasses.dataclass(frozen=True)
class LabelAccuracy:
    """Shares of right labels, on all pairs and on hard pairs, and of hard pairs."""

    rlaif: float
    rlaif_hard: float
    rlcd: float
    rlcd_hard: float
    rescore: float
    rescore_hard: float
    hard_share_same: float
    hard_share_contrast: float


def rlaif_accuracy(sigma_generator: float, sigma_scorer: float) -> float:
    """Return the share of right RLAIF labels: 1/2 + arctan(sigma_g / sigma_s) / pi.

    Args:
      sigma_generator: spread of the values of replies to one prompt, positive.
      sigma_scorer: spread of the scorer's noise on each reply, not negative.
    """
    _check(sigma_generator, sigma_scorer)
    return 0.5 + math.atan2(sigma_generator, sigma_scorer) / math.pi


def rlcd_accuracy(shift: float, sigma_generator: float) -> float:
    """Return the share of right RLCD labels: Phi(shift / s)."""
    _check(sigma_generator)
    return float(special.ndtr(shift / (math.sqrt(2) * sigma_generator)))


def rlcd_hard_accuracy(shift: float, sigma_generator: float, hard: float) -> float:
    """Return the share of right RLCD labels among hard pairs.

    The formula is ``[Phi((h - D) / s) - Phi(-D / s)] / [Phi((h - D) / s) -
    Phi((-h - D) / s)]` with `D` the shift and `h`` the bound, computed in logs.
    """
    _check(sigma_generator, hard=hard)
    if shift < 0:
        return 1.0 - rlcd_hard_accuracy(-shift, sigma_generator, hard)
    spread = math.sqrt(2) * sigma_generator
    edges = np.array([hard - shift, -shift, -hard - shift]) / spread
    top, middle, bottom = special.log_ndtr(edges)
    return float(np.expm1(middle - top) / np.expm1(bottom - top))


def hard_share(shift: float, sigma_generator: float, hard: float) -> float:
    """Return the share of pairs whose true values differ by at most `hard`."""
    _check(sigma_generator, hard=hard)
    spread = math.sqrt(2) * sigma_generator
    edges = special.ndtr(np.array([hard - abs(shift), -hard - abs(shift)]) / spread)
    return float(edges[0] - edges[1])


def rescore_accuracy(
    shift: float,
    sigma_generator: float,
    sigma_scorer: float,
    hard: float = math.inf,
) -> float:
    """Return the share of right labels when a noisy scorer labels contrast pairs.

    The formula is `E[Phi(|d| / (sqrt(2) sigma_s))]` with `d ~ N(shift, s^2)` given
    `|d| <= hard`, by quadrature. A shift of zero makes it RLAIF.

    Args:
      shift: mean of the positive side less that of the negative side.
      sigma_generator: spread of the values on one side, positive.
      sigma_scorer: spread of the scorer's noise on each reply, not negative.
      hard: bound of the true difference; infinite takes all pairs.
    """
    _check(sigma_generator, sigma_scorer, hard)
    if sigma_scorer == 0:
        return 1.0
    spread = math.sqrt(2) * sigma_generator
    shift = abs(shift)
    # The density lies around the point of the interval that is nearest to the shift.
    peak = min(shift, hard)
    low, high = max(-hard, peak - 12 * spread), min(hard, peak + 12 * spread)

    def density(d: float) -> float:
        return math.exp(((peak - shift) ** 2 - (d - shift) ** 2) / (2 * spread**2))

    def right(d: float) -> float:
        return density(d) * special.ndtr(abs(d) / (math.sqrt(2) * sigma_scorer))

    marks = sorted({m for m in (0.0, peak) if low < m < high})
    edges = [low, *marks, high]
    pieces = list(zip(edges[:-1], edges[1:], strict=True))
    above = sum(integrate.quad(right, a, b, epsabs=1e-13)[0] for a, b in pieces)
    below = sum(integrate.quad(density, a, b, epsabs=1e-13)[0] for a, b in pieces)
    return float(above / below)


def predict(
    shift: float, sigma_generator: float, sigma_scorer: float, hard: float
) -> LabelAccuracy:
    """Return all shares of the model; the arguments are those of its parts."""
    return LabelAccuracy(
        rlaif=rlaif_accuracy(sigma_generator, sigma_scorer),
        rlaif_hard=rescore_accuracy(0.0, sigma_generator, sigma_scorer, hard),
        rlcd=rlcd_accuracy(shift, sigma_generator),
        rlcd_hard=rlcd_hard_accuracy(shift, sigma_generator, hard),
        rescore=rescore_accuracy(shift, sigma_generator, sigma_scorer),
        rescore_hard=rescore_accuracy(shift, sigma_generator, sigma_scorer, hard),
        hard_share_same=hard_share(0.0, sigma_generator, hard),
        hard_share_contrast=hard_share(shift, sigma_generator, hard),
    )


def simulate(
    shift: float,
    sigma_generator: float,
    sigma_scorer: float,
    hard: float,
    *,
    trials: int,
    seed: int,
) -> tuple[LabelAccuracy, LabelAccuracy]:
    """Draw pairs from the model and count right labels.

    Args:
      shift: mean of the positive side less that of the negative side.
      sigma_generator: spread of the values on one side.
      sigma_scorer: spread of the scorer's noise on each reply.
      hard: bound of the true difference of a hard pair.
      trials: number of pairs of each kind; the paper uses 10^8.
      seed: of the draws.

    Returns:
      The shares and their standard errors; nan where no pair was hard.
    """
    _check(sigma_generator, sigma_scorer, hard)
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    hits, counts = np.zeros(len(SIMULATED)), np.zeros(len(SIMULATED))
    for chunk in range(-(-trials // CHUNK)):
        rng = np.random.default_rng([seed, chunk])
        size = min(CHUNK, trials - chunk * CHUNK)
        values = rng.normal(0.0, sigma_generator, (4, size))
        noise = rng.normal(0.0, sigma_scorer, (4, size))
        same = values[0] - values[1]
        contrast = values[2] - values[3] + shift
        read_same = same + noise[0] - noise[1]
        read_contrast = contrast + noise[2] - noise[3]
        everything = np.ones(size, bool)
        hard_same, hard_contrast = abs(same) <= hard, abs(contrast) <= hard
        rows = (  # in the order of SIMULATED: what is counted, and among which pairs
            ((same > 0) == (read_same > 0), everything),
            ((same > 0) == (read_same > 0), hard_same),
            (contrast > 0, everything),
            (contrast > 0, hard_contrast),
            ((contrast > 0) == (read_contrast > 0), everything),
            ((contrast > 0) == (read_contrast > 0), hard_contrast),
            (hard_same, everything),
            (hard_contrast, everything),
        )
        hits += [np.count_nonzero(right & among) for right, among in rows]
        counts += [np.count_nonzero(among) for _, among in rows]
    shares = np.divide(hits, counts, out=np.full_like(hits, np.nan), where=counts > 0)
    errors = np.sqrt(shares * (1 - shares) / np.maximum(counts, 1))
    return _named(shares), _named(errors)


def break_even_shift(sigma_generator: float, sigma_scorer: float) -> float:
    """Return the shift at which RLCD and RLAIF have as many right labels.

    The formula is `s Phi^-1(1/2 + arctan(sigma_g / sigma_s) / pi)`: a generator that
    the prompts move further than this makes better pairs than the scorer labels.
    """
    accuracy = rlaif_accuracy(sigma_generator, sigma_scorer)
    return float(math.sqrt(2) * sigma_generator * special.ndtri(accuracy))


def fit_generator(differences: Sequence[float]) -> tuple[float, float]:
    """Fit shift and generator spread to contrast pairs scored by a trusted judge.

    Args:
      differences: value of the positive reply less that of the negative one, for each
        pair; at least two.

    Returns:
      The mean difference, and its standard deviation over sqrt(2). When the shift
      varies between prompts, or the judge is noisy, the spread is too large.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or values.size < 2 or not np.all(np.isfinite(values)):
        raise ValueError(
            "differences must be at least two finite numbers in a row, got shape "
            f"{values.shape}"
        )
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(2))


def fit_scorer(agreement: float, sigma_generator: float) -> float:
    """Fit a scorer's noise to its agreement with the truth on same-prompt pairs.

    The formula inverts RLAIF: `sigma_s = sigma_g / tan(pi (agreement - 1/2))`.

    Args:
      agreement: share of same-prompt pairs with the trusted label, without ties.
      sigma_generator: spread of the values of replies to one prompt, positive.

    Returns:
      The spread of the noise; infinite for an agreement of one half or less, since the
      model knows no scorer that is wrong more often than right.
    """
    _check(sigma_generator)
    if not 0.0 <= agreement <= 1.0:
        raise ValueError(f"agreement must be a share in [0, 1], got {agreement}")
    if agreement <= 0.5:
        return math.inf
    angle = math.pi * (agreement - 0.5)
    return max(0.0, sigma_generator * math.cos(angle) / math.sin(angle))


def _named(values: np.ndarray) -> LabelAccuracy:
    """Return numbers in the order of SIMULATED under their names."""
    return LabelAccuracy(**dict(zip(SIMULATED, map(float, values), strict=True)))


def _check(
    sigma_generator: float, sigma_scorer: float = 0.0, hard: float = 1.0
) -> None:
    """Refuse spreads and bounds that the formulas cannot take."""
    if not (math.isfinite(sigma_generator) and sigma_generator > 0):
        raise ValueError(
            f"sigma_generator must be positive and finite, got {sigma_generator}"
        )
    if not sigma_scorer >= 0:
        raise ValueError(f"sigma_scorer must not be negative, got {sigma_scorer}")
    if not hard > 0:
        raise ValueError(f"hard must be positive, got {hard}")
