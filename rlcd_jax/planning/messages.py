"""What devices send to each other: bytes by mesh axis, from shapes alone.

Collectives are counted as rings: a device sends (n-1)/n of an array to gather or to
scatter it among n, twice that to sum it. `planning.collectives` reads the compiler's
own from a compiled program.

Letters: D model, L layers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rlcd_jax import tree
from rlcd_jax.models import llama, table

FLOAT, HALF = 4, 2  # bytes of a float32 and of a bfloat16


@dataclasses.dataclass(frozen=True)
class Moved:
    """Bytes that a device sends, as pairs of mesh axis and bytes."""

    by_axis: tuple[tuple[str, float], ...] = ()

    def __mul__(self, times: float) -> Moved:
        return Moved(tuple((axis, size * times) for axis, size in self.by_axis))

    @property
    def total(self) -> float:
        """Bytes over all axes."""
        return sum(size for _, size in self.by_axis)


NOTHING = Moved()


def of_training(
    cfg: llama.LlamaConfig,
    mesh: Any,
    *,
    parameters: int,
    tokens: int,
    models: int,
    num_micro: int,
) -> Moved:
    """Return what a device sends in one update.

    Args:
      cfg: model numbers.
      mesh: its shape.
      parameters: scalars of all models that are trained.
      tokens: of one part of a batch, on a device.
      models: how many are trained.
      num_micro: parts of a batch.
    """
    own = parameters / mesh.shape["tensor"]
    # Weights are gathered forwards and again backwards, gradients scattered.
    gathered = num_micro * own * (2 * HALF + FLOAT)
    own /= mesh.shape["fsdp"]
    passes = 2 + (cfg.remat == "full")  # forwards, backwards, forwards again
    return Moved(
        (
            ("fsdp", gathered * _share(mesh, "fsdp")),
            ("data", 2 * num_micro * own * FLOAT * _share(mesh, "data")),
            ("slice", 2 * num_micro * own * FLOAT * _share(mesh, "slice")),
            ("tensor", num_micro * models * passes * _layers(cfg, mesh, tokens)),
        )
    )


def of_reading(cfg: llama.LlamaConfig, mesh: Any, *, tokens: int, models: int) -> Moved:
    """Return what a device sends to read texts with frozen models; see `of_training`.

    Args:
      cfg: model numbers.
      mesh: its shape.
      tokens: on a device.
      models: that read them.
    """
    weights = models * _scalars(cfg) / mesh.shape["tensor"] * HALF
    return Moved(
        (
            ("fsdp", weights * _share(mesh, "fsdp")),
            ("tensor", models * _layers(cfg, mesh, tokens)),
        )
    )


def of_decoding(cfg: llama.LlamaConfig, mesh: Any, *, rows: int) -> Moved:
    """Return what a device sends for one token of each of its slots."""
    logits = rows * cfg.vocab_size / mesh.shape["tensor"] * FLOAT
    tensor = _layers(cfg, mesh, rows) + logits * (mesh.shape["tensor"] - 1)
    return Moved((("tensor", tensor),))


def _layers(cfg: llama.LlamaConfig, mesh: Any, tokens: int) -> float:
    """Return what is sent to sum two streams [tokens, D] a layer."""
    summed = 2 * cfg.num_layers * tokens * cfg.embed_dim * FLOAT
    return 2 * summed * _share(mesh, "tensor")


def _share(mesh: Any, axis: str) -> float:
    ways = mesh.shape[axis]
    return (ways - 1) / ways


def _scalars(cfg: llama.LlamaConfig) -> int:
    return tree.count_params(table.abstract_params(llama.param_specs(cfg)))
