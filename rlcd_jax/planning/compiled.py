"""What the compiler says of the updates of a plan: lowered and compiled, never run.

The updates are those of the stages' own trainers, for a mesh of devices that may be
fake or absent; no array is ever made. TPUs and GPUs that are not there are compiled for
by their PJRT plugins alone, where those are installed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.job import setup, trainer
from rlcd_jax.planning import chips, gpu_targets, plan, sizes
from rlcd_jax.ppo import learning
from rlcd_jax.stages import distill_context, train_preference

UPDATES = 1000  # of a training; the schedule's shape has no part in the sizes
TRAINERS: dict[str, Callable[[setup.Job], trainer.Trainer]] = {
    "preference": lambda job: train_preference.make_trainer(job, UPDATES),
    "distill": lambda job: distill_context.make_trainer(job, UPDATES),
    "policy": learning.make_trainer,
}
GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Nothing is timed where no GPU is, and Triton's products need that: some shapes are
# refused without.
GPU_FLAGS = "--xla_gpu_enable_triton_gemm=false"


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


def measure_all(
    config: ConfigDict, topology: chips.Topology, stages: Sequence[str]
) -> dict[str, Measured]:
    """Compile the updates of those stages that have one, each for a topology.

    Args:
      config: of a run.
      topology: what to compile for; of the chip "cpu", this process must have as many
        fake devices.
      stages: names.

    Raises:
      ValueError: the mesh is not that of the topology, or there is no compiler for it.
    """
    mesh = sharding.make_mesh(
        **setup.mesh_sizes(config), devices=find_devices(topology)
    )
    figures = {}
    for stage in stages:
        if stage in TRAINERS:
            try:
                figures[stage] = measure(config, mesh, stage)
            except ValueError as error:
                figures[stage] = Measured(problem=str(error))
    return figures


def measure(config: ConfigDict, mesh: jax.sharding.Mesh, stage: str) -> Measured:
    """Compile the update of one stage for a mesh.

    Args:
      config: of a run.
      mesh: of the devices to compile for.
      stage: one of `TRAINERS`.

    Raises:
      ValueError: the config does not suit the mesh.
    """
    found = plan.planned_job(config, mesh)
    program = TRAINERS[stage](found)
    batch = sizes.update_batch(found, stage)
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


def check_compilable(topology: chips.Topology) -> None:
    """Refuse to compile for GPUs without the plugin that can do it."""
    if topology.chip.platform != "gpu":
        return
    gpu_targets.topology_text(topology)
    if not any(importlib.util.find_spec(name) for name in GPU_PLUGINS):
        raise ValueError(
            f"--compile for {topology.text} needs the CUDA plugin of JAX, though no "
            "GPU; install the extra that has it, pip install -e '.[cuda]', in an "
            "environment of its own; without --compile the plan is an estimate, and "
            f"cpu:{topology.num_devices} checks that every sharding compiles"
        )


def xla_flags(topology: chips.Topology) -> str:
    """Return what XLA_FLAGS must have in the process that compiles for a topology."""
    if topology.chip.platform == "cpu":
        return f"--xla_force_host_platform_device_count={topology.num_devices}"
    return GPU_FLAGS if topology.chip.platform == "gpu" else ""


def find_devices(topology: chips.Topology) -> list[Any]:
    """Return the devices to compile for: fake CPUs, or chips that are not there.

    Raises:
      ValueError: nothing that is installed can compile for them.
    """
    platform = topology.chip.platform
    if platform == "cpu":
        return jax.devices()
    try:
        if platform == "gpu":
            described = topologies.get_topology_desc(
                platform="cuda",
                target_config=gpu_targets.target_config(topology.chip),
                topology=gpu_targets.topology_text(topology),
            )
        else:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=topology.text
            )
    except (RuntimeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        extra, how = "cuda", ""
        if platform == "tpu":
            extra, how = "tpu", ", and give the topology as Google does (v5e:16x16)"
        raise ValueError(
            f"no compiler for {topology.text}: {str(error).partition(chr(10))[0]}; "
            f"install the extra that has one, pip install -e '.[{extra}]', in an "
            f"environment of its own{how}"
        ) from error
    return described.devices
