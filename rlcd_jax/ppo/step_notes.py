"""What changes from step to step of PPO beside the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rlcd_jax.ppo import kl_penalty, learning, weighted_rewards


@dataclasses.dataclass(frozen=True)
class Notes:
    """What changes from step to step beside the parameters.

    Attributes:
      kl_coef: weight of the KL penalty.
      gain: multiplies the preference model's reward; None: not yet measured.
      bias: is added to it.
      scales: gain and bias of the models of other runs, by name.
    """

    kl_coef: float
    gain: float | None
    bias: float
    scales: Mapping[str, weighted_rewards.Scale] = dataclasses.field(
        default_factory=dict
    )

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any], section: ConfigDict) -> Notes:
        """Return the notes of a checkpoint, or those of the start."""
        start = {
            "kl_coef": section.kl_coef,
            "gain": None if section.normalise_reward else 1.0,
            "bias": 0.0,
            "scales": {},
        }
        return cls(**{name: meta.get(name, value) for name, value in start.items()})

    def as_meta(self) -> dict[str, Any]:
        """Return the notes as a checkpoint keeps them."""
        meta = dataclasses.asdict(self)
        if not meta["scales"]:
            del meta["scales"]
        return meta

    def measured(self, raw: Mapping[str, np.ndarray]) -> Notes:
        """Return the notes with the scales of rewards [B], if they were not known."""
        if self.gain is not None:
            return self
        scales = weighted_rewards.measure(raw)
        gain, bias = scales.pop(weighted_rewards.OWN)
        return dataclasses.replace(self, gain=gain, bias=bias, scales=scales)

    def normalised(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the rewards of several models in the units of their scales."""
        scales = {weighted_rewards.OWN: (self.gain, self.bias), **self.scales}
        return weighted_rewards.normalised(raw, scales)


def adapt(notes: Notes, shown: Mapping[str, Any], section: ConfigDict) -> Notes:
    """Return the notes of the next step: an adaptive KL coefficient moves."""
    if not section.kl_target:
        return notes
    kl_coef = kl_penalty.adapt_kl_coef(
        learning.float32(notes.kl_coef),
        learning.float32(shown["rollout/kl_sum_mean"]),
        target=section.kl_target,
        horizon=section.kl_horizon,
        replies=section.rollouts,
    )
    return dataclasses.replace(notes, kl_coef=float(kl_coef))
