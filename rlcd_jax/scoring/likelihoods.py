"""How likely a model finds a reply after a prompt: the diagnostics' ingredient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import batching, lengths, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import reading
from rlcd_jax.text import encoding

Params = Any


def reply_scorer(
    job: setup.Job, params: Params
) -> Callable[[Sequence[tuple[str, str]]], np.ndarray]:
    """Return a function from (prompt, reply) texts to log-probabilities of replies.

    `score(texts)` gives log P(reply | prompt) [B] float32, nats, summed over the
    tokens that are the reply's, as `encoding.join_replies` marks them.

    Args:
      job: of the stage.
      params: of a language model, training form.
    """
    params = reading.frozen(job, params)

    run = _program(job.cfg, job.mesh, job.chunk_tokens)

    def one(tokens: np.ndarray, mask: np.ndarray, num: np.ndarray) -> np.ndarray:
        from_right = np.arange(tokens.shape[1])[::-1]
        counted = mask & (from_right < num[:, None])
        return run(params, *reading.placed(job, tokens, mask, counted))

    def score(texts: Sequence[tuple[str, str]]) -> np.ndarray:
        joined = encoding.join_replies(job.text_tokenizer, texts)
        rows = [ids for ids, _ in joined]
        longest = max(map(len, rows), default=1)
        lengths.refuse_over(job, longest, "a prompt with its reply", "leave it out")
        with jax.set_mesh(job.mesh):
            return batching.map_rows(
                one,
                rows,
                np.array([sum(is_reply) for _, is_reply in joined], np.int32),
                rows_at=reading.rows_at(job),
                lengths=batching.rising_lengths(longest),
                pad_id=job.text_tokenizer.pad_id,
                what="likelihoods",
            )

    return score


@functools.lru_cache(maxsize=reading.KEPT)
def _program(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, chunk_tokens: int
) -> Callable:
    """Return the compiled (params, tokens, mask, counted), [B, T] each, -> nats [B]."""

    def program(params, tokens, mask, counted):
        logprobs = heads.text_logprobs(
            params, cfg, tokens, mask, chunk_tokens=chunk_tokens
        )
        return jnp.sum(jnp.where(counted, logprobs, 0.0), axis=1)

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 3)),
        out_shardings=sharding.replicated(mesh),
    )
