"""Does a config fit on some chips, how long will it take, and what to change.

Pure: from a config and the name of a topology, without weights, devices or files. A
plan is for every stage of the config and every compiled program in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rlcd_jax import chips, sharding, tasks, tokenizer
from rlcd_jax.datasets import hh_rlhf
from rlcd_jax.models import llama, presets
from rlcd_jax.stages import inputs, plan_passes, plan_programs, plan_sizes
from rlcd_jax.weights import resolve

FITS, TOO_LARGE, REFUSED, UNKNOWN = "fits", "does not fit", "refused", "no limit known"


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The programs of one stage, or why there are none.

    Attributes:
      name: of the stage.
      programs: in the order in which they run.
      problem: the message of the stage's own refusal; "" if there is none.
    """

    name: str
    programs: tuple[plan_passes.Program, ...]
    problem: str = ""

    @property
    def largest(self) -> plan_passes.Program:
        """The program that needs most memory."""
        return max(self.programs, key=lambda program: program.total)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages of a config on some chips."""

    topology: chips.Topology
    mesh: dict[str, int]
    model: str
    num_params: int
    stages: tuple[StagePlan, ...]
    train_prompts: int
    test_prompts: int

    def verdict(self, stage: StagePlan) -> str:
        """Return one of FITS, TOO_LARGE, REFUSED, UNKNOWN."""
        return verdict(stage, self.topology.chip)

    @property
    def works(self) -> bool:
        """Whether no stage is refused or too large."""
        return all(self.verdict(stage) in (FITS, UNKNOWN) for stage in self.stages)

    def seconds(self, program: plan_passes.Program) -> float | None:
        """Return about how long all runs of a program take; None: rates not known."""
        chip = self.topology.chip
        if chip.tflops is None or chip.gbytes is None:
            return None
        rate = self.topology.num_devices * chip.tflops * 1e12 * chips.PRODUCT_SHARE
        products = (program.flops + program.repeated) / rate
        return max(
            products, program.traffic / (chip.gbytes * 1e9 * chips.BANDWIDTH_SHARE)
        )


def make_plan(
    config: ConfigDict, topology: chips.Topology, stages: Sequence[str] = ()
) -> Plan:
    """Return the plan of a config.

    Args:
      config: of a run.
      topology: the chips.
      stages: names; empty takes those of the config.

    Raises:
      ValueError: the mesh does not suit the model or the chips, in any stage.
    """
    setting = make_setting(config, topology)
    params = jax.tree.leaves(
        llama.param_specs(setting.cfg), is_leaf=lambda leaf: hasattr(leaf, "axes")
    )
    return Plan(
        topology=topology,
        mesh=dict(setting.found.mesh.shape),
        model=config.model.spec,
        num_params=sum(plan_sizes.size(spec) for spec in params),
        stages=tuple(plan_stage(setting, name) for name in (stages or config.stages)),
        train_prompts=setting.train_prompts,
        test_prompts=setting.test_prompts,
    )


def make_setting(config: ConfigDict, topology: chips.Topology) -> plan_sizes.Setting:
    """Return what the plans of all stages derive from; raises as ``make_plan``."""
    sizes = (config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    mesh = sharding.abstract_mesh(*sizes, topology.num_devices)
    found = planned_inputs(config, mesh)
    return plan_sizes.Setting(
        found,
        topology.chip,
        train_prompts=num_prompts(found, "train"),
        test_prompts=num_prompts(found, "test"),
    )


def verdict(stage: StagePlan, chip: chips.Chip) -> str:
    """Return one of FITS, TOO_LARGE, REFUSED, UNKNOWN for a stage on a chip."""
    if stage.problem:
        return REFUSED
    if chip.usable_gib is None:
        return UNKNOWN
    fits = stage.largest.total <= chip.usable_gib * chips.GIB
    return FITS if fits else TOO_LARGE


def plan_stage(setting: plan_sizes.Setting, name: str) -> StagePlan:
    """Return the plan of one stage; its own refusal becomes the plan's problem."""
    if name not in plan_programs.STAGES:
        raise ValueError(
            f"unknown stage {name!r}; accepted: {', '.join(plan_programs.STAGES)}"
        )
    try:
        return StagePlan(name, tuple(plan_programs.STAGES[name](setting)))
    except ValueError as error:
        return StagePlan(name, (), str(error))


def planned_inputs(config: ConfigDict, mesh: Any) -> inputs.Inputs:
    """Return inputs as the stages', without weights and with a byte tokenizer.

    Args:
      config: of a run.
      mesh: with or without devices.
    """
    cfg = inputs.configured(find_numbers(config), config)
    sharding.check_heads(cfg.num_heads, cfg.num_kv_heads, mesh)
    sharding.param_shardings(llama.param_specs(cfg), mesh)

    def refuse() -> Any:
        raise ValueError("a plan has no weights; run the stage to load them")

    letters = tokenizer.byte_tokenizer(cfg.vocab_size)
    return inputs.Inputs(config, inputs.load_task(config), mesh, cfg, letters, refuse)


def find_numbers(config: ConfigDict) -> llama.LlamaConfig:
    """Return a model's numbers: a preset's by its name, else those of its files."""
    spec = config.model.spec.removeprefix(inputs.RANDOM)
    if ":" in spec:
        return resolve.resolve_model(spec, inputs.cache_dir(config)).cfg
    return presets.get_preset(spec)


def num_prompts(found: inputs.Inputs, part: str) -> int:
    """Return the prompts of a part of the data, without reading hh-rlhf."""
    config, task = found.config, found.task
    limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    if config.prompts.source != "hh_rlhf":
        return len(inputs.load_prompts(config, task, part))
    if not task.hh_config:
        return len(tasks.load_prompts(task, part))
    known = hh_rlhf.SIZES[task.hh_config][part]
    return min(known, limit or known)
