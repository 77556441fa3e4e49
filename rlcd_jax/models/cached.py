"""Keys and values of earlier tokens, and attention that reads them.

There are two ways to add tokens, because writing one row to another place in every
slot is cheap on a GPU and dear elsewhere (and `Fresh`, where nothing is there yet):

* `Cache`: each new token is written to its place, then attention reads the cache.
  The kernels of GPUs want this: they stop at each row's own length, cuDNN's and, of
  one new token in each of many slots, `models.one_query`.
* `Draft`: new tokens go to a small window, at the same index in every slot; attention
  reads the frozen cache and the window. `merge` moves the window to its places once
  for many tokens. On CPU a scattered write costs more than a layer's products, and
  on TPU it is a serial loop as well.

Letters as in `models.llama`, and W window.
"""

from __future__ import annotations

import functools
import math

import flax.struct
import jax
import jax.numpy as jnp

from rlcd_jax.models import blocked, one_query, products, splash


@flax.struct.dataclass
class Cache:
    """Keys and values of M slots, one buffer a layer.

    Keys are [M, K, H, S] and values [M, K, S, H]: what a product sums over is the last
    axis of the few queries and the first of the many entries, as CPUs like it (one of
    32 slots over 128 entries takes 0.39 ms a layer so, the other way round 0.64; other
    compilers lay them out by themselves). With kernel "cudnn" both are [M, S, K, H],
    the order that kernel reads.
    """

    k: tuple[jax.Array, ...]
    v: tuple[jax.Array, ...]


@flax.struct.dataclass
class Draft:
    """A cache that is only read, and a window of new tokens; not for kernel "cudnn".

    Attributes:
      past: entries up to `start` are read; None where nothing is before the window.
      window: keys [M, K, H, W], values [M, K, W, H] a layer.
      start: [M] int32, position of the window's first entry.
      filled: [] int32, entries of the window that are already there.
      texts: [M, W] int32, the number of the text that an entry of the window is of;
        each sees its own there, and the past; None: there is one in each slot.
    """

    past: Cache | None
    window: Cache
    start: jax.Array
    filled: jax.Array
    texts: jax.Array | None = None


@flax.struct.dataclass
class Fresh:
    """Rows in which nothing is yet, for texts from their first token.

    For the kernels that store no scores: they read whole texts, and no cache. What
    becomes of the rows is a `Cache` as long as the texts.
    """


def init_cache(
    num_layers: int, shape: tuple[int, int, int, int], *, kernel: str, dtype: str
) -> Cache:
    """Return an empty cache; shape is (M slots, K heads, S entries, H width)."""
    slots, heads, length, width = shape
    k_shape, v_shape = (slots, heads, width, length), (slots, heads, length, width)
    if kernel == "cudnn":
        k_shape = v_shape = (slots, length, heads, width)
    return Cache(
        k=tuple(jnp.zeros(k_shape, dtype) for _ in range(num_layers)),
        v=tuple(jnp.zeros(v_shape, dtype) for _ in range(num_layers)),
    )


def length_axes(kernel: str) -> Cache:
    """Return the axis that counts entries, of keys and of values."""
    return Cache(k=1, v=1) if kernel == "cudnn" else Cache(k=3, v=2)


def entries(cache: Cache, kernel: str) -> int:
    """Return for how many entries a slot has room."""
    return cache.k[0].shape[length_axes(kernel).k]


def resize(buffer: jax.Array, length: int, axis: int) -> jax.Array:
    """Return a layer's keys or values with `length` entries: the first, or more.

    Args:
      buffer: as a `Cache` has them.
      length: entries wanted.
      axis: that counts them; see `length_axes`.
    """
    have = buffer.shape[axis]
    if length <= have:
        return jax.lax.slice_in_dim(buffer, 0, length, axis=axis)
    widths = [(0, 0)] * 4
    widths[axis] = (0, length - have)
    return jnp.pad(buffer, widths)


def take(cache: Cache, slots: jax.Array) -> Cache:
    """Return the rows of these slots."""
    return jax.tree.map(lambda buffer: buffer[slots], cache)


def put(cache: Cache, rows: Cache, slots: jax.Array, *, kernel: str) -> Cache:
    """Return the cache with the leading entries of these slots replaced by rows.

    Slots beyond the last are dropped; rows longer than the cache are cut; no slot but
    those is given twice.
    """
    axes = length_axes(kernel)

    def one(buffer: jax.Array, new: jax.Array, axis: int) -> jax.Array:
        size = min(new.shape[axis], buffer.shape[axis])
        new = jax.lax.slice_in_dim(new, 0, size, axis=axis)
        return jax.lax.platform_dependent(
            buffer,
            new,
            cpu=lambda *both: _put_by_choice(*both, slots, axis),
            default=lambda *both: _put_by_scatter(*both, slots, axis),
        )

    return Cache(
        k=tuple(one(b, n, axes.k) for b, n in zip(cache.k, rows.k, strict=True)),
        v=tuple(one(b, n, axes.v) for b, n in zip(cache.v, rows.v, strict=True)),
    )


def _put_by_scatter(buffer, new, slots, axis: int) -> jax.Array:
    where = [slice(None)] * 4
    where[0], where[axis] = slots, slice(new.shape[axis])
    return buffer.at[tuple(where)].set(new, mode="drop")


def _put_by_choice(buffer, new, slots, axis: int) -> jax.Array:
    """Choose between old and new everywhere.

    A CPU scatters bfloat16 by way of a float32 copy of the whole buffer; this is one
    pass in place, a hundred times faster.
    """
    hits = slots[:, None] == jnp.arange(buffer.shape[0])  # [B, M]
    shape = [1] * 4
    shape[axis] = buffer.shape[axis]
    inside = (jnp.arange(buffer.shape[axis]) < new.shape[axis]).reshape(shape)
    widths = [(0, 0)] * 4
    widths[axis] = (0, buffer.shape[axis] - new.shape[axis])
    rows = jnp.pad(_bits(new), widths)[jnp.argmax(hits, axis=0)]
    taken = jnp.any(hits, axis=0).reshape(-1, 1, 1, 1) & inside
    out = jnp.where(taken, rows, _bits(buffer))
    return jax.lax.bitcast_convert_type(out, buffer.dtype)


def draft(
    past: Cache | None,
    window: Cache,
    start: jax.Array,
    texts: jax.Array | None = None,
) -> Draft:
    """Return a draft with an empty window; arguments as the fields of `Draft`.

    A window of several texts is filled at once.
    """
    return Draft(past, window, start, jnp.zeros((), jnp.int32), texts)


def attend(
    cache: Cache | Draft | Fresh,
    layer: int,
    qkv: tuple[jax.Array, jax.Array, jax.Array],
    positions: jax.Array,
    mask: jax.Array,
    *,
    kernel: str,
    block: int,
    dtype: str,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Add one layer's new tokens and attend from them to all before and themselves.

    Args:
      cache: of all layers.
      layer: which one.
      qkv: queries [M, T, N, H], keys and values [M, T, K, H], float32.
      positions: [M, T] int32; for a draft, `start + filled + t`, of several texts in
        its window those that each has.
      mask: [M, T] bool; a token that does not count is not written to a Cache; in
        rows where nothing is yet such tokens stand last.
      kernel: one of `llama.ATTENTION`; "splash" is for whole texts, `Fresh`, and
        attends to entries of a cache as "xla" does.
      block: new tokens that attend at once, if they are many (see `models.blocked`).
      dtype: of the products' operands.

    Returns:
      [M, T, N * H], float32 or, as the kernel gives it, `dtype`; and the layer's new
      keys and values buffers.
    """
    q, k, v = qkv
    if isinstance(cache, Draft):
        return _attend_draft(cache, layer, qkv, block, dtype)
    if isinstance(cache, Fresh) and kernel == "splash":
        k, v = (x.astype(dtype) for x in (k, v))
        out = splash.causal_attention(q, k, v, mask, dtype)
        return out, (jnp.moveaxis(k, 1, 3), jnp.moveaxis(v, 1, 2))
    if isinstance(cache, Fresh):
        q, k, v = (x.astype(dtype) for x in qkv)
        # Padding stands behind the tokens, so that none of them sees it.
        out = jax.nn.dot_product_attention(
            q, k, v, is_causal=True, implementation="cudnn"
        )
        return out.reshape(*out.shape[:2], -1), (k, v)
    places = jnp.where(mask, positions, entries(cache, kernel))
    slot = jnp.arange(q.shape[0])[:, None]
    keys, values = (buffers[layer] for buffers in (cache.k, cache.v))
    k, v = k.astype(keys.dtype), v.astype(values.dtype)
    if kernel == "cudnn" and one_query.fits(keys.shape, q.shape):
        places = jnp.where(mask, positions, one_query.IDLE)[:, 0]
        new = (k[:, 0], v[:, 0])
        mixed, buffers = one_query.attend(
            q[:, 0].astype(dtype), new, (keys, values), places
        )
        return mixed.reshape(*q.shape[:2], -1), buffers
    if kernel == "cudnn":
        keys = keys.at[slot, places].set(k, mode="drop")
        values = values.at[slot, places].set(v, mode="drop")
        mixed = _attend_cudnn(q, keys, values, positions, block, dtype)
        return mixed, (keys, values)
    keys = keys.at[slot, :, :, places].set(k, mode="drop")
    values = values.at[slot, :, places].set(v, mode="drop")
    seen = jnp.arange(keys.shape[3]) <= positions[:, :, None]
    return _mix_blocks(q, [(keys, values, seen)], block, dtype), (keys, values)


def _attend_draft(cache: Draft, layer: int, qkv, block: int, dtype: str):
    q, k, v = qkv
    keys, values = cache.window.k[layer], cache.window.v[layer]
    at = cache.filled
    new_k = jnp.moveaxis(k, 1, 3).astype(keys.dtype)  # [M, K, H, T]
    new_v = jnp.moveaxis(v, 1, 2).astype(values.dtype)  # [M, K, T, H]
    keys, values = _write(keys, new_k, at, 3), _write(values, new_v, at, 2)
    queries = jnp.arange(q.shape[1])[:, None]
    seen = (jnp.arange(keys.shape[3]) <= at + queries)[None]  # [1, T, W]
    if cache.texts is not None:
        seen &= cache.texts[:, :, None] == cache.texts[:, None]
    parts = [(keys, values, seen)]
    if cache.past is not None:
        past_k, past_v = cache.past.k[layer], cache.past.v[layer]
        before = jnp.arange(entries(cache.past, "xla")) < cache.start[:, None]
        parts.insert(0, (past_k, past_v, before[:, None]))
    return _mix_blocks(q, parts, block, dtype), (keys, values)


def _write(buffer: jax.Array, new: jax.Array, at: jax.Array, axis: int) -> jax.Array:
    """Return a buffer with entries from `at` on, as integers: see `_move_bits`."""
    out = jax.lax.dynamic_update_slice_in_dim(_bits(buffer), _bits(new), at, axis)
    return jax.lax.bitcast_convert_type(out, buffer.dtype)


def _mix_blocks(q: jax.Array, parts, block: int, dtype: str) -> jax.Array:
    """Return `_mix` of at most `block` queries at a time, so that few scores exist."""
    slots, length = q.shape[:2]
    if blocked.num_blocks(length, block) == 1:
        return _mix(q, parts, dtype)
    split = functools.partial(blocked.split, most=block)
    # Of queries one by one, or of all alike.
    own = [split(seen) if seen.shape[1] == length else None for *_, seen in parts]

    def one(given):
        q, seen = given
        pairs = zip(parts, seen, strict=True)
        return _mix(
            q,
            [(k, v, all_ if part is None else part) for (k, v, all_), part in pairs],
            dtype,
        )

    out = jax.lax.map(one, (split(q), own))  # [Z, M, C, N * H]
    width = out.shape[-1]
    return jnp.moveaxis(out, 0, 1).reshape(slots, -1, width)[:, :length]


def _mix(q: jax.Array, parts, dtype: str) -> jax.Array:
    """Attend to all parts (keys [M,K,H,S], values [M,K,S,H], seen [M,T,S]) at once.

    The queries of a head's group stand below each other, [M, K, G * T, H]: one product
    a slot and head, and what CPUs multiply in bfloat16.
    """
    slots, length, heads, width = q.shape
    kv_heads = parts[0][0].shape[1]
    grouped = q.reshape(slots, length, kv_heads, heads // kv_heads, width)
    rows = (slots, kv_heads, heads // kv_heads, length)
    stacked = (slots, kv_heads, heads // kv_heads * length)
    grouped = jnp.moveaxis(grouped, 1, 3).reshape(*stacked, width) / math.sqrt(width)

    def score(keys, seen):
        out = products.contract("mkqh,mkhs->mkqs", grouped, keys, dtype)
        return jnp.where(seen[:, None, None], out.reshape(*rows, -1), blocked.NEGATIVE)

    def take(weights, values):
        weights = weights.reshape(*stacked, -1)
        out = products.contract("mkqs,mksh->mkqh", weights, values, dtype)
        return out.reshape(*rows, width)

    scores = [score(keys, seen) for keys, _, seen in parts]
    top = jnp.max(
        jnp.stack([jnp.max(one, axis=-1, keepdims=True) for one in scores]), axis=0
    )
    weights = [jnp.exp(one - top) for one in scores]
    total = sum(jnp.sum(one, axis=-1) for one in weights)  # [M, K, G, T]
    mixed = sum(take(one, v) for one, (_, v, _) in zip(weights, parts, strict=True))
    mixed = mixed / total[..., None]
    return jnp.moveaxis(mixed, 3, 1).reshape(slots, length, heads * width)


def _attend_cudnn(q, keys, values, positions, block, dtype) -> jax.Array:
    slots, length = positions.shape
    if length > 1:  # prefill on top of copied entries
        seen = jnp.arange(keys.shape[1]) <= positions[:, :, None]
        keys, values = jnp.moveaxis(keys, 1, 3), jnp.swapaxes(values, 1, 2)
        return _mix_blocks(q, [(keys, values, seen)], block, dtype)
    # The query heads of a key head stand as so many queries of one: its keys are then
    # read once for all of them.
    kv_heads, width = keys.shape[2:]
    q = jnp.swapaxes(q.astype(dtype).reshape(slots, kv_heads, -1, width), 1, 2)
    out = jax.nn.dot_product_attention(
        q,
        keys,
        values,
        key_value_seq_lengths=jnp.minimum(positions[:, 0] + 1, keys.shape[1]),
        query_seq_lengths=jnp.full(slots, q.shape[1], jnp.int32),
        implementation="cudnn",
    )
    return jnp.swapaxes(out, 1, 2).reshape(slots, 1, -1)


def collect(cache: Cache | Draft | Fresh, new: list, num_tokens: int) -> Cache | Draft:
    """Return the cache with the layers' new buffers, in order."""
    buffers = Cache(k=tuple(k for k, _ in new), v=tuple(v for _, v in new))
    if isinstance(cache, Draft):
        return cache.replace(window=buffers, filled=cache.filled + num_tokens)
    return buffers


def merge(cache: Cache, window: Cache, start: jax.Array) -> Cache:
    """Return the cache with each slot's window at its place; not for "cudnn".

    One select an entry of the window, which XLA makes into one pass over the cache.
    (A scatter, or a loop over slots, is ten to thirty times slower on CPU.)

    Args:
      cache: of M slots, S entries.
      window: of the same slots, W entries; those beyond the end are dropped.
      start: [M] int32, place of the window's first entry; S: nothing is written.
    """

    def move(buffer: jax.Array, new: jax.Array, axis: int) -> jax.Array:
        index = _places(buffer, start, axis)
        for entry in range(new.shape[axis]):
            row = jax.lax.slice_in_dim(new, entry, entry + 1, axis=axis)
            buffer = jnp.where(index == entry, row, buffer)
        return buffer

    return _move_bits(move, cache, window)


def overlay(rows: Cache, window: Cache, start: jax.Array, count: jax.Array) -> Cache:
    """Return rows with `count` entries of the windows at `start`; not for "cudnn".

    As `merge`, for few slots and long windows.

    Args:
      rows: of B slots.
      window: of the same slots.
      start: [B] int32, place of the window's first entry.
      count: [B] int32, how many of its entries are taken.
    """
    moved: list[jax.Array] = []  # keys and values of one layer after the other
    axes = length_axes("xla")  # as for all that has windows
    for layer in zip(rows.k, window.k, rows.v, window.v, strict=True):
        for buffer, new, axis in ((*layer[:2], axes.k), (*layer[2:], axes.v)):
            new = _bits(new)
            if moved:
                # All windows that were moved at once would be as much as the rows.
                new, moved[-1] = jax.lax.optimization_barrier((new, moved[-1]))
            index = _places(buffer, start, axis)
            wanted = jnp.clip(index, 0, new.shape[axis] - 1)
            taken = (index >= 0) & (index < count.reshape(-1, 1, 1, 1))
            there = jnp.take_along_axis(new, wanted, axis=axis)
            moved.append(jnp.where(taken, there, _bits(buffer)))
    dtype = rows.k[0].dtype
    buffers = [jax.lax.bitcast_convert_type(one, dtype) for one in moved]
    return Cache(k=tuple(buffers[::2]), v=tuple(buffers[1::2]))


def _places(buffer: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """Return each entry's index in its slot's window, [M, 1, S, 1] or [M, 1, 1, S]."""
    shape = [1] * 4
    shape[axis] = buffer.shape[axis]
    places = jnp.arange(buffer.shape[axis], dtype=jnp.int32).reshape(shape)
    return places - start.reshape(-1, 1, 1, 1)


def _move_bits(move, cache: Cache, window: Cache) -> Cache:
    """Apply `move` to all buffers as integers: CPUs select bfloat16 as float32."""
    axes, dtype = length_axes("xla"), cache.k[0].dtype  # as for all that has windows

    def one(buffer: jax.Array, new: jax.Array, axis: int) -> jax.Array:
        moved = move(_bits(buffer), _bits(new), axis)
        return jax.lax.bitcast_convert_type(moved, dtype)

    return Cache(
        k=tuple(one(b, n, axes.k) for b, n in zip(cache.k, window.k, strict=True)),
        v=tuple(one(b, n, axes.v) for b, n in zip(cache.v, window.v, strict=True)),
    )


def _bits(x: jax.Array) -> jax.Array:
    kind = jnp.uint16 if x.dtype == jnp.bfloat16 else jnp.uint32
    return jax.lax.bitcast_convert_type(x, kind)
