"""What the decode engine compiles: copying, prefill and several decode steps.

Pure functions of arrays; `decode.engine` jits them with shardings and donation.

What is expected of each backend:

* CPU: products of bfloat16 operands with float32 results run on AMX where there is
  one, and gain from 32 and more slots; new entries go to a window of the dispatch's
  steps, the cache itself is only read (see `models.cached`).
* GPU: with `attention="cudnn"` the kernels stop at each row's own length, so that a
  step reads the weights and the live cache once, `models.one_query` in one pass with
  what it adds and `models.few_rows` large matrices; the loop has a fixed number of
  steps, so the host is not asked between them.
* TPU: one query a slot leaves the matrix unit idle, and a step is a stream of weights
  and cache through memory whatever the kernel.  Unrolled layers with one buffer a
  layer, only read in the loop, keep XLA from copying the cache; bfloat16 operands with
  float32 results are the native product; both products of attention contract over
  last axes, and the cache is not longer than the longest reply needs now.  A Pallas
  kernel would only save the entries between a row's own length and that: with
  `attention="splash"` it reads prompts that begin at their first token, and no more.

Letters: M slots, B rows of a prefill, T its width, S cache entries, V vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rlcd_jax.decode import automaton, sampling
from rlcd_jax.models import cached, llama

RUNNING, EOS, STOP, LENGTH = 0, 1, 2, 3  # why a reply ended
FEW = 64
FINISH_NAMES = {EOS: "eos", STOP: "stop", LENGTH: "length"}


@dataclasses.dataclass(frozen=True)
class Features:
    """What the requests of a job ask for; the rest is left out of the program."""

    truncate: bool = False
    few: bool = False  # every request keeps FEW tokens or less by top-k
    forbid: bool = False
    contrast: bool = False


@flax.struct.dataclass
class State:
    """What changes from token to token, [M, ...].

    `token` is fed next and `position` is where it belongs; `step` counts reply tokens;
    `node` is the state of the string table; `finish` is RUNNING while the slot draws.
    """

    token: jax.Array
    position: jax.Array
    step: jax.Array
    node: jax.Array
    finish: jax.Array


@flax.struct.dataclass
class Slots:
    """What the requests in the slots ask for, [M] each; sent with every dispatch.

    `fresh` slots start with `token`, `position` and `root`.  A contrast occupies two
    slots: `leader` of both is the first, `guide` of both the second.
    """

    fresh: jax.Array  # bool
    token: jax.Array  # int32, last token of the prompt
    position: jax.Array  # int32, its position
    root: jax.Array  # int32, start state in the string table
    limit: jax.Array  # int32, max_new_tokens
    seed: jax.Array  # [M, 2] uint32
    temperature: jax.Array  # float32
    top_k: jax.Array  # int32
    top_p: jax.Array  # float32
    leader: jax.Array  # int32
    guide: jax.Array  # int32
    alpha: jax.Array  # float32


class Emitted(NamedTuple):
    """One decode step's tokens, [M] each; id -1 where the slot was not drawing."""

    ids: jax.Array
    logprobs: jax.Array
    sampled_logprobs: jax.Array
    finish: jax.Array


def idle_state(num_slots: int) -> State:
    """Return the state of slots that do nothing."""
    # Five buffers, since each is donated.
    zeros = [jnp.zeros(num_slots, jnp.int32) for _ in range(4)]
    return State(*zeros, finish=jnp.full(num_slots, LENGTH, jnp.int32))


def keep(state: State, slots: jax.Array) -> State:
    """Return the state of some slots."""
    return jax.tree.map(lambda array: array[slots], state)


def decode(
    params: llama.Params,
    *,
    cfg: llama.LlamaConfig,
    cache: cached.Cache,
    state: State,
    slots: Slots,
    table: jax.Array,
    num_steps: int,
    features: Features,
) -> tuple[cached.Cache, State, Emitted]:
    """Draw up to `num_steps` tokens in every slot.

    Args:
      params: decode form.
      cfg: model numbers.
      cache: of all slots; donate it.
      state: where the slots are.
      slots: what they ask for.
      table: [states, V] int16, see `automaton`.
      num_steps: static.
      features: static.

    Returns:
      Cache, state and the tokens, [num_steps, M].
    """
    state = _enter(state, slots)
    begun = state.position
    ran = state.finish == RUNNING
    frozen, moving = None, cache  # what the loop only reads, and what it changes
    if cfg.attention != "cudnn":
        window = llama.init_cache(cfg, begun.shape[0], num_steps)
        frozen = cached.draft(cache, window, begun)
        moving = (frozen.window, frozen.filled)

    def one(carry, _):
        # Without the barrier XLA takes the transposes that its products begin with out
        # of the loop, where they are no longer free: a copy of all weights a dispatch.
        weights, past, (moving, state) = jax.lax.optimization_barrier(
            (params, frozen, carry)
        )
        running = state.finish == RUNNING
        tokens, where = state.token, jnp.where(running, state.position, 0)
        columns = (x[:, None] for x in (tokens, where, running))
        keys = _join(past, moving)
        hidden, keys = llama.hidden_states(weights, cfg, *columns, cache=keys)
        logits = llama.logits(weights, cfg, hidden[:, 0])
        draw = _draw(logits, state, slots, table, features)
        state = _advance(state, slots, table, draw.ids)
        ids = jnp.where(running, draw.ids, -1)
        out = Emitted(ids, draw.logprobs, draw.sampled_logprobs, state.finish)
        return (_split(keys), state), out

    carry = (moving, state)
    (moving, state), emitted = jax.lax.scan(one, carry, None, length=num_steps)
    if cfg.attention != "cudnn":
        places = jnp.where(ran, begun, cached.entries(cache, cfg.attention))
        return cached.merge(cache, moving[0], places), state, emitted
    return moving, state, emitted


def _enter(state: State, slots: Slots) -> State:
    """Return the state with new occupants at the start of their replies."""
    fresh = slots.fresh
    return State(
        token=jnp.where(fresh, slots.token, state.token),
        position=jnp.where(fresh, slots.position, state.position),
        step=jnp.where(fresh, 0, state.step),
        node=jnp.where(fresh, slots.root, state.node),
        finish=jnp.where(fresh, RUNNING, state.finish),
    )


def _split(keys: cached.Cache | cached.Draft) -> Any:
    """Return what of the cache changes from step to step."""
    if isinstance(keys, cached.Draft):
        return keys.window, keys.filled
    return keys


def _join(frozen: cached.Draft | None, moving: Any) -> cached.Cache | cached.Draft:
    if frozen is None:
        return moving
    return frozen.replace(window=moving[0], filled=moving[1])


def _draw(
    logits: jax.Array,
    state: State,
    slots: Slots,
    table: jax.Array,
    features: Features,
) -> sampling.Draw:
    if features.contrast:
        # This form is exact at alpha = 0 and 1, where one of the two is multiplied
        # by zero.
        alpha = slots.alpha[:, None]
        logits = (1.0 - alpha) * logits[slots.leader] + alpha * logits[slots.guide]
    forbidden = None
    if features.forbid:
        forbidden = (table[state.node] & automaton.FORBIDDEN) != 0
    draw = sampling.sample(
        logits,
        sampling.uniforms(slots.seed, state.step),
        temperature=slots.temperature,
        top_k=slots.top_k,
        top_p=slots.top_p,
        forbidden=forbidden,
        truncate=features.truncate,
        most=FEW if features.few else 0,
    )
    if features.contrast:
        draw = jax.tree.map(lambda array: array[slots.leader], draw)
    return draw


def _advance(state: State, slots: Slots, table: jax.Array, ids: jax.Array) -> State:
    """Return the state after the tokens `ids`, slots that had ended unchanged."""
    running = state.finish == RUNNING
    code = table[state.node, ids].astype(jnp.int32)
    step = state.step + 1
    finish = jnp.where(step >= slots.limit, LENGTH, RUNNING)
    finish = jnp.where((code & automaton.STOP) != 0, STOP, finish)
    finish = jnp.where((code & automaton.EOS) != 0, EOS, finish)
    new = State(ids, state.position + 1, step, code & automaton.STATE_MASK, finish)
    return jax.tree.map(lambda a, b: jnp.where(running, a, b), new, state)


def prefill(
    params: llama.Params,
    *,
    cfg: llama.LlamaConfig,
    part: cached.Cache | None,
    tokens: jax.Array,
    offset: jax.Array,
    length: jax.Array,
) -> cached.Cache:
    """Compute the entries of prompts, on top of entries that are already there.

    Args:
      params: decode form.
      cfg: model numbers.
      part: [B] rows of a cache with the first `offset` entries; None: nothing is there.
      tokens: [B, T] int32, right padded.
      offset: [B] int32, position of the first token.
      length: [B] int32, tokens that count.

    Returns:
      Rows with entries [0, offset + length) set: as long as `part`, or T entries.
    """
    rows, width = tokens.shape
    steps = jnp.arange(width)[None]
    positions, mask = offset[:, None] + steps, steps < length[:, None]
    keys: cached.Cache | cached.Draft | cached.Fresh | None = part
    # Texts from their first token are whole: the kernels that store no scores read them
    # as in training. Behind copied entries only cuDNN's cache is written to directly.
    if part is None and cfg.attention != "xla":
        keys = cached.Fresh()
    elif cfg.attention != "cudnn":
        window = llama.init_cache(cfg, rows, width)
        keys = cached.draft(part, window, offset)
    _, keys = llama.hidden_states(params, cfg, tokens, positions, mask, cache=keys)
    if not isinstance(keys, cached.Draft):
        return keys
    if part is None:
        return keys.window
    return cached.overlay(part, keys.window, offset, length)
