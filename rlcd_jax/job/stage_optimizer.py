"""The optimizer of a trained stage, from its section of the config."""

from __future__ import annotations

import optax
from ml_collections import ConfigDict

from rlcd_jax.training import optimizers


def make(
    section: ConfigDict,
    *,
    schedule: str,
    warmup: int,
    total: int,
    every: int = 1,
    idle: bool = False,
    parts: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """Return the optimizer of a stage.

    Args:
      section: with learning_rate, eps, weight_decay and max_grad_norm.
      schedule: of the learning rate; this and the rest as `optimizers` has them.
      warmup: steps until the highest rate.
      total: steps in all.
      every: updates in a step.
      idle: step 0 changes nothing.
      parts: of the parameters, each clipped by its own norm; empty: all together.
    """
    rate = optimizers.learning_rate(
        section.learning_rate,
        schedule=schedule,
        warmup=warmup,
        total=total,
        every=every,
        idle=idle,
    )
    return optimizers.adamw(
        rate,
        eps=section.eps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        parts=parts,
    )
