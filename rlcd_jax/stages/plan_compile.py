"""What the compiler says of the updates of a plan: lowered and compiled, never run.

The updates are those of the stages' own trainers, for a mesh of devices that may be
fake or absent; no array is ever made.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from rlcd_jax import chips
from rlcd_jax.stages import (
    distill_context,
    inputs,
    plan,
    plan_sizes,
    ppo,
    train_preference,
    trainer,
)

UPDATES = 1000  # of a training; the schedule's shape has no part in the sizes
TRAINERS: dict[str, Callable[[inputs.Inputs], trainer.Trainer]] = {
    "preference": lambda found: train_preference.make_trainer(found, UPDATES),
    "distill": lambda found: distill_context.make_trainer(found, UPDATES),
    "policy": ppo.make_trainer,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the compiler says of one update, bytes on one device.

    Attributes:
      arguments: state and batch.
      temporary: all that is made on the way.
      peak: the most at any moment.
      seconds: that compiling took.
      problem: the compiler's refusal; "" if it did not refuse.
    """

    arguments: int = 0
    temporary: int = 0
    peak: int = 0
    seconds: float = 0.0
    problem: str = ""


def measure(config: ConfigDict, mesh: jax.sharding.Mesh, stage: str) -> Measured:
    """Compile the update of one stage for a mesh.

    Args:
      config: of a run.
      mesh: of the devices to compile for.
      stage: one of ``TRAINERS``.

    Raises:
      ValueError: the config does not suit the mesh.
    """
    found = plan.planned_inputs(config, mesh)
    chip = chips.CHIPS["cpu"]  # plays no part in a batch
    batch = plan_sizes.update_batch(plan_sizes.Setting(found, chip, 0, 0), stage)
    program = TRAINERS[stage](found)
    started = time.monotonic()
    try:
        compiled = program.lower(batch).compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.monotonic() - started
        return Measured(seconds=seconds, problem=str(error).partition("\n")[0])
    stats = compiled.memory_analysis()
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes
    whole = held + stats.temp_size_in_bytes - stats.alias_size_in_bytes
    return Measured(
        arguments=stats.argument_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        peak=stats.peak_memory_in_bytes or whole,
        seconds=time.monotonic() - started,
    )
