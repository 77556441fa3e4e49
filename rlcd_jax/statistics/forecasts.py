"""Forecasts of yes or no against what came: rates of both, and whether chances hold.

What is forecast is a chance in [0, 1]; what came is one too: 0 or 1, or something
between where it is not known for sure. Host code on arrays, without randomness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

BINS = 10  # of equal width, as reliability diagrams have


@dataclasses.dataclass(frozen=True)
class Rates:
    """How yes and no of forecasts agree with yes and no that came, as shares.

    Attributes:
      num: forecasts of something that came as yes or as no: not as 1/2.
      label_positive: of them, came as yes.
      predicted_positive: were forecast as yes: above 1/2.
      true_positive: of those that came as yes, forecast as yes; None: there is none.
      false_positive: of those that came as no, forecast as yes; None: there is none.
    """

    num: int
    label_positive: float
    predicted_positive: float
    true_positive: float | None
    false_positive: float | None


@dataclasses.dataclass(frozen=True)
class Bin:
    """The forecasts of one interval of chances, and how often yes came.

    Attributes:
      low: where the interval begins, which is in it.
      high: where it ends, which is in the last one only.
      num: forecasts.
      predicted: their mean; None: there are none.
      observed: the mean of what came; None: there are none.
    """

    low: float
    high: float
    num: int
    predicted: float | None
    observed: float | None


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Whether what is forecast with a chance comes as often: a reliability diagram.

    Attributes:
      num: forecasts.
      brier: mean of (forecast - what came)^2, which of 0 and 1 is the Brier score.
      error: expected calibration error: mean of |predicted - observed| over the
        bins, each by its number of forecasts.
      bins: from chance 0 to chance 1.
    """

    num: int
    brier: float
    error: float
    bins: tuple[Bin, ...]


def rates(predicted: Sequence[float], came: Sequence[float]) -> Rates:
    """Return the rates of forecasts of which one or more came as yes or as no.

    Args:
      predicted: [N] chance of yes; of 1/2: no.
      came: [N] chance that yes came; those of 1/2 are left out.

    Source: AlpacaFarm b68d7cf `reward_modeling_trainer.py`, where a forecast of 1/2
    is yes.
    """
    predicted, came = (np.asarray(x, np.float64) for x in (predicted, came))
    known = came != 0.5
    said, yes = predicted[known] > 0.5, came[known] > 0.5
    return Rates(
        num=int(known.sum()),
        label_positive=float(yes.mean()),
        predicted_positive=float(said.mean()),
        true_positive=float(said[yes].mean()) if yes.any() else None,
        false_positive=float(said[~yes].mean()) if not yes.all() else None,
    )


def reliability(predicted: Sequence[float], came: Sequence[float]) -> Reliability:
    """Return how far forecasts can be taken at their word; of one or more.

    Args:
      predicted: [N] chance of yes.
      came: [N] chance that yes came.

    Source: Naeini et al. 2015 on the expected calibration error; Brier 1950.
    """
    predicted, came = (np.asarray(x, np.float64) for x in (predicted, came))
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for index in range(BINS):
        own = place == index
        num = int(own.sum())
        said = float(predicted[own].mean()) if num else None
        seen = float(came[own].mean()) if num else None
        bins.append(Bin(index / BINS, (index + 1) / BINS, num, said, seen))
        error += num * abs(said - seen) / len(came) if num else 0.0
    brier = float(np.mean((predicted - came) ** 2))
    return Reliability(len(came), brier, error, tuple(bins))
