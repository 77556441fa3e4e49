"""The product of few rows with a large matrix, for NVIDIA GPUs.

A decode step of few slots does little but read matrices. A kernel of ours, by Pallas
and Triton, reads those of a layer faster there than what XLA takes for them: each
program multiplies all rows with some of the matrix's, and where these are too few to
busy the processors, with a part of their columns; XLA adds the parts up in the pass
that takes the product. It is for the sizes that it was measured with.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import pallas_triton

TILE = 64  # of the matrix's rows that a program reads
DEPTH = 128  # columns that it reads at once
WARPS, STAGES = 4, 4
PROGRAMS = 128  # that busy all processors, of which a large GPU has 132
MOST_PARTS = 8
ROWS = 64  # that a program multiplies; fewer than half of them are XLA's
SMALLEST, LARGEST = 2**24, 2**26  # numbers of a matrix: XLA reads others as fast
INTERPRET = False  # tests set it: the same arithmetic as plain operations, anywhere


def fits(rows: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Return whether the kernel is the one for a product.

    Args:
      rows: shape of the rows on all devices, [..., I], the first of its axes "slots".
      weight: of the matrix, which each device has whole, [O, I].
    """
    out, into = weight
    count = math.prod(sharding.shape_of_device(rows, _axes(len(rows)))[:-1])
    return (
        pallas_triton.find() is not None
        and ROWS // 2 < count <= ROWS
        and out % TILE == 0
        and into % DEPTH == 0
        and SMALLEST <= out * into <= LARGEST
    )


def _axes(count: int) -> tuple[str | None, ...]:
    """Return the logical axes of rows that have so many."""
    return ("slots", *(None,) * (count - 1))


def product(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """Return `rows @ weight.T`, summed in float32.

    Args:
      rows: [..., I], at most `ROWS`, of any floating dtype; multiplied in that of the
        matrix.
      weight: [O, I], bfloat16 on GPUs.

    Returns:
      [..., O], of the dtype of the matrix.
    """
    rows = rows.astype(weight.dtype)
    one = _product
    if jax.sharding.get_abstract_mesh().size > 1:
        spec = sharding.partition_spec(_axes(rows.ndim))
        one = jax.shard_map(
            _product,
            in_specs=(spec, sharding.partition_spec((None, None))),
            out_specs=spec,
            check_vma=False,
        )
    return one(rows, weight)


def _product(given, weight):
    from jax.experimental import pallas

    out, into = weight.shape
    rows = given.reshape(-1, into)
    count = rows.shape[0]
    parts = parts_of(out, into)
    sums = pallas.pallas_call(
        functools.partial(_program, steps=into // DEPTH // parts),
        grid=(out // TILE, parts),
        in_specs=[
            pallas.BlockSpec((count, into), lambda n, k: (0, 0)),
            pallas.BlockSpec((TILE, into), lambda n, k: (n, 0)),
        ],
        out_specs=pallas.BlockSpec((None, count, TILE), lambda n, k: (k, 0, n)),
        out_shape=jax.ShapeDtypeStruct(
            (parts, count, out), weight.dtype if parts == 1 else jnp.float32
        ),
        compiler_params=pallas_triton.find().CompilerParams(
            num_warps=WARPS, num_stages=STAGES
        ),
        interpret=INTERPRET,
        name="few_rows",
    )(rows, weight)
    whole = sums[0] if parts == 1 else jnp.sum(sums, axis=0).astype(weight.dtype)
    return whole.reshape(*given.shape[:-1], out)


def parts_of(out: int, into: int) -> int:
    """Return among how many programs the columns of a matrix [O, I] are divided."""
    parts = 1
    while (
        parts < MOST_PARTS
        and out // TILE * parts < PROGRAMS
        and into % (2 * parts * DEPTH) == 0
    ):
        parts *= 2
    return parts


def _program(rows, weight, out, *, steps: int):
    """Do some rows of the matrix, of a part of its columns; arguments are views."""
    from jax.experimental import pallas

    triton = pallas_triton.find()
    is_there = (jnp.arange(ROWS) < rows.shape[0])[:, None]
    mask = {} if rows.shape[0] == ROWS else {"mask": is_there, "other": 0.0}
    all_rows = pallas.ds(0, ROWS)
    first = pallas.program_id(1) * steps * DEPTH

    def step(index, total):
        here = pallas.ds(first + index * DEPTH, DEPTH)
        some = triton.load(rows.at[all_rows, here], **mask)
        matrix = triton.load(weight.at[:, here])
        return total + jnp.dot(some, matrix.T, preferred_element_type=jnp.float32)

    total = jnp.zeros((ROWS, TILE), jnp.float32)
    total = jax.lax.fori_loop(0, steps, step, total).astype(out.dtype)
    triton.store(out.at[all_rows, :], total, mask=is_there)
