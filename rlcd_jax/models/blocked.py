"""Attention over long texts, or over rows of many, a block of queries at a time.

Long texts: no array of T x T scores exists, forwards or backwards. A running softmax
goes over the keys of a block of queries, and the backward pass makes each block of
scores again. Only blocks at or under the diagonal are computed, so that it is also half
the work, and of rows of several texts only blocks within reach of a text.

Short texts in wide rows: all blocks of queries at once, each beside the keys that its
tokens may see. The work of a token is then that of its text, however wide its row is.

Letters as in `models.attention`, and C tokens of a block, Z blocks, P of them before
its own that a block of queries sees.
Source: FlashAttention, arXiv 2205.14135 and 2307.08691, without its tiles of a kernel.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax.models import products

# A masked score: finite, so that differences are numbers, and rows without keys too.
NEGATIVE = -1e30
WHOLE = 2  # blocks that a text is not worth parting into: a quarter less of products
TINY = 1e-30  # a sum of no weights, above zero
# The blocks of queries that a short text is: more of them see fewer keys, and are
# smaller products. On two cores 16 of 80 tokens took four fifths of the time of 40.
SMALLEST, PARTS = 8, 6


def num_blocks(length: int, most: int) -> int:
    """Return Z, the blocks of a text: one up to `WHOLE` times `most` tokens.

    Args:
      length: T, of the text.
      most: tokens of a block at most, if there are several; 0: a text is one block.
    """
    if not most or length <= WHOLE * most:
        return 1
    return -(-length // most)


def block_tokens(length: int, most: int) -> int:
    """Return C, the tokens of the blocks of a text; arguments as of `num_blocks`."""
    return -(-length // num_blocks(length, most))


@dataclasses.dataclass(frozen=True)
class Windows:
    """Blocks of queries, each of which sees its own keys and those of some before.

    Attributes:
      size: C.
      before: P.
    """

    size: int
    before: int

    @property
    def keys(self) -> int:
        """The keys that a query is multiplied with."""
        return self.size * (self.before + 1)


def windows(length: int, most: int, reach: int) -> Windows | None:
    """Return how rows of short texts are attended to; None: not in windows.

    Args:
      length: T, of a row.
      most: tokens of a block at most of what is read in blocks, which a text is that
        has too many keys; 0: nothing is.
      reach: tokens of a text at most; 0: T.
    """
    if not reach:
        return None
    size = -(-max(reach - 1, 1) // (PARTS * SMALLEST)) * SMALLEST
    found = Windows(size, -(-(reach - 1) // size))
    fits = not most or found.keys <= WHOLE * most
    return found if fits and found.keys < length else None


def blocks_before(length: int, most: int, reach: int) -> int:
    """Return P of the blocks of a long text, or of a row of texts; as of `windows`."""
    return _before(num_blocks(length, most), block_tokens(length, most), reach)


def _before(blocks: int, size: int, reach: int) -> int:
    """Return P of Z blocks of C tokens; `reach` as of `windows`."""
    return min(blocks - 1, -(-(reach - 1) // size)) if reach else blocks - 1


def mean_keys(blocks: int, size: int, reach: int) -> float:
    """Return the keys that a token is multiplied with, in the mean over blocks.

    Args:
      blocks: Z, of a row.
      size: C.
      reach: tokens of a text at most; 0: of a row.
    """
    before = _before(blocks, size, reach)
    return size * sum(min(own, before) + 1 for own in range(blocks)) / blocks


def keys_computed(length: int, most: int, reach: int = 0) -> float:
    """Return the keys that a token is multiplied with, in the mean over a row.

    All T in one block, masked ones too; elsewhere those of its block and of the blocks
    before it that are within reach. Arguments as of `windows`.
    """
    if (found := windows(length, most, reach)) is not None:
        return found.keys
    return mean_keys(num_blocks(length, most), block_tokens(length, most), reach)


def split(x: jax.Array, most: int) -> jax.Array:
    """Return [B, T, ...] as [Z, B, C, ...], the last block filled up with zeros.

    Args:
      x: an array of texts.
      most: as of `num_blocks`.
    """
    length = x.shape[1]
    return jnp.moveaxis(_parted(x, block_tokens(length, most)), 1, 0)


def _parted(x: jax.Array, size: int) -> jax.Array:
    """Return [B, T, ...] as [B, Z, C, ...], the last block filled up with zeros."""
    batch, length = x.shape[:2]
    blocks = -(-length // size)
    fill = [(0, 0)] * x.ndim
    fill[1] = (0, blocks * size - length)
    return jnp.pad(x, fill).reshape(batch, blocks, size, *x.shape[2:])


def at_once(
    q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array, dtype: str
) -> jax.Array:
    """Attend with the scores of all queries and keys at once.

    Args:
      q: [B, T, K, G, H], scaled.
      k: [B, S, K, H].
      v: [B, S, K, H].
      seen: [B, T, S] bool, which keys a query sees.
      dtype: of the products' operands.

    Returns:
      [B, T, K, G, H] float32; finite where a query sees no key.
    """
    scores = products.contract("btkgh,bskh->bkgts", q, k, dtype)
    scores = jnp.where(seen[:, None, None], scores, NEGATIVE)
    probs = jax.nn.softmax(scores, axis=-1)
    return products.contract("bkgts,bskh->btkgh", probs, v, dtype)


def in_windows(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    sees: jax.Array,
    texts: jax.Array,
    *,
    found: Windows,
    dtype: str,
) -> jax.Array:
    """Attend to earlier tokens of the text that a token sees, where texts are short.

    Args:
      q: as in `causal_attention`.
      k: likewise.
      v: likewise.
      sees: likewise.
      texts: likewise.
      found: as `windows` gives it.
      dtype: of the products' operands.

    Returns:
      [B, T, K * G * H] float32; finite where a query sees no key.
    """
    batch, length = sees.shape
    size, before = found.size, found.before

    def beside(x: jax.Array) -> jax.Array:  # [B * Z, P * C + C, ...]
        x = _parted(x, size)
        earlier = [
            jnp.pad(x, [(0, 0), (by, 0)] + [(0, 0)] * (x.ndim - 2))[:, : x.shape[1]]
            for by in range(before, -1, -1)
        ]
        return jnp.concatenate(earlier, axis=2).reshape(-1, found.keys, *x.shape[3:])

    k, v = (beside(x.astype(products.operands(dtype))) for x in (k, v))
    sees, known = _parted(sees, size).reshape(-1, size, 1), beside(texts)[:, None]
    steps = before * size + jnp.arange(size)[:, None]
    seen = (sees == known) & (known > 0) & (jnp.arange(found.keys) <= steps)
    q = _parted(q, size).reshape(-1, size, *q.shape[2:])
    out = at_once(q, k, v, seen, dtype).reshape(batch, -1, math.prod(q.shape[2:]))
    return out[:, :length]


def causal_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    sees: jax.Array,
    texts: jax.Array,
    *,
    most: int,
    reach: int,
    dtype: str,
) -> jax.Array:
    """Attend to earlier tokens of the text that a token sees.

    Args:
      q: [B, T, K, G, H] float32, scaled.
      k: [B, T, K, H] float32.
      v: [B, T, K, H] float32.
      sees: [B, T] int32, number of the text whose tokens a query sees.
      texts: [B, T] int32, number of each key's text; 0: nobody sees it.
      most: tokens of a block at most.
      reach: tokens of a text at most; 0: T.
      dtype: of the products' operands.

    Returns:
      [B, T, K * G * H] float32; zero where a query sees no key.
    """
    batch, length, kv_heads, group, width = q.shape
    out = _attend(  # what fills the last block sees nothing, and nothing sees it
        dtype,
        blocks_before(length, most, reach),
        jnp.moveaxis(split(q, most), 2, 4),  # [Z, B, K, G, C, H]
        jnp.moveaxis(split(k, most), 2, 3),  # [Z, B, K, C, H]
        jnp.moveaxis(split(v, most), 2, 3),
        split(sees, most),
        split(texts, most),
    )
    out = jnp.moveaxis(out, (0, 4), (1, 2))  # [B, Z, C, K, G, H]
    out = out.reshape(batch, -1, kv_heads * group * width)
    return out[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(dtype: str, before: int, q, k, v, sees, texts) -> jax.Array:
    """Return what each query sees, [Z, B, K, G, C, H]; arrays as `split` makes them."""
    return _forward(dtype, before, q, k, v, sees, texts)[0]


def _forward(dtype: str, before: int, q, k, v, sees, texts) -> tuple[jax.Array, Any]:
    def rows(one):
        here, q_here, sees_here = one

        def column(there, carry):
            top, total, mixed = carry
            scores, seen = _scores(dtype, here, there, q_here, k, sees_here, texts)
            higher = jnp.maximum(top, jnp.max(scores, axis=-1))
            weights = jnp.where(seen, jnp.exp(scores - higher[..., None]), 0.0)
            shrunk = jnp.exp(top - higher)
            added = products.contract("bkgts,bksh->bkgth", weights, v[there], dtype)
            return (
                higher,
                total * shrunk + jnp.sum(weights, axis=-1),
                mixed * shrunk[..., None] + added,
            )

        empty = jnp.zeros(q_here.shape[:-1], jnp.float32)
        start = (empty + NEGATIVE, empty, jnp.zeros(q_here.shape, jnp.float32))
        first = jnp.maximum(here - before, 0)
        top, total, mixed = jax.lax.fori_loop(first, here + 1, column, start)
        total = jnp.maximum(total, TINY)
        return mixed / total[..., None], top + jnp.log(total)

    out, sums = jax.lax.map(rows, (jnp.arange(q.shape[0]), q, sees))
    return out, (q, k, v, sees, texts, out, sums)


def _backward(dtype: str, before: int, saved, cotangent: jax.Array):
    q, k, v, sees, texts, out, sums = saved
    through = jnp.sum(cotangent * out, axis=-1)  # [Z, B, K, G, C]

    def rows(carry, one):
        here, q_here, sees_here, sums_here, d_out, d_sum = one

        def column(there, carry):
            d_q, d_k, d_v = carry
            scores, seen = _scores(dtype, here, there, q_here, k, sees_here, texts)
            probs = jnp.where(seen, jnp.exp(scores - sums_here[..., None]), 0.0)
            of_v = products.contract("bkgts,bkgth->bksh", probs, d_out, dtype)
            d_probs = products.contract("bkgth,bksh->bkgts", d_out, v[there], dtype)
            d_scores = probs * (d_probs - d_sum[..., None])
            of_k = products.contract("bkgts,bkgth->bksh", d_scores, q_here, dtype)
            of_q = products.contract("bkgts,bksh->bkgth", d_scores, k[there], dtype)
            return d_q + of_q, d_k.at[there].add(of_k), d_v.at[there].add(of_v)

        start = (jnp.zeros(q_here.shape, jnp.float32), *carry)
        first = jnp.maximum(here - before, 0)
        d_q, *carry = jax.lax.fori_loop(first, here + 1, column, start)
        return tuple(carry), d_q

    start = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    given = (jnp.arange(q.shape[0]), q, sees, sums, cotangent, through)
    (d_k, d_v), d_q = jax.lax.scan(rows, start, given)
    kinds = zip((d_q, d_k, d_v), (q, k, v), strict=True)
    return (*(new.astype(old.dtype) for new, old in kinds), None, None)


_attend.defvjp(_forward, _backward)


def _scores(
    dtype: str, here, there, q_here, k, sees_here, texts
) -> tuple[jax.Array, jax.Array]:
    """Return masked scores of a block of queries and one of keys, and what is seen.

    Scores are [B, K, G, C, C] float32; what is seen is [B, 1, 1, C, C] bool.
    """
    size = sees_here.shape[1]
    steps, known = jnp.arange(size), texts[there][:, None, :]
    before = there * size + steps <= (here * size + steps)[:, None]
    seen = before & (sees_here[:, :, None] == known) & (known > 0)
    seen = seen[:, None, None]
    scores = products.contract("bkgth,bksh->bkgts", q_here, k[there], dtype)
    return jnp.where(seen, scores, NEGATIVE), seen
