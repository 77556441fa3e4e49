"""Bytes on one device of what stages hold: models, batches, the decode engine.

Shapes and shardings come from the code that allocates, on a mesh that needs no devices,
so these figures are exact; what a program makes on its way is estimated elsewhere
(`models.footprint`, `decode.plan`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.decode import plan as decode_plan
from rlcd_jax.job import engine_shape, setup
from rlcd_jax.models import llama, table
from rlcd_jax.planning import chips
from rlcd_jax.ppo import learning, packing, rollout
from rlcd_jax.preference import pair_ids
from rlcd_jax.scoring import reading
from rlcd_jax.stages import distill_context

Shapes = Any  # tree whose leaves have shape and dtype


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the programs of all stages derive from.

    Attributes:
      job: of the stage; its mesh may have no devices.
      chip: what the mesh is made of.
      train_prompts: prompts to simulate and train on.
      test_prompts: held-out prompts.
      pairs: that are simulated.
      preference_pairs: that a preference model has, those held out included.
    """

    job: setup.Job
    chip: chips.Chip
    train_prompts: int
    test_prompts: int
    pairs: int
    preference_pairs: int

    @property
    def cfg(self) -> llama.LlamaConfig:
        """The model's numbers."""
        return self.job.cfg

    @property
    def tensor(self) -> int:
        """Devices among which heads and vocabulary are split."""
        return self.job.mesh.shape["tensor"]

    @property
    def ways(self) -> int:
        """Devices among which rows and slots are split."""
        return sharding.batch_ways(self.job.mesh)


def model_bytes(setting: Setting, specs: Any, *, frozen: bool) -> int:
    """Return the bytes of a model: the float32 master, or as `reading.frozen`."""
    shapes = table.abstract_params(specs)
    if frozen:
        dtype = setting.cfg.dtype
        shapes = jax.eval_shape(lambda p: reading.frozen_form(p, dtype), shapes)
    return sharding.device_bytes(
        shapes, sharding.param_shardings(specs, setting.job.mesh)
    )


@dataclasses.dataclass(frozen=True)
class EngineSizes:
    """What a stage's decode engine is, and what it holds on a device."""

    shape: engine_shape.EngineShape
    memory: decode_plan.Memory

    @property
    def held(self) -> dict[str, int]:
        """Bytes that stay between its programs, as in `passes.SIZES`."""
        return {"decode": self.memory.weights, "cache": self.memory.cache}

    @property
    def running(self) -> dict[str, int]:
        """Bytes while its programs run."""
        return {**self.held, "other": self.memory.work}


def engine_sizes(
    setting: Setting, *, prompt_tokens: int, reply_tokens: int
) -> EngineSizes:
    """Return the size of the engine that a stage makes for texts of these lengths."""
    job = setting.job
    shape = engine_shape.find(
        job.config,
        job.mesh,
        prompt_tokens=prompt_tokens,
        reply_tokens=reply_tokens,
    )
    memory = decode_plan.estimate(
        setting.cfg,
        shape.sizes(setting.cfg, setting.chip.platform),
        num_slots=shape.num_slots,
        mesh=shape.mesh,
        weights=shape.weights,
    )
    return EngineSizes(shape, memory)


def update_batch(job: setup.Job, stage: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the largest batch that an update of a stage gets.

    They are those of a batch of rows as long as allowed, made by the stage itself.
    """
    batch = BATCHES[stage](job)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in batch.items()
    }


def _preference_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    section = job.config.preference
    ids = (0,) * section.lengths[-1]
    row = pair_ids.TokenPair(ids, ids, prob_2=1.0)
    collate = pair_ids.collate(job, section.lengths)
    return collate([row] * section.batch_size)


def _distill_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    section = job.config.distill
    length = section.lengths[-1]
    row = distill_context.Example((0,) * length, (True,) * length)
    collate = distill_context.collate(job, section.lengths, section.per_sequence)
    return collate([row] * section.batch_size)


def _policy_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the one minibatch of a rollout that is no larger than an update."""
    section = job.config.policy
    rows, prompt, reply = (
        section.update_batch,
        section.prompt_tokens,
        section.reply_tokens,
    )
    packed = packing.pack(
        [(0,) * prompt] * rows,
        [(0,) * reply] * rows,
        prompt_length=prompt,
        response_length=reply,
        pad_id=0,
    )
    names = [field.name for field in dataclasses.fields(rollout.Rollout)]
    numbers = dict.fromkeys(names, np.zeros((rows, reply), np.float32))
    numbers["scores"] = np.zeros(rows, np.float32)
    whole = rollout.Rollout(**numbers | {"packed": packed})
    return next(learning.minibatches(whole, job.config, step=1))


BATCHES = {
    "preference": _preference_batch,
    "distill": _distill_batch,
    "policy": _policy_batch,
}


def batch_bytes(
    setting: Setting, batch: Mapping[str, jax.ShapeDtypeStruct], *, unread: str
) -> int:
    """Return the bytes of a batch on a device, without the array `unread`.

    An update that takes its batch whole never reads the array of weights, and the
    compiler leaves it out.
    """
    read = {name: leaf for name, leaf in batch.items() if name != unread}
    return sharding.device_bytes(read, sharding.batch_sharding(setting.job.mesh))
