"""What the compiler says of the programs of a plan: compiled, never run.

They are the stages' own, for a mesh of devices that may be fake or absent; no array is
ever made. TPUs and GPUs that are not there are compiled for by their PJRT plugins
alone, where those are installed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.job import setup
from rlcd_jax.models import packed
from rlcd_jax.planning import chips, collectives, gpu_targets, passes, plan

GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Nothing is timed where no GPU is, and Triton's products need that: some shapes are
# refused without.
GPU_FLAGS = "--xla_gpu_enable_triton_gemm=false"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the compiler says of one program, bytes on one device.

    Attributes:
      arguments: what it is given.
      temporary: all that is made on the way.
      peak: the most at any moment, arguments included.
      collectives: (runs, bytes that a device sends) of each kind, in one run; None:
        the compiler cannot print its program.
      flops: operations of a device in one run as the compiler counts them, a loop's
        body once; 0: it does not say.
      seconds: that compiling took.
      problem: the compiler's refusal; "" if it did not refuse.
    """

    arguments: int = 0
    temporary: int = 0
    peak: int = 0
    collectives: Mapping[str, tuple[int, int]] | None = None
    flops: float = 0.0
    seconds: float = 0.0
    problem: str = ""


Figures = dict[str, dict[str, Measured]]  # by stage and program


def measure_all(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str],
    only: Sequence[str] = (),
) -> Figures:
    """Compile the programs of stages for a topology.

    Args:
      config: of a run.
      topology: what to compile for; of the chip "cpu", this process must have as many
        fake devices.
      stages: names; those of the config if empty.
      only: beginnings of the names of the programs to compile; empty: all.

    Raises:
      ValueError: the mesh is not that of the topology, or there is no compiler for it.
    """
    setting = plan.setting_on(config, make_mesh(config, topology), topology.chip)
    figures: Figures = {}
    for name in stages or config.stages:
        for one in plan.plan_stage(setting, name).programs:
            wanted = not only or one.name.startswith(tuple(only))
            if one.lower is not None and wanted:
                figures.setdefault(name, {})[one.name] = measure(one, setting.job.mesh)
    return figures


def as_json(figures: Figures) -> dict[str, Any]:
    """Return figures as plain data, for another process."""
    return {
        stage: {name: dataclasses.asdict(one) for name, one in programs.items()}
        for stage, programs in figures.items()
    }


def from_json(data: Mapping[str, Any]) -> Figures:
    """Return the figures that `as_json` gave."""
    return {
        stage: {name: Measured(**one) for name, one in programs.items()}
        for stage, programs in data.items()
    }


def make_mesh(config: ConfigDict, topology: chips.Topology) -> jax.sharding.Mesh:
    """Return a config's mesh of the devices of a topology."""
    return sharding.make_mesh(
        **setup.mesh_sizes(config), devices=find_devices(topology)
    )


def measure(program: passes.Program, mesh: jax.sharding.Mesh) -> Measured:
    """Compile a program for a mesh.

    Args:
      program: that can be lowered.
      mesh: of the devices to compile for.
    """
    started = time.monotonic()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.monotonic() - started
        return Measured(seconds=seconds, problem=str(error).partition("\n")[0])
    stats = compiled.memory_analysis()
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes
    whole = held + stats.temp_size_in_bytes - stats.alias_size_in_bytes
    costs = compiled.cost_analysis() or {}
    return Measured(
        arguments=stats.argument_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        peak=stats.peak_memory_in_bytes or whole,
        collectives=sent_by(compiled, mesh.size),
        flops=float(costs.get("flops", 0.0)),
        seconds=time.monotonic() - started,
    )


def sent_by(
    program: jax.stages.Compiled, num_devices: int
) -> dict[str, tuple[int, int]] | None:
    """Return what a program sends (see `Measured`), None if it cannot be printed."""
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError:  # libtpu 0.0.52 does not read all that it wrote
        return None
    return collectives.count(text, num_devices)


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
            packed.compile_for(gpu_targets.backend(topology.chip).capability)
            described = topologies.get_topology_desc(
                platform="cuda",
                target_config=gpu_targets.target_config(topology.chip),
                topology=gpu_targets.topology_text(topology),
            )
        else:
            described = topologies.get_topology_desc(
                platform="tpu",
                topology_name=topology.text,
                num_slices=topology.slices,
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
