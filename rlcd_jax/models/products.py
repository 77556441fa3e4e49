"""Matrix products with explicit precision, forwards and backwards.

A product casts its two operands to the compute dtype and accumulates in float32; its
result is float32. A bfloat16 *result* is several times slower on CPU; GPUs write and
read it in half the time, which is a third of a layer's there, so that it is a dtype of
its own, `NARROW`. Gradients of weights are float32 with it too. The transposes of a
mixed-precision product would multiply a float32 cotangent with a bfloat16 operand,
which no hardware has: `contract` casts the cotangent first.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import ad_checkpoint

NAME = "product"  # by which rematerialisation knows what to keep
FEWEST_ROWS, FEW_ROWS = 8, 64  # between them CPUs multiply weights with rows
NARROW = "narrow"  # for `dtype`: operands and results of products are bfloat16


def operands(dtype: str) -> str:
    """Return the dtype of the operands of a product."""
    return "bfloat16" if dtype == NARROW else dtype


def results(dtype: str) -> str:
    """Return the dtype of its result."""
    return "bfloat16" if dtype == NARROW else "float32"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract(spec: str, left: jax.Array, right: jax.Array, dtype: str) -> jax.Array:
    """Return `einsum(spec, left, right)`, summed in float32, of operands in `dtype`.

    Args:
      spec: einsum of two operands, such as "btd,fd->btf"; each index of an operand
        must be in the other operand or in the result, so that both transposes exist.
      left: any floating array.
      right: any floating array.
      dtype: "bfloat16" or "float32", in which the operands are multiplied, or
        `NARROW`.

    Returns:
      An array of dtype `results(dtype)`. Its cotangent is multiplied in `dtype` too;
      cotangents have the dtype of the operand they belong to.
    """
    return jnp.einsum(
        spec,
        left.astype(operands(dtype)),
        right.astype(operands(dtype)),
        preferred_element_type=jnp.dtype(results(dtype)),
        precision=precision(dtype),
    )


def precision(dtype: str) -> jax.lax.Precision | None:
    """Return the precision of a product: full float32 also where TPUs round it."""
    return jax.lax.Precision.HIGHEST if dtype == "float32" else None


def _forward(spec: str, left: jax.Array, right: jax.Array, dtype: str):
    return contract(spec, left, right, dtype), (left, right)


def _backward(spec: str, dtype: str, saved, cotangent: jax.Array):
    left, right = saved
    d_left, d_right = _transposes(spec, dtype, saved, cotangent)
    return d_left.astype(left.dtype), d_right.astype(right.dtype)


def _transposes(
    spec: str, dtype: str, saved: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the cotangents of both operands, the right one's, a weight's, float32."""
    left, right = saved
    indices, result = spec.split("->")
    first, second = indices.split(",")
    return (
        contract(f"{result},{second}->{first}", cotangent, right, dtype),
        contract(f"{result},{first}->{second}", cotangent, left, operands(dtype)),
    )


contract.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def contract_cast(
    spec: str, left: jax.Array, cast: jax.Array, right: jax.Array, dtype: str
) -> jax.Array:
    """Return `contract(spec, left, right, dtype)` where `right` was cast before.

    For loops that use a weight again and again: its cast is made once, and the
    gradient, summed over the loop in the dtype of `right`, is as exact as without.

    Args:
      spec: as in `contract`.
      left: any floating array.
      cast: `right` in `dtype`; no gradient goes to it.
      right: whose gradient is wanted; its values are not read.
      dtype: as in `contract`.
    """
    del right
    return contract(spec, left, cast, dtype)


def _forward_cast(spec, left, cast, right, dtype):
    like = jnp.zeros((), right.dtype)
    return contract(spec, left, cast, dtype), (left, cast, like)


def _backward_cast(spec: str, dtype: str, saved, cotangent: jax.Array):
    left, cast, like = saved
    d_left, d_right = _transposes(spec, dtype, (left, cast), cotangent)
    return d_left.astype(left.dtype), None, d_right.astype(like.dtype)


contract_cast.defvjp(_forward_cast, _backward_cast)


class CastOnce(NamedTuple):
    """A weight for `product`, cast before: see `contract_cast`."""

    cast: jax.Array
    whole: jax.Array


@flax.struct.dataclass
class Quantized:
    """A frozen weight for `product` in eight bits, read as `values * scale`.

    Attributes:
      values: [..., O, I] int8.
      scale: [..., O, 1] float32, of each row.
    """

    values: jax.Array
    scale: jax.Array


def matrix(weight: jax.Array | Quantized, dtype: str) -> jax.Array:
    """Return a frozen weight as one array in `dtype`."""
    if isinstance(weight, Quantized):
        weight = weight.values.astype(jnp.float32) * weight.scale
    return weight.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def contract_frozen(
    spec: str, left: jax.Array, right: jax.Array | Quantized, dtype: str
) -> jax.Array:
    """Return `contract(spec, left, right, dtype)` where `right` is not trained.

    No gradient goes to it, so that none is computed: a third of the work of training.
    One in eight bits is kept as such for the backward pass, and is a matrix for as
    long as a product reads it.
    """
    return contract(spec, left, matrix(right, operands(dtype)), dtype)


def _forward_frozen(spec, left, right, dtype):
    like = jnp.zeros((), left.dtype)
    return contract_frozen(spec, left, right, dtype), (right, like)


def _backward_frozen(spec: str, dtype: str, saved, cotangent: jax.Array):
    right, like = saved
    indices, result = spec.split("->")
    first, second = indices.split(",")
    right = matrix(right, operands(dtype))
    d_left = contract(f"{result},{second}->{first}", cotangent, right, dtype)
    return d_left.astype(like.dtype), None


contract_frozen.defvjp(_forward_frozen, _backward_frozen)


@flax.struct.dataclass
class Adapted:
    """A weight for `product` that is read as `weight + scale * b @ a`.

    The weight is frozen and may be shared by several models; only the other two are
    trained, and the sum is never made but by `whole`. All may have layers in front.

    Attributes:
      weight: [O, I], of any floating dtype or in eight bits.
      a: [R, I].
      b: [O, R].
      scale: of the product of the two.

    Source: LoRA, arXiv 2106.09685.
    """

    weight: jax.Array | Quantized
    a: jax.Array | CastOnce
    b: jax.Array | CastOnce
    scale: float = flax.struct.field(pytree_node=False)


def whole(weight: jax.Array | Quantized | Adapted) -> jax.Array:
    """Return a weight as one array: of an adapted one the sum, in float32."""
    if isinstance(weight, Quantized):
        return matrix(weight, "float32")
    if not isinstance(weight, Adapted):
        return weight
    added = jnp.einsum(
        "...or,...ri->...oi",
        weight.b.astype(jnp.float32),
        weight.a.astype(jnp.float32),
        precision=precision("float32"),
    )
    return matrix(weight.weight, "float32") + weight.scale * added


Weight = jax.Array | CastOnce | Quantized | Adapted


def product(x: jax.Array, weight: Weight, dtype: str) -> jax.Array:
    """Return `x @ weight.T`.

    Args:
      x: [..., I]; at most four dimensions.
      weight: [O, I], the layout of Hugging Face files: both operands are contracted
        over their last axis, which reads each row of the weight once.
      dtype: as in `contract`.

    Returns:
      [..., O] of dtype `results(dtype)`.
    """
    return ad_checkpoint.checkpoint_name(_multiply(x, weight, dtype), NAME)


def _multiply(x: jax.Array, weight: Weight, dtype: str) -> jax.Array:
    """Return `product` without its name, by which what is in between is not kept."""
    lead = "abce"[: x.ndim - 1]
    rows_first = f"{lead}i,oi->{lead}o"
    if isinstance(weight, Adapted):
        added = _multiply(_multiply(x, weight.a, dtype), weight.b, dtype)
        kept = contract_frozen(rows_first, x, weight.weight, dtype)
        return kept + weight.scale * added
    if isinstance(weight, Quantized):
        return contract_frozen(rows_first, x, weight, dtype)
    if isinstance(weight, CastOnce):
        return contract_cast(rows_first, x, *weight, dtype)
    if math.prod(x.shape[:-1]) == 1 and operands(dtype) == "bfloat16":
        on_cpu = _beside_zeros
    elif are_few(x):
        on_cpu = _weight_first
    else:
        return contract(rows_first, x, weight, dtype)
    return jax.lax.platform_dependent(
        x,
        weight,
        cpu=functools.partial(on_cpu, dtype),
        default=lambda x, weight: contract(rows_first, x, weight, dtype),
    )


def are_few(x: jax.Array) -> bool:
    """Return whether a CPU multiplies a weight with these rows, not them with it.

    On two cores 32 rows took 0.25 ms so in place of 0.33, 64 took 0.37 in place of
    0.57 and 128 as long as the other way round; 2 took 0.34 ms in place of 0.25.
    """
    return FEWEST_ROWS < math.prod(x.shape[:-1]) <= FEW_ROWS


def _weight_first(dtype: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the product computed as `weight @ x.T`."""
    lead = "abce"[: x.ndim - 1]
    out = contract(f"oi,{lead}i->o{lead}", weight, x, dtype)
    # Or XLA would turn the two operands round again.
    return jnp.moveaxis(jax.lax.optimization_barrier(out), 0, -1)


def _beside_zeros(dtype: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the product of a lone row, computed with a second one, of zeros.

    XLA for CPUs multiplies a matrix with one row by other code, which in bfloat16 takes
    three to five times as long as two rows do. The barriers keep it from seeing that
    they are one.
    """
    two = jnp.pad(x.reshape(1, -1), ((0, 1), (0, 0)))
    two = jax.lax.optimization_barrier(two)
    out = jax.lax.optimization_barrier(contract("bi,oi->bo", two, weight, dtype))
    return out[:1].reshape(*x.shape[:-1], -1)


def gated(x: jax.Array, gate_up: jax.Array, down: jax.Array, dtype: str) -> jax.Array:
    """Return `down(silu(gate(x)) * up(x))` of few rows, as a CPU is fastest at it.

    All in between has rows as its last axis, as products of a weight with rows leave
    and want it, so that nothing is transposed there.

    Args:
      x: [..., I].
      gate_up: [2 * F, I], one below the other.
      down: [O, F].
      dtype: as in `contract`.

    Returns:
      [..., O] of dtype `results(dtype)`.
    """
    rows = x.reshape(-1, x.shape[-1])
    both = contract("oi,bi->ob", gate_up, rows, dtype)
    gate, up = jnp.split(jax.lax.optimization_barrier(both), 2)
    inner = jax.nn.silu(gate.astype(jnp.float32)) * up
    out = jax.lax.optimization_barrier(contract("oi,ib->ob", down, inner, dtype))
    return out.T.reshape(*x.shape[:-1], -1)
