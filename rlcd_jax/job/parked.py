"""Models that are read now and then, and lie in a file meanwhile.

On a CPU arrays and files are pages of one memory: a file that is mapped is read where
it lies, and what is not mapped takes no room of the process. Of other devices a model
is not parked.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import mmap
import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

import jax
import numpy as np

Params = Any
_ALIGNED = 64  # bytes, at which XLA takes an array of the host's as it is


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array in the file; a piece is its device, its shape and where it begins."""

    shape: tuple[int, ...]
    dtype: Any
    sharding: jax.sharding.Sharding
    pieces: tuple[tuple[jax.Device, tuple[int, ...], int], ...]


def park(params: Params, folder: str | os.PathLike[str] | None) -> Callable[[], Params]:
    """Return what gives the same parameters again, as often as it is called.

    They are written to a file without a name, which goes with the process; each call
    maps it, and the arrays are there as long as somebody holds them. They must not be
    donated.

    Args:
      params: arrays of CPUs.
      folder: where there is room for the file; None keeps the arrays as they are.
    """
    if folder is None:
        return lambda: params
    return functools.partial(_read, *_written(params, folder))


def _written(params: Params, folder: str | os.PathLike[str]) -> tuple[IO[bytes], Any]:
    """Return a file with the pieces of arrays, and a tree of what lies where."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def one(leaf: jax.Array) -> _Array:
        pieces = tuple(
            (shard.device, shard.data.shape, _write(file, np.asarray(shard.data)))
            for shard in leaf.addressable_shards
        )
        return _Array(leaf.shape, leaf.dtype, leaf.sharding, pieces)

    places = jax.tree.map(one, params)
    file.flush()
    return file, places


def _read(file: IO[bytes], places: Any) -> Params:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def one(array: _Array) -> jax.Array:
        pieces = []
        for device, shape, at in array.pieces:
            size = math.prod(shape)
            flat = np.frombuffer(mapped, array.dtype, count=size, offset=at)
            pieces.append(jax.device_put(flat.reshape(shape), device))
        return jax.make_array_from_single_device_arrays(
            array.shape, array.sharding, pieces
        )

    return jax.tree.map(one, places)


def _write(file: IO[bytes], array: np.ndarray) -> int:
    """Write an array at the end of a file; return where it begins."""
    file.seek(-(-file.tell() // _ALIGNED) * _ALIGNED)
    start = file.tell()
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return start
