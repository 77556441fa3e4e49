"""Bytes on one device of what stages hold: models, batches, the decode engine.

Shapes and shardings come from the code that allocates, on a mesh that needs no devices,
so these figures are exact; what a program makes on its way is estimated elsewhere
(`models.footprint`, `decode.plan`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding, stages, tree
from rlcd_jax.decode import jitted
from rlcd_jax.job import setup, trained_form
from rlcd_jax.models import frozen as frozen_weights
from rlcd_jax.models import llama, lora, quantized, table
from rlcd_jax.planning import chips
from rlcd_jax.ppo import learning, reply_rows, rollout

Shapes = Any  # tree whose leaves have shape and dtype


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the programs of all stages derive from.

    Attributes:
      job: of the stage; its mesh may have no devices.
      chip: what the mesh is made of.
      train_prompts: prompts to simulate and train on.
      test_prompts: held-out prompts.
      draws: of prompts, in the simulation.
      pairs: that are simulated: all of the replies of each draw.
      preference_pairs: that a preference model has, those held out included.
    """

    job: setup.Job
    chip: chips.Chip
    train_prompts: int
    test_prompts: int
    draws: int
    pairs: int
    preference_pairs: int

    @property
    def cfg(self) -> llama.LlamaConfig:
        """The model's numbers."""
        return self.job.cfg

    def of(self, role: str) -> Setting:
        """Return the setting with the model of a role."""
        return dataclasses.replace(self, job=self.job.of(role))

    @property
    def tensor(self) -> int:
        """Devices among which heads and vocabulary are split."""
        return self.job.mesh.shape["tensor"]

    @property
    def ways(self) -> int:
        """Devices among which rows and slots are split."""
        return sharding.batch_ways(self.job.mesh)


def model_shapes(setting: Setting, specs: Any, *, frozen: bool) -> Shapes:
    """Return a model's shapes on the mesh: the float32 master, or `reading.frozen`.

    Where adapters are trained, the one model that is read so is their base.
    """
    if frozen and setting.job.lora is not None:
        return base_shapes(setting)
    if frozen:
        return _frozen_shapes(setting, specs)
    shapes = table.abstract_params(specs)
    return jitted.placed(shapes, sharding.param_shardings(specs, setting.job.mesh))


def _frozen_shapes(setting: Setting, specs: Any) -> Shapes:
    shapes = frozen_weights.shapes(specs, setting.cfg.dtype)
    return jitted.placed(shapes, sharding.param_shardings(specs, setting.job.mesh))


def base_shapes(setting: Setting) -> Shapes:
    """Return the shapes of the base on which adapters lie; {} where there are none."""
    base = trained_form.base_of(setting.job)
    return {} if base is None else base.shapes


def is_quantized(setting: Setting) -> bool:
    """Say whether the base is in eight bits."""
    return setting.job.base_form == quantized.INT8


def quantizing_bytes(setting: Setting) -> int:
    """Return what is there of the base while its matrices are brought to eight bits.

    One is made after the other, of a base that is read as it is.
    """
    read = _frozen_shapes(setting, llama.param_specs(setting.cfg))
    made = map(sharding.device_bytes, base_shapes(setting)["layers"].values())
    return sharding.device_bytes(read) + max(made)


def base_bytes(setting: Setting) -> int:
    """Return the bytes of the base that adapters share; 0 where there are none."""
    return sharding.device_bytes(base_shapes(setting))


def trained_shapes(setting: Setting, item: str) -> Shapes:
    """Return the shapes of what is trained of a model, and restored of it."""
    return model_shapes(setting, trained_form.specs(setting.job, item), frozen=False)


def read_shapes(setting: Setting, item: str) -> Shapes:
    """Return the shapes of a trained model that is only read; of `reading.frozen`."""
    if setting.job.lora is None:
        specs = trained_form.specs(setting.job, item)
        return model_shapes(setting, specs, frozen=True)
    own = trained_shapes(setting, item)
    return lora.lay(base_shapes(setting), own, setting.job.lora.scale)


def read_bytes(setting: Setting, item: str) -> int:
    """Return the bytes of `read_shapes` beside those of the base."""
    if setting.job.lora is None:
        return sharding.device_bytes(read_shapes(setting, item))
    return sharding.device_bytes(trained_shapes(setting, item))


def model_bytes(setting: Setting, specs: Any, *, frozen: bool) -> int:
    """Return the bytes that a device holds of `model_shapes`."""
    return sharding.device_bytes(model_shapes(setting, specs, frozen=frozen))


def update_batch(job: setup.Job, stage: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the largest batch that an update of a stage gets.

    They are those of a batch of rows as long as allowed, made by the stage itself.
    """
    drawn = stage == "policy"
    make = _policy_batch if drawn else stages.STAGES[stage].load().largest_batch
    batch = make(job)
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in batch.items()
    }


def _policy_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the one minibatch of a rollout that is no larger than an update's."""
    section = job.config.policy
    ids = (0,) * section.prompt_tokens, (0,) * section.reply_tokens
    texts = [reply_rows.text(job, *ids)] * section.update_batch
    whole = _rollout(job, section.update_batch)
    return next(learning.minibatches(whole, texts, job, step=1))


def rollout_bytes(job: setup.Job) -> int:
    """Return the bytes of a step's rollout, of which each device has all."""
    return tree.count_bytes(_rollout(job, job.config.policy.rollouts))


def _rollout(job: setup.Job, rows: int) -> rollout.Rollout:
    """Return a rollout of `rows` replies as long as allowed."""
    reply = job.config.policy.reply_tokens
    names = [field.name for field in dataclasses.fields(rollout.Rollout)]
    numbers = dict.fromkeys(names, np.zeros((rows, reply), np.float32))
    numbers["scores"] = np.zeros(rows, np.float32)
    if learning.VALUE not in learning.trained(job.config.policy):
        numbers |= {"values": None, "returns": None}
    return rollout.Rollout(**numbers | {"mask": np.ones((rows, reply), bool)})


def batch_bytes(
    setting: Setting,
    batch: Mapping[str, jax.ShapeDtypeStruct],
    *,
    unread: Collection[str],
) -> int:
    """Return the bytes of a batch on a device, without the arrays `unread`.

    An update that takes its batch whole never reads the array of weights, nor what is
    for another model, and the compiler leaves them out.
    """
    read = {name: leaf for name, leaf in batch.items() if name not in unread}
    return sharding.device_bytes(read, sharding.batch_sharding(setting.job.mesh))
