"""The compiled programs by which a rollout reads replies that were drawn."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from rlcd_jax import sharding
from rlcd_jax.job import setup
from rlcd_jax.ppo import learning, reply_rows
from rlcd_jax.scoring import reading

# What a rollout reads off packed replies, by the model that it is read off.
READINGS: dict[str, Callable] = {
    "policy": functools.partial(learning.response_logprobs, with_entropy=True),
    "reference": learning.response_logprobs,
    "values": learning.response_values,
}


def rows_program(job: setup.Job, reading_of: Callable) -> Callable[..., Any]:
    """Return the compiled (params, *rows) -> what one of `READINGS` says.

    The rows are the arrays `reply_rows.READ` of a part. They lie in parts on the
    devices, results whole on each.
    """
    how = learning.reading(job)
    how = dataclasses.replace(how, chunk_tokens=job.read_chunk_tokens)
    return _rows_program(how, job.mesh, reading_of)


@functools.lru_cache(maxsize=reading.KEPT)
def _rows_program(
    how: learning.Reading, mesh: jax.sharding.Mesh, reading_of: Callable
) -> Callable[..., Any]:
    def program(params, *rows):
        return reading_of(params, how, dict(zip(reply_rows.READ, rows, strict=True)))

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, len(reply_rows.READ))),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(mesh),
    )
