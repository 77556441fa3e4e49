"""Does a config fit on some chips, how long will it take, and what to change.

Pure: from a config and the name of a topology, without weights, devices or files. A
plan is for every stage of the config and every compiled program in it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import sharding, tree
from rlcd_jax.job import roles, setup
from rlcd_jax.models import llama, presets, table
from rlcd_jax.planning import chips, counts, gpu_targets, passes, programs, sizes
from rlcd_jax.stages import STAGES
from rlcd_jax.text import byte_tokenizer, tokenizer
from rlcd_jax.weights import resolve

FITS, TOO_LARGE, REFUSED, UNKNOWN = "fits", "does not fit", "refused", "no limit known"


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a plan reckons with beside the chips' own figures.

    Attributes:
      efficiency: share of the peak rate of products that is reached.
      bandwidth_share: share of the memory bandwidth that is.
      margin: share of the usable memory that what "fits" leaves free.
      price: of one chip for one hour, in any currency; 0: not known.
    """

    efficiency: float = chips.PRODUCT_SHARE
    bandwidth_share: float = chips.BANDWIDTH_SHARE
    margin: float = chips.MARGIN
    price: float = 0.0

    def __post_init__(self) -> None:
        for name in ("efficiency", "bandwidth_share"):
            share = getattr(self, name)
            if not 0 < share <= 1:
                raise ValueError(
                    f"{name} {share}; accepted: a share of the peak rate, above 0 and "
                    f"at most 1, such as {getattr(Rates, name)}"
                )
        if not 0 <= self.margin < 1:
            raise ValueError(
                f"margin {self.margin}; accepted: a share of the usable memory, from 0 "
                f"to below 1, such as {chips.MARGIN}"
            )
        if not 0 <= self.price < float("inf"):
            raise ValueError(
                f"price {self.price}; accepted: of one chip for one hour, or 0"
            )

    @classmethod
    def on(cls, chip: chips.Chip, price: float | None = None, **shares: float) -> Rates:
        """Return the rates of a chip, at its list price unless one is named."""
        return cls(price=chip.price if price is None else price, **shares)

    def limit_gib(self, chip: chips.Chip) -> float | None:
        """Return the most that a plan may fill of a chip: usable less the margin."""
        return None if chip.usable_gib is None else chip.usable_gib * (1 - self.margin)


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """The programs of one stage, or why there are none.

    Attributes:
      name: of the stage.
      programs: in the order in which they run.
      problem: the message of the stage's own refusal; "" if there is none.
    """

    name: str
    programs: tuple[passes.Program, ...]
    problem: str = ""

    @property
    def largest(self) -> passes.Program:
        """The program that needs most memory."""
        return max(self.programs, key=lambda program: program.total)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages of a config on some chips.

    Attributes:
      topology: the chips.
      mesh: devices by axis.
      heads: what of the heads is copied or filled up with zeros; "" if nothing.
      models: of the roles in these stages, each (spec, parameters).
      stages: in the order in which they run.
      train_prompts: prompts to simulate and train on.
      test_prompts: held-out prompts.
      rates: what is reckoned with beside the chips' own figures.
    """

    topology: chips.Topology
    mesh: dict[str, int]
    heads: str
    models: Mapping[str, tuple[str, int]]
    stages: tuple[StagePlan, ...]
    train_prompts: int
    test_prompts: int
    rates: Rates

    @property
    def limit_gib(self) -> float | None:
        """The most that a stage may fill; None: not known."""
        return self.rates.limit_gib(self.topology.chip)

    def verdict(self, stage: StagePlan) -> str:
        """Return one of FITS, TOO_LARGE, REFUSED, UNKNOWN."""
        return verdict(stage, self.topology.chip, self.rates)

    @property
    def works(self) -> bool:
        """Whether no stage is refused or too large."""
        return all(self.verdict(stage) in (FITS, UNKNOWN) for stage in self.stages)

    def seconds(self, program: passes.Program) -> float | None:
        """Return about how long all runs of a program take; None: rates not known."""
        chip = self.topology.chip
        if chip.tflops is None or chip.gbytes is None:
            return None
        rate = self.topology.num_devices * chip.tflops * 1e12 * self.rates.efficiency
        products = (program.flops + program.repeated) / rate
        memory = program.traffic / (chip.gbytes * 1e9 * self.rates.bandwidth_share)
        return max(products, memory) + self.sending_seconds(program)

    def sending_seconds(self, program: passes.Program) -> float:
        """Return how long devices send to each other in all runs of a program.

        None of it is taken to be hidden behind products. An axis of the mesh whose
        devices are not of one island sends at the pace of the links between islands.
        """
        chip, span = self.topology.chip, 1
        sent = dict(program.moved.by_axis)
        seconds = 0.0
        for axis, ways in reversed(self.mesh.items()):
            span *= ways
            pace = chip.near if span <= self.topology.island else chip.far
            seconds += sent.get(axis, 0.0) / (pace * 1e9 * chips.LINK_SHARE)
        return seconds

    def hours(self, stage: StagePlan) -> float | None:
        """Return about how long a stage takes; None: refused, or rates not known."""
        times = [self.seconds(program) for program in stage.programs]
        if stage.problem or None in times:
            return None
        return sum(times) / 3600

    @property
    def total_hours(self) -> float | None:
        """About how long all stages take; None: not known of every stage."""
        times = [self.hours(stage) for stage in self.stages]
        return None if None in times else sum(times)

    def cost(self, hours: float) -> float:
        """Return what hours by the clock cost on all the chips; 0: no price known."""
        return hours * self.topology.num_devices * self.rates.price


def make_plan(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str] = (),
    *,
    rates: Rates | None = None,
) -> Plan:
    """Return the plan of a config.

    Args:
      config: of a run.
      topology: the chips.
      stages: names; empty takes those of the config.
      rates: to reckon with; None: the usual ones, and the chip's price.

    Raises:
      ValueError: the mesh does not suit the model or the chips, in any stage.
    """
    rates = rates or Rates.on(topology.chip)
    setting = make_setting(config, topology)
    names = stages or config.stages
    asked = [role for name in names for role in _asked(config, name)]
    settings = {role: setting.of(role) for role in asked or [setting.job.role]}
    heads = (one.cfg.layout.describe() for one in settings.values())
    return Plan(
        topology=topology,
        mesh=dict(setting.job.mesh.shape),
        heads="; ".join(filter(None, dict.fromkeys(heads))),
        models={
            role: (roles.spec_of(config.model, role), _num_params(one.cfg))
            for role, one in settings.items()
        },
        stages=tuple(plan_stage(setting, name) for name in names),
        train_prompts=setting.train_prompts,
        test_prompts=setting.test_prompts,
        rates=rates,
    )


def _asked(config: ConfigDict, name: str) -> tuple[str, ...]:
    """Return the roles of a stage; those of an unknown one are told where it is."""
    return roles.asked(config, name) if name in STAGES else ()


def _num_params(cfg: llama.LlamaConfig) -> int:
    return tree.count_params(table.abstract_params(llama.param_specs(cfg)))


def make_setting(config: ConfigDict, topology: chips.Topology) -> sizes.Setting:
    """Return what the plans of all stages derive from; raises as `make_plan`."""
    mesh = sharding.abstract_mesh(
        **setup.mesh_sizes(config), num_devices=topology.num_devices
    )
    return setting_on(config, mesh, topology.chip)


def setting_on(config: ConfigDict, mesh: Any, chip: chips.Chip) -> sizes.Setting:
    """Return what the plans of all stages derive from, for a mesh.

    Args:
      config: of a run.
      mesh: with or without devices.
      chip: what it is made of.
    """
    job = planned_job(config, mesh, chip)
    task = job.task
    return sizes.Setting(
        job,
        chip,
        train_prompts=counts.num_prompts(config, task, "train"),
        test_prompts=counts.num_prompts(config, task, "test"),
        draws=counts.num_draws(config, task),
        pairs=counts.num_pairs(config, task),
        preference_pairs=counts.preference_pairs(config, task),
    )


def verdict(stage: StagePlan, chip: chips.Chip, rates: Rates) -> str:
    """Return one of FITS, TOO_LARGE, REFUSED, UNKNOWN for a stage on a chip."""
    if stage.problem:
        return REFUSED
    limit = rates.limit_gib(chip)
    if limit is None:
        return UNKNOWN
    fits = stage.largest.total <= limit * chips.GIB
    return FITS if fits else TOO_LARGE


def plan_stage(setting: sizes.Setting, name: str) -> StagePlan:
    """Return the plan of one stage; its own refusal becomes the plan's problem.

    The setting is of any model of the run.
    """
    if name not in STAGES:
        raise ValueError(f"unknown stage {name!r}; accepted: {', '.join(STAGES)}")
    own = STAGES[name].roles
    try:
        setting = setting.of(own[0]) if own else setting
        return StagePlan(name, tuple(programs.of_stage(setting, name)))
    except ValueError as error:
        return StagePlan(name, (), str(error))


def planned_job(
    config: ConfigDict, mesh: Any, chip: chips.Chip, role: str = roles.POLICY
) -> setup.Job:
    """Return inputs as the stages', without weights and with a byte tokenizer.

    Args:
      config: of a run.
      mesh: with or without devices.
      chip: what it is made of.
      role: whose model it is.
    """
    with setup.naming(config, role):
        backend = gpu_targets.backend(chip)
        cfg = setup.configured(find_numbers(config, role), config, backend)
    sharding.param_shardings(llama.param_specs(cfg), mesh)

    def refuse() -> Any:
        raise ValueError("a plan has no weights; run the stage to load them")

    letters = _letters(cfg.vocab_size)
    task = setup.load_task(config)
    find = functools.cache(functools.partial(planned_job, config, mesh, chip))
    return setup.Job(
        config, task, mesh, cfg, letters, refuse, refuse, role, find, backend
    )


@functools.lru_cache(maxsize=4)
def _letters(vocab_size: int) -> tokenizer.Tokenizer:
    """Return a tokenizer of bytes, made once: a search plans hundreds of settings."""
    return byte_tokenizer.make(vocab_size)


def find_numbers(config: ConfigDict, role: str) -> llama.LlamaConfig:
    """Return a model's numbers: a preset's by its name, else those of its files."""
    spec = roles.spec_of(config.model, role).removeprefix(setup.RANDOM)
    if ":" in spec:
        return resolve.resolve_model(spec, setup.cache_dir(config)).cfg
    return presets.get_preset(spec)
