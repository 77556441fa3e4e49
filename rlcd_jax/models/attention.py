"""Attention over whole texts, and rotary positions.

Plain functions of arrays and numbers; `models.llama` calls them. Letters as there:
B batch, T queries, S keys, N query heads, K key/value heads, G = N/K, H head width.
`kernel` is one of `llama.ATTENTION`, `dtype` that of the products' operands.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax.models import blocked, packed, splash


def rope_frequencies(
    width: int, theta: float, scaling: tuple[float, ...] | None
) -> np.ndarray:
    """Return the H/2 rotary frequencies in radians a position, float32.

    With `scaling` = (factor, low, high, original positions), wavelengths longer
    than the original context over `low` are stretched by `factor`, those shorter
    than the context over `high` are kept, and those between are blended linearly.

    Source: the LLaMA-3.1 release's rotary scaling.
    """
    frequencies = theta ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    if scaling is not None:
        factor, low, high, original_positions = scaling
        turns = original_positions * frequencies / (2 * np.pi)
        keep = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequencies = frequencies * (keep + (1 - keep) / factor)
    return frequencies.astype(np.float32)


def rope_angles(
    positions: jax.Array, frequencies: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Return cosines and sines [B, T, 1, H/2] float32 of integer positions [B, T]."""
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]


def stored_angles(
    positions: jax.Array, frequencies: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Return `rope_angles` for layers that are no loop, computed once for all of them.

    A compiler would otherwise compute a sine anew for every head of every layer. A
    barrier keeps those of GPUs and TPUs from it; XLA for CPUs drops barriers before it
    decides that, but stores what comes out of a loop: one of two passes.
    """

    def in_halves(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        flat = positions.reshape(-1)
        halves = jnp.pad(flat, (0, flat.size % 2)).reshape(2, 1, -1)
        passes = jax.lax.map(lambda half: rope_angles(half, frequencies), halves)
        width = len(frequencies)
        return tuple(
            x.reshape(-1, width)[: flat.size].reshape(*positions.shape, 1, width)
            for x in passes
        )

    return jax.lax.platform_dependent(
        positions,
        cpu=in_halves,
        default=lambda positions: jax.lax.optimization_barrier(
            rope_angles(positions, frequencies)
        ),
    )


def rotate(x: jax.Array, angles: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn each pair (i, i + H/2) of x [B, T, heads, H] by its position's angle."""
    cos, sin = angles
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )


def causal_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | packed.Texts,
    *,
    kernel: str,
    block: int,
    dtype: str,
    reach: int = 0,
) -> jax.Array:
    """Attend to earlier tokens of the same row that count.

    Args:
      q: [B, T, N, H] float32.
      k: [B, T, K, H] float32.
      v: [B, T, K, H] float32.
      mask: [B, T] bool, True where a token counts; or int32, numbers of texts, as
        `llama.hidden_states` takes them; or what `prepared` made of these.
      kernel: "xla", or "cudnn" or "splash", which never store scores.
      block: of "xla": tokens of a block at most, by which long texts are read, with
        the same result (see `models.blocked`); 0: never.
      dtype: of the products' operands.
      reach: tokens that a text of a row of several has at most; 0: as many as a row.

    Returns:
      [B, T, N * H] float32. Rows of a token that does not count are finite.
    """
    if isinstance(mask, packed.Texts):
        return packed.causal_attention(q, k, v, mask, dtype)
    if mask.dtype == jnp.bool_:
        reach = 0
    if kernel == "splash":
        return splash.causal_attention(q, k, v, mask, dtype, reach)
    batch, length = mask.shape
    found = blocked.windows(length, block, reach)
    if kernel == "xla" and (found or blocked.num_blocks(length, block) > 1):
        texts = (_grouped(q, k.shape[2]), k, v, *_texts(mask))
        if found:
            return blocked.in_windows(*texts, found=found, dtype=dtype)
        return blocked.causal_attention(*texts, most=block, reach=reach, dtype=dtype)
    seen = jnp.tril(jnp.ones((length, length), bool)) & _counts(mask)  # [B, T, S]
    if kernel == "cudnn":
        # A query that sees no key would be 0/0 in the kernel: it sees itself.
        seen = seen | jnp.eye(length, dtype=bool)
        out = jax.nn.dot_product_attention(
            *(x.astype(dtype) for x in (q, k, v)),
            mask=seen[:, None],
            implementation="cudnn",
        )
        return out.reshape(batch, length, -1).astype(jnp.float32)
    out = blocked.at_once(_grouped(q, k.shape[2]), k, v, seen, dtype)
    return out.reshape(batch, length, -1)


def prepared(mask: jax.Array, kernel: str) -> jax.Array | packed.Texts:
    """Return what `causal_attention` wants to know of a mask, once for all layers.

    Args:
      mask: [B, T], bool or int32, as there.
      kernel: as there. cuDNN reads numbers of texts as places and lengths.
    """
    if kernel == "cudnn" and mask.dtype != jnp.bool_:
        return packed.find(mask)
    return mask


def _counts(mask: jax.Array) -> jax.Array:
    """Return [B, T or 1, S] bool: which keys a query may see, were it not for order."""
    if mask.dtype == jnp.bool_:
        return mask[:, None, :]
    return (jnp.abs(mask)[:, :, None] == mask[:, None, :]) & (mask[:, None, :] > 0)


def _texts(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the numbers of the text that a query sees and a key is of, [B, T] each."""
    if mask.dtype == jnp.bool_:
        return jnp.ones(mask.shape, jnp.int32), mask.astype(jnp.int32)
    return jnp.abs(mask), jnp.maximum(mask, 0)


def _grouped(q: jax.Array, kv_heads: int) -> jax.Array:
    """Return scaled queries by key/value head, [B, T, K, G, H]."""
    batch, length, heads, width = q.shape
    q = q.reshape(batch, length, kv_heads, heads // kv_heads, width)
    return q / math.sqrt(width)
