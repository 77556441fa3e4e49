"""Matrix products with explicit precision, forwards and backwards.

A product casts its two operands to the compute dtype and accumulates in float32; its
result is float32. A bfloat16 *output* would be several times slower on CPU and would
round the residual stream everywhere, so it is never asked for. The transposes of a
mixed-precision product would multiply a float32 cotangent with a bfloat16 operand,
which no hardware has: ``contract`` casts the cotangent first.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> jax.Array:
    """Return ``einsum(spec, left, right)`` in float32 from operands in ``dtype``.

    Args:
      spec: einsum of two operands, such as "btd,fd->btf"; each index of an operand
        must be in the other operand or in the result, so that both transposes exist.
      left: any floating array.
      right: any floating array.
      dtype: "bfloat16" or "float32", the dtype in which the operands are multiplied.

    Returns:
      float32 array. Its cotangent is multiplied in ``dtype`` too; cotangents have the
      dtype of the operand they belong to.
    """
    return jnp.einsum(
        spec,
        left.astype(dtype),
        right.astype(dtype),
        preferred_element_type=jnp.float32,
        precision=precision(dtype),
    )


def precision(dtype: str) -> jax.lax.Precision | None:
    """Return the precision of a product: full float32 also where TPUs round it."""
    return jax.lax.Precision.HIGHEST if dtype == "float32" else None


def _forward(spec: str, left: jax.Array, right: jax.Array, dtype: str):
    return contract(spec, left, right, dtype), (left, right)


def _backward(spec: str, dtype: str, saved, cotangent: jax.Array):
    left, right = saved
    operands, result = spec.split("->")
    first, second = operands.split(",")
    d_left = contract(f"{result},{second}->{first}", cotangent, right, dtype)
    d_right = contract(f"{result},{first}->{second}", cotangent, left, dtype)
    return d_left.astype(left.dtype), d_right.astype(right.dtype)


contract.defvjp(_forward, _backward)


def product(x: jax.Array, weight: jax.Array, dtype: str) -> jax.Array:
    """Return ``x @ weight.T`` in float32.

    Args:
      x: [..., I]; at most four dimensions.
      weight: [O, I], the layout of Hugging Face files: both operands are contracted
        over their last axis, which reads each row of the weight once.
      dtype: "bfloat16" or "float32".

    Returns:
      [..., O] float32.
    """
    lead = "abce"[: x.ndim - 1]
    return contract(f"{lead}i,oi->{lead}o", x, weight, dtype)
