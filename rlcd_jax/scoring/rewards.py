"""Rewards of rows of ids by a preference model."""

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


def reward_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (params, tokens [B, T], mask [B, T]) -> rewards [B]."""
    return _program(job.cfg, job.mesh)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh) -> Callable:
    def program(params, tokens, mask):
        return heads.scalar_at_last(params, cfg, tokens, mask)

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 2)),
        out_shardings=sharding.replicated(mesh),
    )


def reward_scorer(
    job: setup.Job, lengths: Sequence[int]
) -> Callable[[Params, Sequence[Ids]], np.ndarray]:
    """Return a function from frozen parameters and rows of ids to rewards [B] float32.

    Rows of any length are read whole.

    Args:
      job: of the stage.
      lengths: rising, the row lengths to compile for; longer rows add to them.
    """
    run = reward_program(job)

    def score(params: Params, rows: Sequence[Ids]) -> np.ndarray:
        longest = max(map(len, rows), default=0)
        with jax.set_mesh(job.mesh):
            return batching.map_rows(
                lambda *arrays: run(params, *reading.placed(job, *arrays)),
                rows,
                rows_at=reading.rows_at(job),
                lengths=batching.lengths_up_to(longest, lengths),
                pad_id=job.text_tokenizer.pad_id,
            )

    return score
