"""How far a policy went from the base model: KL along the replies it wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import packed_texts, reading
from rlcd_jax.training import packing

Params = Any
Ids = Sequence[int]


def divergence_scorer(
    job: setup.Job, base: Params
) -> Callable[[Params, Sequence[Ids], Sequence[int]], np.ndarray]:
    """Return a function that measures how far a policy went from the base model.

    `measure(policy, rows, starts)` gives, for each row, the sum over its tokens
    from `starts[i]` on of KL(policy || base) at that prefix, in nats: exact over
    the vocabulary, so without the noise of a log-ratio of sampled tokens.
    """
    base = reading.frozen(job, base)

    def measure(
        policy: Params, rows: Sequence[Ids], starts: Sequence[int]
    ) -> np.ndarray:
        policy = reading.frozen(job, policy)
        texts = [text(row, start) for row, start in zip(rows, starts, strict=True)]
        with jax.set_mesh(job.mesh):
            read = functools.partial(divergence_program(job), policy, base)
            return packed_texts.read_states(job, read, texts, what="KL of replies")

    return measure


def text(row: Ids, start: int) -> packing.Text:
    """Return a text of which the tokens from `start` on are compared.

    Nothing is before the first token of all, so that is not.
    """
    return packing.Text(row, wanted=range(max(start, 1), len(row)))


def divergence_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (policy, base, tokens, segments, states) -> nats [N, C].

    Tokens and segments are [N, W], states [N, C], as `row_arrays.fill` gives them;
    both models are frozen ones.
    """
    return _program(job.cfg, job.mesh, job.read_chunk_tokens)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, chunk_tokens: int
) -> Callable:
    def program(policy, base, tokens, segments, states):
        rows = {"tokens": tokens, "segments": segments, "states": states}
        return heads.policy_divergence(
            policy, base, cfg, rows, chunk_tokens=chunk_tokens
        )

    return jax.jit(
        program,
        in_shardings=(None, None, *reading.batch_of(mesh, 3)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )
