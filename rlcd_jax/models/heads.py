"""What is read off the trunk: token log-probabilities, and one scalar.

Letters: B batch, T positions, D model, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import ad_checkpoint

from rlcd_jax.models import llama, output_table, siblings, table

Params = Any
CHUNK_STEP = 8  # positions: products of odd sizes are slow on accelerators
NORM = "norm"  # log-sum-exp of scores: by it rematerialisation knows to keep that


def token_logprobs(
    params: Params,
    cfg: llama.LlamaConfig,
    hidden: jax.Array,
    targets: jax.Array,
    *,
    chunk_tokens: int,
    temperature: float,
    with_entropy: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the log-probability of each target and the entropy of its distribution.

    The [B, T, V] logits of a large vocabulary are the biggest array of training: they
    are made for one chunk of positions at a time, in the backward pass too.

    Args:
      params: LLaMA weights in either form.
      cfg: model numbers.
      hidden: [B, T, D] float32, the state *before* each target.
      targets: [B, T] int32.
      chunk_tokens: how many tokens' logits exist at once, about.
      temperature: divides the logits; 1.0 leaves the model's distribution.
      with_entropy: another pass over the vocabulary.

    Returns:
      ([B, T] log-probabilities, [B, T] entropies or None), nats, float32. No gradient
      flows through the entropies.
    """
    copies = output_table.copies(params, cfg, len(hidden))

    keep_norms = jax.checkpoint_policies.save_only_these_names(NORM)

    @functools.partial(jax.checkpoint, policy=keep_norms)
    def step(carry: None, chunk: tuple[jax.Array, jax.Array]):
        scores = output_table.logits(copies, cfg, chunk[0]) / temperature
        picked, norm = _logprob(scores, chunk[1])
        if not with_entropy:
            return carry, (picked,)
        still = jax.lax.stop_gradient(scores - norm[..., None])
        return carry, (picked, -jnp.sum(jnp.exp(still) * still, axis=-1))

    inputs = (chunked(hidden, chunk_tokens), chunked(targets, chunk_tokens))
    _, out = jax.lax.scan(step, None, inputs)
    out = [unchunked(x, hidden.shape[1]) for x in out]
    return (out[0], out[1]) if with_entropy else (out[0], None)


@jax.custom_vjp
def _logprob(scores: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the log-probability of targets [...] and the log-sum-exp of scores [...].

    The gradient of the first is `1 at the target - softmax`, in one pass over the
    scores; those of a pick and of a sum, each by itself, take four. None flows through
    the second.

    Args:
      scores: [..., V] float32.
      targets: [...] int32.
    """
    norm = jax.nn.logsumexp(scores, axis=-1)
    picked = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return picked - norm, norm


def _logprob_forward(scores: jax.Array, targets: jax.Array):
    picked, norm = _logprob(scores, targets)
    norm = ad_checkpoint.checkpoint_name(norm, NORM)
    return (picked, norm), (scores, targets, norm)


def _logprob_backward(saved, cotangents: tuple[jax.Array, jax.Array]):
    scores, targets, norm = saved
    tokens = jax.lax.broadcasted_iota(targets.dtype, scores.shape, scores.ndim - 1)
    target = (tokens == targets[..., None]).astype(scores.dtype)
    change = target - jnp.exp(scores - norm[..., None])
    return cotangents[0][..., None] * change, None


_logprob.defvjp(_logprob_forward, _logprob_backward)


def state_logprobs(
    params: Params,
    cfg: llama.LlamaConfig,
    rows: Mapping[str, jax.Array],
    *,
    chunk_tokens: int,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Return the log-probability of the token after each state that is read.

    Args:
      params: LLaMA weights in training form.
      cfg: model numbers.
      rows: "tokens", "segments" and "states", of `row_arrays.fill`; of rows whose
        texts share their beginnings also what it has of those.
      chunk_tokens: see `token_logprobs`, as what follows.
      temperature: divides the logits.
      with_entropy: whether entropies are wanted too.

    Returns:
      ([N, C] float32 nats, [N, C] entropies or None).
    """
    tokens, states = rows["tokens"], rows["states"]
    hidden, _ = llama.hidden_states(params, cfg, tokens, *_texts_of(rows))
    return token_logprobs(
        params,
        cfg,
        jnp.take_along_axis(hidden, states[..., None], axis=1),
        jnp.take_along_axis(tokens, rows.get("nexts", states + 1), axis=1),
        chunk_tokens=chunk_tokens,
        temperature=temperature,
        with_entropy=with_entropy,
    )


def policy_divergence(
    policy: Params,
    reference: Params,
    cfg: llama.LlamaConfig,
    rows: Mapping[str, jax.Array],
    *,
    chunk_tokens: int,
) -> jax.Array:
    """Return the KL of a policy from its reference at each state that is read.

    `KL(policy(. | tokens[:t]) || reference(. | tokens[:t]))`, over the whole
    vocabulary, not only the token that stands at t.

    Args:
      policy: LLaMA weights in training form.
      reference: weights of the same shapes.
      cfg: their numbers.
      rows: as in `state_logprobs`.
      chunk_tokens: how many tokens' logits exist at once, about.

    Returns:
      [N, C] float32 nats.
    """
    segments, places = rows["segments"], rows["states"]
    positions = positions_of(segments)
    states = []
    for params in (policy, reference):
        # One model after the other, for both at once would take the room of both; the
        # states are cast now, as the products with the table would do it.
        params, states = jax.lax.optimization_barrier((params, states))
        hidden, _ = llama.hidden_states(
            params, cfg, rows["tokens"], positions, segments
        )
        read = jnp.take_along_axis(hidden, places[..., None], axis=1)
        states.append(chunked(read.astype(cfg.dtype), chunk_tokens))
    models, states = jax.lax.optimization_barrier(((policy, reference), states))
    both = [output_table.copies(one, cfg, len(places)) for one in models]

    def step(carry: None, chunk: list[jax.Array]) -> tuple[None, jax.Array]:
        ours, theirs = (
            jax.nn.log_softmax(output_table.logits(copies, cfg, hidden), axis=-1)
            for copies, hidden in zip(both, chunk, strict=True)
        )
        return carry, jnp.sum(jnp.exp(ours) * (ours - theirs), axis=-1)

    _, out = jax.lax.scan(step, None, states)
    return unchunked(out, places.shape[1])


def chunked(x: jax.Array, chunk_tokens: int) -> jax.Array:
    """Split [B, T, …] into [C, B, W, …] with about `chunk_tokens` in B x W."""
    batch, length = x.shape[:2]
    width = chunk_width(batch, length, chunk_tokens)
    chunks = -(-length // width)
    x = jnp.pad(x, ((0, 0), (0, chunks * width - length)) + ((0, 0),) * (x.ndim - 2))
    return x.reshape(batch, chunks, width, *x.shape[2:]).swapaxes(0, 1)


def chunk_width(batch: int, length: int, chunk_tokens: int) -> int:
    """Return the positions of one chunk of [B, T], W of `chunked`.

    As many in each chunk, in steps of `CHUNK_STEP`: what fills the last is computed.
    """
    most = max(1, min(length, chunk_tokens // batch))
    even = -(-length // max(1, -(-length // most)))
    return min(most, -(-even // CHUNK_STEP) * CHUNK_STEP)


def unchunked(x: jax.Array, length: int) -> jax.Array:
    """Join [C, B, W] to [B, T] with T = `length`; the inverse of `chunked`."""
    return x.swapaxes(0, 1).reshape(x.shape[1], -1)[:, :length]


def positions_of(mask: jax.Array) -> jax.Array:
    """Return [B, T] int32 positions of tokens in their own texts, from 0.

    Args:
      mask: [B, T] bool, a text a row: entries that are True are counted. Or int32, as
        `llama.hidden_states` takes it: texts lie in one piece and count on their own.
    """
    if mask.dtype != jnp.bool_:
        text, seen = jnp.abs(mask), (mask > 0).astype(jnp.int32)
        count = jnp.cumsum(seen, axis=1)
        begins = jnp.pad(text[:, 1:] != text[:, :-1], ((0, 0), (1, 0)))
        before = jax.lax.cummax(jnp.where(begins, count - seen, 0), axis=1)
        return jnp.maximum(count - before - 1, 0)
    return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def _texts_of(
    rows: Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array | siblings.Siblings]:
    """Return positions and mask of packed rows, as `llama.hidden_states` takes them."""
    positions = positions_of(rows["segments"])
    if "sources" not in rows:
        return positions, rows["segments"]
    alike = siblings.find(rows["segments"], rows["sources"], rows["places"])
    return alike.by_token(positions), alike


def scalar_specs(cfg: llama.LlamaConfig) -> Params:
    """Return the table of a trunk with one scalar output.

    The head starts as U(-1/sqrt(D), 1/sqrt(D)) with zero bias.

    Source: AlpacaFarm's reward model, as RLCD uses it.
    """
    trunk = llama.param_specs(cfg)
    trunk.pop("unembed", None)
    weight = table.ParamSpec((cfg.embed_dim,), ("norm",), "uniform_fan_in")
    bias = table.ParamSpec((), (), "zeros")
    return {"trunk": trunk, "head": {"weight": weight, "bias": bias}}


def scalar_from_trunk(cfg: llama.LlamaConfig, trunk: Params, key: jax.Array) -> Params:
    """Return a scalar model on a language model's trunk, its head fresh."""
    own = {name: part for name, part in trunk.items() if name != "unembed"}
    return scalar_on(cfg, own, key)


def scalar_on(cfg: llama.LlamaConfig, trunk: Params, key: jax.Array) -> Params:
    """Return a scalar model of a trunk, or of its adapters, with a fresh head."""
    head = table.init_from_specs(scalar_specs(cfg)["head"], key)
    return {"trunk": trunk, "head": head}


def value_from_preference(params: Params) -> Params:
    """Return a value model: the preference model's trunk under a head of zeros.

    So values are 0 everywhere at the start. Source: AlpacaFarm `rl_models.Value`.
    """
    return {
        "trunk": params["trunk"],
        "head": jax.tree.map(jnp.zeros_like, params["head"]),
    }


def scalar_per_token(
    params: Params, cfg: llama.LlamaConfig, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
    """Return one scalar a token, [B, T] float32; entries outside `mask` are finite.

    Args:
      params: "trunk" and "head".
      cfg: model numbers.
      tokens: [B, T] int32.
      mask: [B, T] bool, True where a token counts, or int32 of several texts a row.
    """
    hidden, _ = llama.hidden_states(
        params["trunk"], cfg, tokens, positions_of(mask), mask
    )
    head = params["head"]
    weight = head["weight"].astype(jnp.float32)
    return jnp.sum(hidden * weight, axis=-1) + head["bias"].astype(jnp.float32)


def scalar_in_rows(
    params: Params, cfg: llama.LlamaConfig, rows: Mapping[str, jax.Array]
) -> jax.Array:
    """Return the scalar at the last token of each text of packed rows.

    Args:
      params: "trunk" and "head".
      cfg: model numbers.
      rows: "tokens", "segments" and "ends" [B, K], of `row_arrays.fill`; of rows
        whose texts share their beginnings also what it has of those.

    Returns:
      [B, K] float32.
    """
    head = params["head"]
    hidden, _ = llama.hidden_states(
        params["trunk"], cfg, rows["tokens"], *_texts_of(rows)
    )
    scalars = jnp.sum(hidden * head["weight"].astype(jnp.float32), axis=-1)
    # The bias comes last: where two scalars are subtracted its gradient is then 0 to
    # the last bit, and not a rounding that Adam makes a step of.
    picked = jnp.take(scalars.reshape(-1), rows["ends"], axis=0)
    return picked + head["bias"].astype(jnp.float32)
