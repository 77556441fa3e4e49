"""One reward of several preference models: each in its own unit, then by weight.

    reward = sum over models of weight (gain raw + bias)

Gain and bias give a model's rewards of the first rollouts mean 0 and deviation 1, so
that a weight says how much the attribute counts, whatever the scale on which its model
was trained. The sum is not normalised again: a weight of 1 is one deviation of one
model, and the KL coefficient is in these units.

Why models and not pairs of several tasks in one training: how much each task counts is
then said in one place and may be changed without a new preference model, and does not
depend on how many pairs each task has, or on how sure their labels are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from rlcd_jax.ppo import rollout

OWN = "own"  # the name of the reward by the run's own preference model
# A name that a metric can have, a workdir, and a weight above 0.
PATTERN = r"[\w.-]+=\S.*:(0*\.0*[1-9]\d*|0*[1-9]\d*(\.\d*)?)"
WANTED = "'NAME=RUN:WEIGHT' with the workdir of a run and a weight above 0"

Scale = tuple[float, float]  # gain and bias


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of `policy.rewards`.

    Attributes:
      name: of the reward in metrics.
      run: workdir of the run whose preference model it is by.
      weight: of the normalised reward.
    """

    name: str
    run: str
    weight: float


def read(entries: Sequence[str]) -> list[Entry]:
    """Return what `policy.rewards` names.

    Raises:
      ValueError: an entry is not of this form, or two have one name.
    """
    found = []
    for text in entries:
        if not re.fullmatch(PATTERN, text, re.DOTALL):
            raise ValueError(f"policy.rewards has {text!r}; accepted: {WANTED}")
        name, _, rest = text.partition("=")
        run, _, weight = rest.rpartition(":")
        found.append(Entry(name, run, float(weight)))
    names = [OWN, *(one.name for one in found)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(
            f"policy.rewards={tuple(entries)} has two rewards called {double[0]!r}; "
            f"give each a name of its own, none of them {OWN!r}, which is that of the "
            "run's own preference model"
        )
    return found


def measure(raw: Mapping[str, np.ndarray]) -> dict[str, Scale]:
    """Return the scale of each model by its rewards [B] of the first rollouts.

    Raises:
      ValueError: the rewards of one do not differ, or are not finite.
    """
    found = {}
    for name, rewards in raw.items():
        try:
            found[name] = rollout.score_normalisation(rewards)
        except ValueError as error:
            raise ValueError(f"the reward {name!r}: {error}") from error
    return found


def normalised(
    raw: Mapping[str, np.ndarray], scales: Mapping[str, Scale]
) -> dict[str, np.ndarray]:
    """Return the rewards of each model [B] in the unit of its scale, float64."""
    return {
        name: scales[name][0] * np.asarray(rewards, np.float64) + scales[name][1]
        for name, rewards in raw.items()
    }


def weighted(
    rewards: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """Return the sum of normalised rewards by their weights, [B] float32."""
    total = sum(weights[name] * values for name, values in rewards.items())
    return np.asarray(total, np.float32)


def metrics(rewards: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean of each model's normalised rewards, under `reward/`."""
    return {f"reward/{name}": float(values.mean()) for name, values in rewards.items()}
