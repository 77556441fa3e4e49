"""The optimizer of a trained stage, from its section of the config."""

from __future__ import annotations

import functools

import optax
from ml_collections import ConfigDict

from rlcd_jax.job import trainer
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
    return _made(
        float(section.learning_rate),
        float(section.eps),
        float(section.weight_decay),
        float(section.max_grad_norm),
        schedule,
        warmup,
        total,
        every,
        idle,
        parts,
    )


@functools.lru_cache(maxsize=trainer.KEPT)
def _made(
    peak: float,
    eps: float,
    weight_decay: float,
    max_grad_norm: float,
    schedule: str,
    warmup: int,
    total: int,
    every: int,
    idle: bool,
    parts: tuple[str, ...],
) -> optax.GradientTransformation:
    """Return the same optimizer for the same numbers, so that programs are shared."""
    rate = optimizers.learning_rate(
        peak, schedule=schedule, warmup=warmup, total=total, every=every, idle=idle
    )
    return optimizers.adamw(
        rate,
        eps=eps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        parts=parts,
    )
