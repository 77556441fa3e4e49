"""Models that are only read: the form of their parameters, and rows at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcd_jax import processes, sharding
from rlcd_jax.job import setup
from rlcd_jax.models import blocked
from rlcd_jax.models import frozen as frozen_weights

Params = Any
KEPT = 16  # programs of different settings that a process keeps, of each kind
ROWS = 16  # of a batch of texts, on a device
STEP = 4  # a batch of few texts has a quarter of these, or a sixteenth
FULL_LENGTH = 1024  # tokens of a row up to which a batch has all of them


def frozen(job: setup.Job, params: Params) -> Params:
    """Return parameters that are only read: see `models.frozen`.

    Those on a base that several models share are returned as they are.
    """
    if job.lora is not None and frozen_weights.is_form(params, job.cfg.dtype):
        return params
    with jax.set_mesh(job.mesh):
        return _freezing(job.cfg.dtype)(params)


@functools.cache
def _freezing(dtype: str) -> Callable[[Params], Params]:
    return jax.jit(functools.partial(frozen_weights.form, dtype=dtype))


def rows_at(job: setup.Job) -> Callable[..., int]:
    """Return (length of a batch's rows, how many are left = None: many) -> its rows.

    `ROWS` on each device, or a quarter or a sixteenth where these hold what is left.
    Above `FULL_LENGTH` there are fewer, down to one on each device, so that a batch of
    long texts takes no more memory than one of `ROWS` texts of that length: rows go
    down with the tokens, or by their square where attention has the scores of all of a
    text at once.
    """
    ways, cfg = sharding.batch_ways(job.mesh), job.cfg

    def rows(length: int, left: int | None = None) -> int:
        length = max(length, FULL_LENGTH)
        blocks = blocked.num_blocks(length, cfg.attention_block)
        power = 1 if cfg.attention != "xla" or blocks > 1 else 2
        most = max(1, ROWS * FULL_LENGTH**power // length**power)
        while left is not None and most > 1:
            fewer = -(-most // STEP)
            if fewer * ways < left:
                break
            most = fewer
        return most * ways

    return rows


def placed(job: setup.Job, *arrays: np.ndarray) -> tuple[jax.Array, ...]:
    """Return host arrays with a row for each text, on the devices of the job."""
    return processes.place(arrays, sharding.batch_sharding(job.mesh))


def batch_of(mesh: jax.sharding.Mesh, count: int) -> tuple[Any, ...]:
    """Return the shardings of `count` arrays with a row for each text."""
    return (sharding.batch_sharding(mesh),) * count
