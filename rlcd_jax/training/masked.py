"""Sums, means, variances and whitening over the entries of an array that count.

Every statistic of the code base that has to skip padding is one of these, so
that there is one variance (population), one epsilon and one rule for "nothing
counts". All results are float32, whatever the type of the input: an integer
array of rewards can not truncate a fractional one here.

The mask is bool with the shape of the values, True = counts. `mask=None` means
that every entry counts, padding included. That is what AlpacaFarm computes, and
the RLCD release with it; `select` turns the name of the rule ("masked" or
"padded") into the mask to hand over.

An entry that does not count may hold anything, NaN included. Where nothing
counts, sums and means are 0 instead of 0/0.
"""

import jax
import jax.numpy as jnp

STATISTICS = ("masked", "padded")
EPSILON = 1e-8


def select(mask: jax.Array, *, statistics: str) -> jax.Array | None:
    """Return the mask to use under a named rule of statistics.

    Args:
      mask: [...] bool, True where an entry is a real token.
      statistics: "masked": only these count (corrected); "padded": every entry
        counts, padding included (as released).

    Returns:
      `mask`, or None for "padded".

    Raises:
      ValueError: there is no such kind of statistics.

    Source: AlpacaFarm b68d7cf `rl/ppo_trainer.py` takes no mask in `whiten`, nor
    in the means of `compute_loss`.
    """
    if statistics not in STATISTICS:
        raise ValueError(
            f"statistics is {statistics!r}; it must be one of {STATISTICS}: choose "
            '"masked" to leave padding out, "padded" to repeat AlpacaFarm.'
        )
    return mask if statistics == "masked" else None


def check_shapes(**arrays: jax.Array | None) -> None:
    """Raise a ValueError that names the arrays whose shapes differ.

    Args:
      **arrays: arrays by the name a caller knows them by; None is skipped. All
        others must have one shape: nothing is broadcast in silence.
    """
    shapes = {name: jnp.shape(x) for name, x in arrays.items() if x is not None}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these arrays must have one shape, got: {listed}")


def keep(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the values as float32, with 0 where they do not count.

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.

    Returns:
      [...] float32.
    """
    check_shapes(values=values, mask=mask)
    values = jnp.asarray(values, jnp.float32)
    return values if mask is None else jnp.where(_as_bool(mask), values, 0.0)


def count(
    values: jax.Array, mask: jax.Array | None, *, axis: int | None = None
) -> jax.Array:
    """Return how many entries count.

    Args:
      values: [...] only its shape is used.
      mask: [...] bool of the same shape, or None: everything counts.
      axis: the axis to count along; None for all.

    Returns:
      float32: a scalar, or [...] without `axis`. May be 0.
    """
    return sum(jnp.ones(jnp.shape(values), jnp.float32), mask, axis=axis)


def sum(
    values: jax.Array, mask: jax.Array | None, *, axis: int | None = None
) -> jax.Array:
    """Return the sum of the entries that count: sum_i mask_i values_i.

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.
      axis: the axis to sum along; None for all.

    Returns:
      float32: a scalar, or [...] without `axis`. 0 where nothing counts.
    """
    return jnp.sum(keep(values, mask), axis=axis)


def mean(
    values: jax.Array, mask: jax.Array | None, *, axis: int | None = None
) -> jax.Array:
    """Return the mean of the entries that count.

    sum_i mask_i values_i / max(sum_i mask_i, 1)

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.
      axis: the axis to average along; None for all.

    Returns:
      float32: a scalar, or [...] without `axis`. 0 where nothing counts.
    """
    total = sum(values, mask, axis=axis)
    return total / jnp.maximum(count(values, mask, axis=axis), 1.0)


def row_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean of each row's own mean: short and long rows weigh alike.

    Args:
      values: [B, T] any real type.
      mask: [B, T] bool, True = counts.

    Returns:
      Scalar float32; rows without a counted entry are left out.
    """
    return mean(mean(values, mask, axis=1), jnp.any(mask, axis=1))


def maximum(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the largest entry that counts, of values that are not negative.

    Args:
      values: [...] >= 0, any real type.
      mask: [...] bool of the same shape, or None: everything counts.

    Returns:
      Scalar float32. 0 where nothing counts.
    """
    return jnp.max(keep(values, mask), initial=0.0)


def variance(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the population variance of the entries that count.

    mean((values - mean(values))^2), divided by the count and not by count - 1.

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.

    Returns:
      Scalar float32. 0 where nothing counts.

    Source: AlpacaFarm b68d7cf `torch_ops.whiten` (`unbiased=False`). TRL's masked
    whitening applies Bessel's correction; this does not.
    """
    centred = jnp.asarray(values, jnp.float32) - mean(values, mask)
    return mean(centred**2, mask)


def std(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return the population standard deviation of the entries that count.

    sqrt(variance(values)). A statistic to report or divide by; its gradient at 0
    is not finite.

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.

    Returns:
      Scalar float32. 0 where nothing counts.
    """
    return jnp.sqrt(variance(values, mask))


def whiten(values: jax.Array, mask: jax.Array | None, *, shift_mean: bool) -> jax.Array:
    """Return the values scaled to standard deviation 1.

    (values - m) / (s + 1e-8), plus m unless `shift_mean`, with the mean m and the
    population standard deviation s of the entries that count.

    Args:
      values: [...] any real type.
      mask: [...] bool of the same shape, or None: everything counts.
      shift_mean: True leaves mean 0; False puts the mean back.

    Returns:
      [...] float32; 0 where an entry does not count.

    Source: AlpacaFarm b68d7cf `torch_ops.whiten`, which has no mask: `mask=None`.
    """
    centre = mean(values, mask)
    whitened = (keep(values, mask) - centre) / (std(values, mask) + EPSILON)
    return keep(whitened if shift_mean else whitened + centre, mask)


def _as_bool(mask: jax.Array) -> jax.Array:
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise ValueError(
            f"a mask must be bool (True = counts), got {mask.dtype}: write "
            "`mask != 0`, or weigh the values instead."
        )
    return mask


def float32(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Return the arrays in float32."""
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)
