"""Exact sampling from a vocabulary without sorting it.

Sorting a vocabulary of fifty thousand costs more than a decode step of a small model.
Here a token is drawn by the inverse of the cumulative distribution in two levels: the
vocabulary is cut into contiguous blocks of about sqrt(V) tokens, one uniform number
picks a block by the blocks' sums, a second picks the token inside that block.  Top-k
and top-p are thresholds on the weight, found by bisection on the bits of the float, so
that they are exact, too.

Letters: M slots, V vocabulary, C blocks, W tokens of a block (C * W >= V).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = np.float32(1.1754944e-38)  # the smallest normal float32: zero stays out


class Draw(NamedTuple):
    """One token for each slot.

    `ids` [M] int32; `logprobs` [M] float32, natural log of the token's probability
    under softmax(logits) with nothing changed; `sampled_logprobs` [M] float32, the
    same under the distribution really drawn from (0 where greedy).
    """

    ids: jax.Array
    logprobs: jax.Array
    sampled_logprobs: jax.Array


def uniforms(seeds: jax.Array, steps: jax.Array) -> jax.Array:
    """Two uniform numbers of token `steps[m]` of the request with `seeds[m]`.

    They come from `fold_in(key(seeds[m]), steps[m])`, hence from the request alone.

    Args:
      seeds: [M, 2] uint32, the words of a raw threefry key.
      steps: [M] int32, which token of the reply this is, from 0.

    Returns:
      [M, 2] float32 in [0, 1).
    """

    def one(words: jax.Array, step: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, step), (2,), jnp.float32)

    return jax.vmap(one)(seeds, steps)


def sample(
    logits: jax.Array,
    noise: jax.Array,
    *,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    forbidden: jax.Array | None,
    truncate: bool,
    most: int = 0,
) -> Draw:
    """Draw one token a slot from softmax(logits / temperature), truncated.

    Order: forbidden tokens out, temperature, top-k, top-p of what is left.  Tokens that
    tie with the last one kept are kept.  Temperature 0 takes the most probable allowed
    token (the lowest id of equals).

    Args:
      logits: [M, V] float32.
      noise: [M, 2] float32 in [0, 1), see `uniforms`.
      temperature: [M] float32, at least 0.
      top_k: [M] int32, 0 = all tokens.
      top_p: [M] float32 in (0, 1], 1 = all tokens.
      forbidden: [M, V] bool, True = never drawn; None = nothing is forbidden.
      truncate: static; False leaves top-k and top-p out of the program, for the case
        that no slot asks for them.  The result is the same.
      most: static; not 0 promises that every slot has 1 <= top_k <= most or is greedy,
        which CPUs can use.  The result is the same.

    Returns:
      A `Draw`.
    """
    allowed = logits if forbidden is None else jnp.where(forbidden, -jnp.inf, logits)
    greedy = temperature <= 0.0  # [M]
    scale = 1.0 / jnp.where(greedy, 1.0, temperature)
    peak = jnp.max(allowed, axis=-1)  # [M]
    blocks = _blocks(allowed)  # [M, C, W]

    def weigh(values: jax.Array) -> jax.Array:  # [M, ...] logits to weights in [0, 1]
        tops = _by_slot(peak, values)
        soft = jnp.exp((values - tops) * _by_slot(scale, values))
        return jnp.where(_by_slot(greedy, values), values == tops, soft)

    floor = jnp.full(peak.shape, SMALLEST)
    if truncate:
        floor = threshold(weigh(blocks), top_k=top_k, top_p=top_p, most=most)

    def cut(weights: jax.Array) -> jax.Array:
        return jnp.where(weights >= _by_slot(floor, weights), weights, 0.0)

    sums = cut(weigh(blocks)).sum(-1)  # [M, C]
    noise = jnp.where(greedy[:, None], 0.0, noise)
    block = _pick(sums, noise[:, 0])  # [M]
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]  # [M, W]
    index = _pick(cut(weigh(inside)), noise[:, 1])
    chosen = jnp.take_along_axis(inside, index[:, None], axis=1)[:, 0]
    sampled = jnp.where(greedy, 0.0, (chosen - peak) * scale - jnp.log(sums.sum(-1)))
    plain = chosen - jax.nn.logsumexp(logits, axis=-1)
    ids = block * inside.shape[-1] + index
    return Draw(ids.astype(jnp.int32), plain, sampled)


def _by_slot(values: jax.Array, like: jax.Array) -> jax.Array:
    """Return [M] values as [M, 1, …], to be broadcast against `like` [M, …]."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def threshold(
    weights: jax.Array, *, top_k: jax.Array, top_p: jax.Array, most: int = 0
) -> jax.Array:
    """Return the smallest weight that top-k, then top-p of the rest, leave in.

    Args:
      weights: [M, C, W] float32 in [0, 1], not normalised.
      top_k: [M] int32, 0 = no limit.
      top_p: [M] float32, 1 = no limit.
      most: static, see `sample`.

    Returns:
      [M] float32, at least the smallest normal number.
    """
    if not most:
        return _threshold_by_bisection(weights, top_k, top_p)
    most = min(most, weights[0].size)
    return jax.lax.platform_dependent(
        weights,
        top_k,
        top_p,
        cpu=lambda *args: _threshold_of_leaders(*args, most),
        default=_threshold_by_bisection,
    )


def _threshold_of_leaders(weights, top_k, top_p, most) -> jax.Array:
    """Do as `threshold` where at most `most` tokens a slot are wanted.

    A CPU finds a few leaders faster than it bisects; elsewhere it would be a sort.
    """
    leaders = jax.lax.top_k(weights.reshape(weights.shape[0], -1), most)[0]
    last = jnp.clip(top_k, 1, most)[:, None] - 1
    ranks = jnp.arange(most)
    leaders = jnp.where(ranks <= last, leaders, 0.0)
    before = jnp.cumsum(leaders, axis=-1) - leaders
    inside = before < (top_p * leaders.sum(-1))[:, None]
    inside &= (leaders >= SMALLEST) & ((ranks == 0) | (ranks <= last))
    return jnp.min(jnp.where(inside, leaders, 1.0), axis=-1)


def _threshold_by_bisection(weights, top_k, top_p) -> jax.Array:
    def kept(floor: jax.Array, worth: jax.Array | float) -> jax.Array:
        return jnp.where(weights >= floor[:, None, None], worth, 0.0).sum(1).sum(1)

    def count(floor: jax.Array) -> jax.Array:
        return kept(floor, 1.0)

    def mass(floor: jax.Array) -> jax.Array:
        return kept(floor, weights)

    least = jnp.full(top_k.shape, SMALLEST)
    everything = count(least)
    wanted = jnp.minimum(top_k.astype(jnp.float32), everything)
    floor = _bisect(count, wanted, least, everything, jnp.ones_like, top_k > 0)
    total = mass(floor)
    return _bisect(mass, top_p * total, floor, total, lambda low: low, top_p < 1.0)


def _bisect(statistic, wanted, floor, most, single, active) -> jax.Array:
    """Return the greatest float t >= floor with statistic(t) >= wanted.

    Inactive rows keep their floor.  `statistic` falls as t rises and is `most` at the
    floor.  Floats in [0, 1] are
    ordered like their bits, so the search is over integers.  It ends when the bounds
    touch or when less than one and a half times `single(lower bound)`, what one weight
    there adds, lies between them: then it is one weight, and it belongs in.
    """
    above_one = np.int32(np.float32(1.0).view(np.int32) + 1)

    def floats(bits: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def unsettled(state) -> jax.Array:
        low, high, inside, outside = state
        several = inside - outside > 1.5 * single(floats(low))
        return (high - low > 1) & several

    def narrow(state):
        low, high, inside, outside = state
        middle = low + (high - low) // 2
        value = statistic(floats(middle))
        moving = unsettled(state)
        up = moving & (value >= wanted)
        down = moving & (value < wanted)
        return (
            jnp.where(up, middle, low),
            jnp.where(down, middle, high),
            jnp.where(up, value, inside),
            jnp.where(down, value, outside),
        )

    low = jax.lax.bitcast_convert_type(floor, jnp.int32)  # [M]
    high = jnp.where(active, above_one, low + 1)
    state = (low, high, most, jnp.zeros_like(most))
    state = jax.lax.while_loop(lambda s: jnp.any(unsettled(s)), narrow, state)
    return floats(state[0])


def _blocks(logits: jax.Array) -> jax.Array:
    """[M, V] to [M, C, W], contiguous, padded with minus infinity."""
    size = logits.shape[-1]
    width = min(256, 2 ** round(math.log2(max(size, 4)) / 2))
    short = -size % width
    if short:
        logits = jnp.pad(logits, ((0, 0), (0, short)), constant_values=-jnp.inf)
    return logits.reshape(logits.shape[0], -1, width)


def _pick(weights: jax.Array, noise: jax.Array) -> jax.Array:
    """Return where the cumulative weight passes noise * total, never a zero weight.

    Args:
      weights: [M, n] float32, not negative.
      noise: [M] float32 in [0, 1).

    Returns:
      [M] int32.
    """
    cumulative = jnp.cumsum(weights, axis=-1)
    passed = (weights > 0.0) & (cumulative > (noise * cumulative[:, -1])[:, None])
    first = jnp.argmax(passed, axis=-1)
    # A cumulative sum in float32 need not be monotone to the last bit.
    return jnp.where(jnp.any(passed, -1), first, jnp.argmax(weights, -1))
