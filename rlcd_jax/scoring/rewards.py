"""Rewards of texts by a preference model, which reads them side by side in rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import processes, sharding
from rlcd_jax.job import batching, packed_batches, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.scoring import reading
from rlcd_jax.training import packing

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
    run, rows_at = reward_program(job), reading.rows_at(job)

    def score(params: Params, texts: Sequence[Ids]) -> np.ndarray:
        if not texts:
            return np.zeros((0,), np.float32)
        longest = batching.lengths_up_to(max(map(len, texts)), lengths[-1:])[-1]
        width = packing.row_width(longest)
        packer = packed_batches.make_packer(job, longest=longest, parts=1, width=width)
        examples = [[packing.Text(ids)] for ids in texts]
        places, ends = packer.place(examples), [0]
        while (left := places.size.rows - ends[-1]) > 0:
            ends.append(ends[-1] + rows_at(width, left))
        rows = packer.fill(examples, places, packing.Size(ends[-1], width, 0))
        with jax.set_mesh(job.mesh):
            scalars = [
                processes.fetch(run(params, *reading.placed(job, *part)))
                for part in zip(
                    np.split(rows["tokens"], ends[1:-1]),
                    np.split(rows["segments"], ends[1:-1]),
                    strict=True,
                )
            ]
        return np.concatenate(scalars).reshape(-1)[rows["ends"][:, 0]]

    return score
