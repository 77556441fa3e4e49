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
    params, of_ids = reading.frozen(job, params), ids_scorer(job)

    def score(texts: Sequence[tuple[str, str]]) -> np.ndarray:
        joined = encoding.join_replies(job.text_tokenizer, texts)
        rows = [ids for ids, _ in joined]
        longest = max(map(len, rows), default=1)
        lengths.refuse_over(job, longest, "a prompt with its reply", "leave it out")
        return of_ids(params, rows, [sum(is_reply) for _, is_reply in joined])

    return score


def ids_scorer(
    job: setup.Job, smallest: int = 64, *, per_token: bool = False
) -> Callable[[Params, Sequence[Sequence[int]], Sequence[int]], np.ndarray]:
    """Return a function from ids to log-probabilities of their last tokens.

    `score(params, rows, counts)` gives [B] float32, nats: of each row the sum over its
    last `counts[b]` tokens, each after all before it; or their mean, which does not
    fall with a reply's length (0 where nothing is counted). The parameters are as
    `reading.frozen` gives them.

    Args:
      job: of the stage.
      smallest: width of a batch, in tokens: less where most rows are shorter.
      per_token: the mean, nats a token.
    """
    run = ids_program(job)

    def score(
        params: Params, rows: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> np.ndarray:
        def one(tokens: np.ndarray, mask: np.ndarray, num: np.ndarray) -> np.ndarray:
            from_right = np.arange(tokens.shape[1])[::-1]
            counted = mask & (from_right < num[:, None])
            return run(params, *reading.placed(job, tokens, mask, counted))

        longest, tokens = max(map(len, rows), default=1), np.asarray(counts, np.int32)
        with jax.set_mesh(job.mesh):
            sums = batching.map_rows(
                one,
                rows,
                tokens,
                rows_at=reading.rows_at(job),
                lengths=batching.rising_lengths(longest, smallest),
                pad_id=job.text_tokenizer.pad_id,
                what="likelihoods",
            )
        return sums / np.maximum(tokens, 1) if per_token else sums

    return score


def ids_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (params, tokens, mask, counted), [B, T] each, -> nats [B]."""
    return _program(job.cfg, job.mesh, job.read_chunk_tokens)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, chunk_tokens: int
) -> Callable:
    def program(params, tokens, mask, counted):
        logprobs = heads.text_logprobs(
            params, cfg, tokens, mask, chunk_tokens=chunk_tokens
        )
        return jnp.sum(jnp.where(counted, logprobs, 0.0), axis=1)

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 3)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )
