"""One new token a slot: its key and value are put into the cache, and it attends.

A kernel of ours for NVIDIA GPUs, by Pallas and Triton, in the place of two scatters and
cuDNN's attention, which is made for many queries: a step of decoding does little but
read, and here it reads the live entries of each slot once, and nothing else. A program
does a key/value head of a slot; the new entry is in its registers when it is written.

Letters as in `models.llama`.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import blocked, pallas_triton

CACHE = ("slots", None, "kv_heads", None)  # logical axes of keys and values on GPUs
IDLE = -1  # place of a token that does not count
BLOCK = 64  # entries that a program reads at once
ROWS = 16  # of queries: the fewest that Triton multiplies
WARPS, STAGES = 4, 2
FEWEST = 48  # programs, of which it was seen to be faster; cuDNN splits a slot's keys
MOST = 2**31  # numbers of a cache: places are counted in 32 bits
INTERPRET = False  # tests set it: the same arithmetic as plain operations, anywhere


def fits(cache: tuple[int, ...], queries: tuple[int, ...]) -> bool:
    """Return whether the kernel is the one for new tokens.

    Args:
      cache: shape of the keys on all devices, [M, S, K, H].
      queries: of the queries, [M, T, N, H].
    """
    slots, entries, kv_heads, width = sharding.shape_of_device(cache, CACHE)
    return (
        pallas_triton.find() is not None
        and queries[1] == 1
        and width >= ROWS
        and width & (width - 1) == 0  # Triton's arrays are powers of two
        and queries[2] <= ROWS * cache[2]
        and slots * kv_heads >= FEWEST
        and slots * entries * kv_heads * width < MOST
    )


def attend(
    q: jax.Array,
    new: tuple[jax.Array, jax.Array],
    cache: tuple[jax.Array, jax.Array],
    places: jax.Array,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Add a token to each slot and attend from it to all before it and itself.

    Args:
      q: [M, N, H], of the cache's dtype, as all that follows.
      new: key and value of the token, [M, K, H] each.
      cache: keys and values of a layer, [M, S, K, H] each; they are used up.
      places: [M] int32, where the token belongs, or `IDLE`: it is not added, and what
        it sees is only itself.

    Returns:
      [M, N, H], and the cache with the tokens.
    """
    one = _attend
    if jax.sharding.get_abstract_mesh().size > 1:
        entries = sharding.partition_spec(CACHE)
        heads = sharding.partition_spec((*CACHE[:1], *CACHE[2:]))
        one = jax.shard_map(
            _attend,
            in_specs=(
                *(heads, heads, heads),
                *(entries, entries),
                sharding.partition_spec(CACHE[:1]),
            ),
            out_specs=(heads, entries, entries),
            check_vma=False,
        )
    out, keys, values = one(q, *new, *cache, places)
    return out, (keys, values)


def _attend(q, new_key, new_value, keys, values, places):
    from jax.experimental import pallas

    slots, entries, kv_heads, width = keys.shape
    heads = q.shape[1]
    group = heads // kv_heads
    # As one array it is made in one pass, rotation and all.
    new = jnp.concatenate([q, new_key, new_value], axis=1)

    def rows(count: int, first: int = 0) -> pallas.BlockSpec:
        return pallas.BlockSpec((None, count, width), lambda k, m: (m, first + k, 0))

    own = pallas.BlockSpec((None, entries, None, width), lambda k, m: (m, 0, k, 0))
    kernel = functools.partial(_program, group=group, scale=1 / math.sqrt(width))
    return pallas.pallas_call(
        kernel,
        grid=(kv_heads, slots),
        in_specs=[
            *(rows(group), rows(1, heads), rows(1, heads + kv_heads), own, own),
            pallas.BlockSpec((None,), lambda k, m: (m,)),
        ],
        out_specs=[rows(group), own, own],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, keys, values)],
        input_output_aliases={3: 1, 4: 2},
        compiler_params=pallas_triton.find().CompilerParams(
            num_warps=WARPS, num_stages=STAGES
        ),
        interpret=INTERPRET,
        name="one_query",
    )(new, new, new, keys, values, places)


def _program(
    q,
    new_key,
    new_value,
    keys,
    values,
    place,
    out,
    keys_out,
    values_out,
    *,
    group,
    scale,
):
    """Do one key/value head of one slot; arguments are the kernel's views of arrays."""
    from jax.experimental import pallas

    triton = pallas_triton.find()
    count = place[()]  # of the entries before the new one, which are read
    mine = (jnp.arange(ROWS) < group)[:, None]
    queries = triton.load(q.at[pallas.ds(0, ROWS), :], mask=mine, other=0.0)
    key, value = new_key[...], new_value[...]  # [1, H]
    is_there = (count >= 0) & (jnp.arange(1) == 0)[:, None]
    at = pallas.ds(jnp.maximum(count, 0), 1)
    triton.store(keys_out.at[at, :], key, mask=is_there)
    triton.store(values_out.at[at, :], value, mask=is_there)

    def dot(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.dot(left, right, preferred_element_type=jnp.float32)

    def block(index, carry):
        top, total, mixed = carry
        entries = index * BLOCK + jnp.arange(BLOCK)
        seen = entries < count
        here = pallas.ds(index * BLOCK, BLOCK)
        some_keys = triton.load(keys.at[here, :], mask=seen[:, None], other=0.0)
        some_values = triton.load(values.at[here, :], mask=seen[:, None], other=0.0)
        scores = jnp.where(
            seen[None], dot(queries, some_keys.T) * scale, blocked.NEGATIVE
        )
        higher = jnp.maximum(top, jnp.max(scores, axis=1))
        less, weights = jnp.exp(top - higher), jnp.exp(scores - higher[:, None])
        mixed = mixed * less[:, None] + dot(
            weights.astype(some_values.dtype), some_values
        )
        return higher, total * less + jnp.sum(weights, axis=1), mixed

    # The new token first: it is seen in any case, so that no sum is of nothing.
    wide = jnp.float32
    top = jnp.sum(queries.astype(wide) * key.astype(wide), axis=1) * scale
    first = (
        top,
        jnp.ones(ROWS, wide),
        jnp.zeros(queries.shape, wide) + value.astype(wide),
    )
    blocks = pallas.cdiv(jnp.maximum(count, 0), BLOCK)
    _, total, mixed = jax.lax.fori_loop(0, blocks, block, first)
    mixed = (mixed / total[:, None]).astype(out.dtype)
    triton.store(out.at[pallas.ds(0, ROWS), :], mixed, mask=mine)
