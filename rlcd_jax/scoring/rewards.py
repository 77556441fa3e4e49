"""Rewards of texts by a preference model, which reads them side by side in rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import batching, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import packed_texts, reading

Params = Any
Ids = Sequence[int]


def reward_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (params, tokens, segments [N, W]) -> scalars [N, W]."""
    return _program(job.cfg, job.mesh)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh) -> Callable:
    def program(params, tokens, segments):
        return heads.scalar_per_token(params, cfg, tokens, segments)

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 2)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )


def reward_scorer(
    job: setup.Job, lengths: Sequence[int]
) -> Callable[[Params, Sequence[Ids]], np.ndarray]:
    """Return a function from frozen parameters and texts of ids to rewards [B] float32.

    Texts of any length are read whole.

    Args:
      job: of the stage.
      lengths: rising; the last is the longest text that the rows are made for, and
        texts beyond it make wider ones.
    """
    run = reward_program(job)

    def score(params: Params, texts: Sequence[Ids]) -> np.ndarray:
        if not texts:
            return np.zeros((0,), np.float32)
        longest = batching.lengths_up_to(max(map(len, texts)), lengths[-1:])[-1]
        with jax.set_mesh(job.mesh):
            read = functools.partial(run, params)
            return packed_texts.read_ends(job, read, texts, longest=longest)

    return score
