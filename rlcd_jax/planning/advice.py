"""What to change in a config that does not fit: only changes that were planned again.

Every piece of advice is the first of a list of changes with which the plan works; the
list goes from what changes nothing but speed to what takes other chips.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.job import roles, setup
from rlcd_jax.planning import chips, gpu_targets, plan, sizes
from rlcd_jax.ppo import learning
from rlcd_jax.stages import STAGES, Stage

Changes = Mapping[str, Any]  # dotted field of the config -> value
MESH = ("mesh.slices", "mesh.data", "mesh.fsdp", "mesh.tensor")
BATCHES = {
    name: (f"{stage.section}.{stage.batch}", f"{stage.section}.micro_batch")
    for name, stage in STAGES.items()
    if stage.batch
}


@dataclasses.dataclass(frozen=True)
class Advice:
    """Changes with which all stages fit.

    Attributes:
      topology: text of the chips to use.
      changes: fields of the config to set.
    """

    topology: str
    changes: Changes

    def as_flags(self) -> str:
        """Return the changes as they are written on a command line."""
        flags = [f"--config.{name}={value}" for name, value in self.changes.items()]
        return " ".join([f"--topology={self.topology}", *flags])


def advise(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str],
    rates: plan.Rates | None = None,
) -> Advice | None:
    """Return the first changes with which every stage fits, if any do.

    Args:
      config: of a run, which a plan has found wanting.
      topology: the chips; less of them are tried too.
      stages: names.
      rates: as of the plan.
    """
    rates = rates or plan.Rates()
    start = changed(config, {"mesh.data": -1, "mesh.fsdp": 1, "mesh.tensor": 1})
    setting = plan.make_setting(start, topology)
    for fewer in _fewer(topology):
        for mesh in meshes(config, fewer, topology):
            if not possible(setting, mesh, stages):
                continue
            changes = _tune_all(setting, mesh, stages, rates)
            if changes is not None:
                return Advice(fewer.text, {**mesh, **changes})
    return None


def possible(setting: sizes.Setting, mesh: Changes, stages: Sequence[str]) -> bool:
    """Return whether a mesh divides model and batches, and could hold the weights.

    A quick look that spares planning in full what cannot work.
    """
    tensor, fsdp = mesh["mesh.tensor"], mesh["mesh.fsdp"]
    ways, config = mesh["mesh.slices"] * mesh["mesh.data"] * fsdp, setting.job.config
    asked = {role for name in stages for role in roles.asked(config, name)}
    for cfg in (setting.of(role).cfg for role in asked):
        split = (cfg.mlp_dim, cfg.vocab_size)
        if any(size % tensor for size in split) or cfg.embed_dim % fsdp:
            return False
    if any(
        _field(config, BATCHES[name][0]) % ways for name in stages if name in BATCHES
    ):
        return False
    limit = (setting.chip.usable_gib or math.inf) * chips.GIB

    def needed(stage: Stage) -> float:
        cfg = setting.of(stage.roles[0]).cfg
        params = cfg.num_layers * cfg.embed_dim * 3 * cfg.mlp_dim
        models = int(stage.name in BATCHES)
        if stage.name == "policy":
            models = len(learning.trained(config.policy))
        trained = 16 * models * params / (tensor * fsdp)
        return 2 * stage.draws * params / tensor + trained

    own = [STAGES[name] for name in stages]
    return all(needed(stage) <= limit for stage in own if stage.roles)


def _tune_all(
    setting: sizes.Setting, mesh: Changes, stages: Sequence[str], rates: plan.Rates
) -> dict[str, Any] | None:
    """Return what to change beside the mesh so that all stages fit, if that helps."""
    changes: dict[str, Any] = {}
    for name in stages:
        more = _tune(setting, name, {**mesh, **changes}, rates)
        if more is None:
            return None
        changes |= more
    return changes


def changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    """Return a copy of a config with some fields set."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.update_from_flattened_dict(dict(changes))
    return copy


def _tune(
    setting: sizes.Setting, name: str, before: Changes, rates: plan.Rates
) -> dict[str, Any] | None:
    """Return what to change for one stage beside `before`; None: nothing helps."""
    base = changed(setting.job.config, before)
    options = list(stage_changes(base, name))

    def works(own: Changes) -> bool:
        stage = plan_stage(setting, changed(base, own), name)
        return plan.verdict(stage, setting.chip, rates) in (plan.FITS, plan.UNKNOWN)

    return next(filter(works, options), None) if works(options[-1]) else None


def plan_stage(setting: sizes.Setting, config: ConfigDict, name: str) -> plan.StagePlan:
    """Return the plan of a stage by another config of the same model and data."""
    mesh_sizes = setup.mesh_sizes(config)
    mesh = sharding.abstract_mesh(
        **mesh_sizes, num_devices=math.prod(mesh_sizes.values())
    )
    job = _moved(setting.job, config, mesh, setting.chip)
    return plan.plan_stage(dataclasses.replace(setting, job=job), name)


def _moved(
    job: setup.Job, config: ConfigDict, mesh: Any, chip: chips.Chip
) -> setup.Job:
    """Return a job of a plan, and those of its other models, on another mesh."""
    backend = gpu_targets.backend(chip)
    return dataclasses.replace(
        job,
        config=config,
        cfg=setup.configured(job.cfg, config, backend),
        backend=backend,
        mesh=mesh,
        find=lambda role: _moved(job.of(role), config, mesh, chip),
    )


def stage_changes(config: ConfigDict, name: str) -> Iterator[dict[str, Any]]:
    """Yield changes of one stage, from none to the smallest memory."""
    batches: list[dict[str, Any]] = [{}]
    if name in BATCHES:
        whole, part = BATCHES[name]
        size = _field(config, whole)
        now = _field(config, part) or size
        ways = config.mesh.slices * config.mesh.data * config.mesh.fsdp
        smaller = (now // 2**n for n in range(1, 9) if not now % 2**n)
        batches += [{part: few} for few in smaller if not few % ways]
    slots: list[dict[str, Any]] = [{}]
    if STAGES[name].draws:
        now = config.engine.slots_per_device
        slots += [{"engine.slots_per_device": now // n} for n in (2, 4, 8) if now // n]
    remat = [{}] if config.model.remat == "full" else [{}, {"model.remat": "full"}]
    for parts in itertools.product(remat, slots, batches):
        yield {key: value for part in parts for key, value in part.items()}


def _field(config: ConfigDict, name: str) -> Any:
    section, field = name.split(".")
    return config[section][field]


def _fewer(topology: chips.Topology) -> Iterator[chips.Topology]:
    """Yield the topology, then ones of half, a quarter, … of its chips."""
    yield topology
    count = topology.num_devices
    while count % 2 == 0:
        count //= 2
        yield chips.parse_topology(f"{topology.chip.name}:{count}")


def meshes(
    config: ConfigDict, topology: chips.Topology, asked: chips.Topology
) -> Iterator[dict[str, int]]:
    """Yield meshes: the config's own, then rising in tensor, then in fsdp."""
    count, slices = topology.num_devices, config.mesh.slices
    if topology == asked:
        own = sharding.mesh_shape(**setup.mesh_sizes(config), num_devices=count)
        yield dict(zip(MESH, own, strict=True))
    if count % slices:
        return
    each = count // slices
    for tensor in _divisors(each):
        for fsdp in _divisors(each // tensor):
            shape = (slices, each // (tensor * fsdp), fsdp, tensor)
            yield dict(zip(MESH, shape, strict=True))


def _divisors(count: int) -> list[int]:
    return [n for n in range(1, count + 1) if count % n == 0]
