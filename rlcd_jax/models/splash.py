"""JAX's splash attention for TPUs over rows of several texts: no scores are stored.

The kernel goes over blocks of queries and keys in the chip's own memory, and leaves out
blocks above the diagonal, forwards and backwards, and those that are farther away than
a text is long. It is told the number of the text that each token is of. JAX's
partitioner does not know how to split it: on a mesh each device calls it for its own
rows and heads.

Letters as in `models.attention`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import blocked, products

LANES = 128  # of a TPU's vector: blocks are whole multiples of it
LARGEST = 512  # block of tokens: scores of one, float32, are a MiB of the chip's memory
UNSEEN = -1  # number of a key that nobody sees
INTERPRET = False  # tests set it: the same arithmetic as plain operations, anywhere


def block_tokens(length: int) -> int:
    """Return the tokens of a block of rows of `length`: few steps, all of one size."""
    blocks = -(-length // LARGEST)
    return -(-length // (blocks * LANES)) * LANES


def padded(length: int) -> int:
    """Return the tokens that the kernel reads of a row of `length`: whole blocks."""
    size = block_tokens(length)
    return -(-length // size) * size


def keys_computed(length: int, reach: int = 0) -> float:
    """Return the keys that a token is multiplied with, in the mean over a row.

    Args:
      length: of the row.
      reach: tokens of a text at most; 0: as many as the row.
    """
    size = block_tokens(length)
    return blocked.mean_keys(padded(length) // size, size, reach)


def causal_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    dtype: str,
    reach: int = 0,
) -> jax.Array:
    """Attend to earlier tokens of the same text that are seen.

    Args:
      q: [B, T, N, H] float32.
      k: [B, T, K, H] float32.
      v: [B, T, K, H] float32.
      mask: [B, T], bool or int32, as `attention.causal_attention` takes it; a token of
        a text sees one of its tokens at least, such as itself.
      dtype: of the products' operands, "bfloat16": the kernel asks TPUs for no more
        than they give by themselves, which of float32 is less than all of it.
      reach: tokens of a text at most; 0: as many as a row.

    Returns:
      [B, T, N * H] float32; zero where a token is of no text.
    """
    q = q / math.sqrt(q.shape[-1])
    arrays = *(x.astype(dtype) for x in (q, k, v)), mask.astype(jnp.int32)
    mesh = jax.sharding.get_abstract_mesh()
    attend = functools.partial(_attend, reach)
    if mesh.size > 1:
        heads = sharding.partition_spec(("batch", "length", "heads", None))
        numbers = sharding.partition_spec(("batch", "length"))
        attend = jax.shard_map(
            attend,
            in_specs=(heads, heads, heads, numbers),
            out_specs=heads,
            check_vma=False,
        )
    out = attend(*arrays)
    # A query that sees no key has the mean of all values: as none asks for it, no
    # gradient goes anywhere from there either.
    out = jnp.where((mask != 0)[:, :, None, None], out, 0)
    return out.reshape(*out.shape[:2], -1).astype(jnp.float32)


def _attend(
    reach: int, q: jax.Array, k: jax.Array, v: jax.Array, numbers: jax.Array
) -> jax.Array:
    """Return what the queries of one device see, [B, T, N, H] in their dtype."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    length, heads = q.shape[1:3]
    more = padded(length) - length
    q, k, v = (
        jnp.swapaxes(jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))), 1, 2)
        for x in (q, k, v)
    )
    numbers = jnp.pad(numbers, ((0, 0), (0, more)))
    texts = splash_attention.SegmentIds(
        q=jnp.abs(numbers), kv=jnp.where(numbers > 0, numbers, UNSEEN)
    )
    out = jax.vmap(_kernel(length, heads, reach))(q, k, v, texts)
    return jnp.swapaxes(out, 1, 2)[:, :length]


def _kernel(length: int, heads: int, reach: int) -> Callable[..., jax.Array]:
    """Return the kernel of a row: (q [N, T, H], k, v [K, T, H], texts) -> [N, T, H].

    JAX's kernels for TPUs take a tenth of the time in which a command starts, so that
    they are loaded where they are used.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    size = block_tokens(length)
    one = kernels.CausalMask((padded(length), padded(length)))
    if 0 < reach < length:
        one = kernels.LocalMask(one.shape, window_size=(reach - 1, 0), offset=0)
    return kernels.make_splash_mha(
        kernels.MultiHeadMask([one] * heads),
        block_sizes=kernels.BlockSizes(
            block_q=size,
            block_kv=size,
            block_q_dkv=size,
            block_kv_dkv=size,
            block_q_dq=size,
            block_kv_dq=size,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=products.NAME,
        interpret=INTERPRET,
    )
