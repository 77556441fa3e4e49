"""Optimizers and their schedules, by optax."""

from __future__ import annotations

import jax
import optax

from rlcd_jax.training import train_state

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate(
    peak: float, *, schedule: str, warmup: int, total: int, every: int, idle: bool
) -> optax.Schedule:
    """Return the rate of each update: linear warm-up, then to zero.

    Args:
      peak: the highest rate.
      schedule: "constant", "linear" or "cosine" after the warm-up.
      warmup: steps until the peak.
      total: steps in all.
      every: updates in a step; the rate changes once a step.
      idle: True starts the warm-up at zero, so that step 0 changes nothing, as the
        released code does; False starts it at `peak / (warmup + 1)`.

    Raises:
      ValueError: there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r}; accepted: {', '.join(SCHEDULES)}")
    first = 0.0 if idle else peak / (warmup + 1)
    rise = optax.linear_schedule(first, peak, max(warmup, 1))
    rest = max(total - warmup, 1)
    fall = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }[schedule]
    joined = optax.join_schedules([rise, fall], [warmup])
    return lambda count: joined(count // every)


def adamw(
    rate: optax.Schedule,
    *,
    eps: float,
    weight_decay: float,
    max_grad_norm: float,
    parts: tuple[str, ...],
) -> optax.GradientTransformation:
    """Return clipped AdamW with betas 0.9 and 0.999.

    Args:
      rate: learning rate of each update.
      eps: added to the root of the bias-corrected second moment.
      weight_decay: decoupled decay a unit of learning rate.
      max_grad_norm: the gradient is scaled down to this norm.
      parts: top-level names of the parameters that are clipped each by its own norm;
        empty clips all together, so that a large gradient of one shrinks the others.
    """

    def one() -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(max_grad_norm),
            optax.adamw(rate, b1=0.9, b2=0.999, eps=eps, weight_decay=weight_decay),
        )

    if not parts:
        return one()

    def labels(params: train_state.Params) -> train_state.Params:
        return {name: jax.tree.map(lambda _: name, params[name]) for name in parts}  # noqa: B023

    return optax.partition({name: one() for name in parts}, labels)
