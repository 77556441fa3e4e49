"""How likely a model finds a reply after a prompt: the diagnostics' ingredient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import lengths, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import packed_texts, reading
from rlcd_jax.text import encoding
from rlcd_jax.training import packing

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
    job: setup.Job, *, per_token: bool = False
) -> Callable[[Params, Sequence[Sequence[int]], Sequence[int]], np.ndarray]:
    """Return a function from ids to log-probabilities of their last tokens.

    `score(params, rows, counts)` gives [B] float32, nats: of each row the sum over its
    last `counts[b]` tokens, each after all before it; or their mean, which does not
    fall with a reply's length (0 where nothing is counted). Nothing is before the first
    token of all, so that is not. The parameters are as `reading.frozen` gives them.

    Args:
      job: of the stage.
      per_token: the mean, nats a token.
    """
    run = ids_program(job)

    def score(
        params: Params, rows: Sequence[Sequence[int]], counts: Sequence[int]
    ) -> np.ndarray:
        texts = [text(row, num) for row, num in zip(rows, counts, strict=True)]
        with jax.set_mesh(job.mesh):
            read = functools.partial(run, params)
            sums = packed_texts.read_states(job, read, texts, what="likelihoods")
        return sums / np.maximum(np.asarray(counts), 1) if per_token else sums

    return score


def text(row: Sequence[int], count: int) -> packing.Text:
    """Return a text of whose last tokens the log-probabilities are read."""
    return packing.Text(row, wanted=range(max(1, len(row) - count), len(row)))


def ids_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (params, tokens, segments, states) -> nats [N, C].

    Tokens and segments are [N, W], states [N, C], as `row_arrays.fill` gives them.
    """
    return _program(job.cfg, job.mesh, job.read_chunk_tokens)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, chunk_tokens: int
) -> Callable:
    def program(params, tokens, segments, states):
        rows = {"tokens": tokens, "segments": segments, "states": states}
        return heads.state_logprobs(params, cfg, rows, chunk_tokens=chunk_tokens)[0]

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 3)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )
