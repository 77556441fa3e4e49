"""Bytes on one device of what stages hold: models, batches, the decode engine.

Shapes and shardings are those that the stages use, on a mesh that needs no devices, so
these figures are exact; what a program makes on its way is estimated elsewhere
(``models.footprint``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import chips, sharding
from rlcd_jax.decode import plan as decode_plan
from rlcd_jax.models import llama, table
from rlcd_jax.scoring import reading
from rlcd_jax.stages import inputs, trainer

Shapes = Any  # tree whose leaves have shape and dtype


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the programs of all stages derive from.

    Attributes:
      found: inputs of the stages; its mesh may have no devices.
      chip: what the mesh is made of.
      train_prompts: prompts to simulate and train on.
      test_prompts: held-out prompts.
    """

    found: inputs.Inputs
    chip: chips.Chip
    train_prompts: int
    test_prompts: int

    @property
    def cfg(self) -> llama.LlamaConfig:
        """The model's numbers."""
        return self.found.cfg

    @property
    def tensor(self) -> int:
        """Devices among which heads and vocabulary are split."""
        return self.found.mesh.shape["tensor"]

    @property
    def ways(self) -> int:
        """Devices among which rows and slots are split."""
        return trainer.batch_ways(self.found.mesh)


def device_bytes(shapes: Shapes) -> int:
    """Return the bytes on one device of leaves with shape, dtype and sharding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(shapes)
    )


def size(spec: Any) -> int:
    """Return the number of scalars of one leaf."""
    return math.prod(spec.shape)


def place(shapes: Shapes, shardings: Any) -> Shapes:
    """Return shapes that know their shardings."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        shapes,
        shardings,
    )


def model_bytes(setting: Setting, specs: Any, *, frozen: bool) -> int:
    """Return the bytes of a model: the float32 master, or as ``reading.frozen``."""
    shapes = table.abstract_params(specs)
    if frozen:
        dtype = setting.cfg.dtype
        shapes = jax.eval_shape(lambda p: reading.frozen_form(p, dtype), shapes)
    shardings = sharding.param_shardings(specs, setting.found.mesh)
    return device_bytes(place(shapes, shardings))


def num_slots(setting: Setting) -> int:
    """Return the slots of an engine, as ``generation.make_engine`` rounds them."""
    wanted = setting.found.config.engine.num_slots
    return -(-wanted // setting.ways) * setting.ways


def engine_bytes(
    setting: Setting, prompt_tokens: int, reply_tokens: int
) -> dict[str, int]:
    """Return what a decode engine holds: "decode" weights, "cache", and "other".

    Weights are split over tensor only (see ``decode.layout``), slots over data and
    fsdp. While the cache grows, its last two lengths exist together.
    """
    cfg, length, slots = setting.cfg, prompt_tokens + reply_tokens, num_slots(setting)
    itemsize = jnp.dtype(cfg.dtype).itemsize
    specs = jax.tree.leaves(
        llama.param_specs(cfg), is_leaf=lambda leaf: hasattr(leaf, "axes")
    )
    weights = sum(
        4 * size(spec)
        if "norm" in spec.axes
        else itemsize * size(spec) // setting.tensor
        for spec in specs
    )
    heads = cfg.num_kv_heads // setting.tensor
    entries = slots // setting.ways * heads * length
    cache = 2 * cfg.num_layers * entries * cfg.head_dim * itemsize
    work = decode_plan.work_bytes(
        cfg,
        num_slots=slots,
        max_length=length,
        prefill_tokens=256 if setting.chip.platform == "cpu" else 2048,
        slot_ways=setting.ways,
        tensor_ways=setting.tensor,
    )
    growing = 0 if cfg.attention == "cudnn" else 3 * cache // 4
    return {"decode": weights, "cache": cache, "other": max(work, growing)}


def update_batch(setting: Setting, stage: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the largest batch that an update of a stage gets."""
    section = setting.found.config[stage]
    ids, yes, number = np.int32, bool, np.float32
    if stage == "policy":
        size, prompt = section.update_batch, section.prompt_tokens
        reply = section.reply_tokens
        whole = (size, prompt + reply)
        shapes = {"tokens": (whole, ids), "positions": (whole, ids)}
        shapes |= {"prompt_mask": ((size, prompt), yes)}
        shapes |= {name: ((size, reply), yes) for name in ("response_mask", "weighs")}
        numbers = ("logprobs", "values", "advantages", "returns")
        shapes |= {name: ((size, reply), number) for name in numbers}
    else:
        size, length = section.batch_size, section.lengths[-1]
        rows = (size, 2, length) if stage == "preference" else (size, length)
        shapes = {"tokens": (rows, ids), "mask": (rows, yes)}
        if stage == "preference":
            shapes |= {"prob_2": ((size,), number), "counted": ((size,), yes)}
        else:
            weighs = (size, 1) if section.per_sequence else rows
            shapes |= {"targets": (rows, yes), "weighs": (weighs, yes)}
    return {name: jax.ShapeDtypeStruct(*both) for name, both in shapes.items()}


def batch_bytes(
    setting: Setting, batch: Mapping[str, jax.ShapeDtypeStruct], *, unread: str
) -> int:
    """Return the bytes of a batch on a device, without the array ``unread``.

    An update that takes its batch whole never reads the array of weights, and the
    compiler leaves it out.
    """
    where = sharding.batch_sharding(setting.found.mesh)
    read = {name: leaf for name, leaf in batch.items() if name != unread}
    return device_bytes(place(read, jax.tree.map(lambda _: where, read)))
