"""How far a policy went from the base model: KL along the replies it wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import batching, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import reading

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
    run = divergence_program(job)

    def measure(
        policy: Params, rows: Sequence[Ids], starts: Sequence[int]
    ) -> np.ndarray:
        policy = reading.frozen(job, policy)

        def one(tokens: np.ndarray, mask: np.ndarray, starts: np.ndarray):
            # Rows stand at the right end, so their tokens are counted from mask.
            counted = mask & (np.cumsum(mask, axis=1) > starts[:, None])
            return run(policy, base, *reading.placed(job, tokens, mask, counted))

        with jax.set_mesh(job.mesh):
            return batching.map_rows(
                one,
                rows,
                np.asarray(starts, np.int32),
                rows_at=reading.rows_at(job),
                lengths=batching.rising_lengths(max(map(len, rows), default=1)),
                pad_id=job.text_tokenizer.pad_id,
                what="KL of replies",
            )

    return measure


def divergence_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (policy, base, tokens, mask, counted) -> nats [B].

    The last three are [B, T]; both models are frozen ones.
    """
    return _program(job.cfg, job.mesh, job.chunk_tokens)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, chunk_tokens: int
) -> Callable:
    def program(policy, base, tokens, mask, counted):
        return heads.policy_divergence(
            policy, base, cfg, tokens, mask, counted, chunk_tokens=chunk_tokens
        )

    return jax.jit(
        program,
        in_shardings=(None, None, *reading.batch_of(mesh, 3)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )
