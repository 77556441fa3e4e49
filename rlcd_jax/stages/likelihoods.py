"""How likely a model finds a reply after a prompt: the diagnostics' ingredient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.models import heads
from rlcd_jax.stages import batching, inputs, scorers

Params = Any


def reply_scorer(
    found: inputs.Inputs, params: Params
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Return a function from (prompt, reply) texts to log-probabilities of replies.

    ``score(texts)`` gives log P(reply | prompt) [B] float32, nats, summed over the
    tokens that hold any of the reply. The two texts are tokenised together.

    Args:
      found: inputs of the stage.
      params: of a language model, training form.
    """
    params = scorers.frozen(found, params)
    batch = sharding.batch_sharding(found.mesh)

    def program(params, tokens, mask, counted):
        logprobs = heads.text_logprobs(
            params,
            found.cfg,
            tokens,
            mask,
            chunk_tokens=found.config.model.chunk_tokens,
        )
        return jnp.sum(jnp.where(counted, logprobs, 0.0), axis=1)

    run = jax.jit(program, in_shardings=(None, batch, batch, batch))

    def one(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        # The number of reply tokens came as the first entry; it is taken off again.
        first = mask.argmax(axis=1)
        rows = np.arange(len(tokens))
        counted = np.arange(tokens.shape[1]) >= (
            tokens.shape[1] - tokens[rows, first][:, None]
        )
        mask = mask.copy()
        mask[rows, first] = False
        return run(params, tokens, mask, counted & mask)

    def score(texts: Sequence[tuple[str, str]]) -> np.ndarray:
        marked = []
        for prompt, reply in texts:
            ids, is_reply = batching.join_reply(found.text_tokenizer, prompt, reply)
            marked.append([sum(is_reply), *ids])
        longest = max(map(len, marked), default=1)
        with jax.set_mesh(found.mesh):
            return batching.map_rows(
                one,
                marked,
                batch_size=scorers.rows_at_once(found),
                lengths=batching.rising_lengths(longest),
                pad_id=found.text_tokenizer.pad_id,
                what="likelihoods",
            )

    return score
