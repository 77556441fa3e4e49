"""The fastest of the settings that fit: mesh, parts of a batch, remat and slots."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.models import llama
from rlcd_jax.planning import advice, chips, plan, sizes
from rlcd_jax.stages import STAGES

Changes = Mapping[str, Any]  # dotted field of the config -> value
# What of a config the time and memory of a stage depend on, beside the mesh.
KNOBS = {
    name: (
        *(("model.remat", f"{stage.section}.micro_batch") if stage.batch else ()),
        *(("engine.slots_per_device",) if stage.draws else ()),
    )
    for name, stage in STAGES.items()
}
FACTORS = (0.25, 0.5, 1, 2, 4)  # of the config's number of slots


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One setting with which all stages fit.

    Attributes:
      changes: fields of the config.
      hours: of all stages.
      largest_gib: of the program that takes most memory.
    """

    changes: Changes
    hours: float
    largest_gib: float

    def as_flags(self) -> str:
        """Return the changes as they are written on a command line."""
        return " ".join(f"--config.{k}={v}" for k, v in self.changes.items())

    def as_json(self) -> dict[str, Any]:
        """Return the candidate as plain data."""
        return {
            "flags": self.as_flags(),
            "hours": round(self.hours, 4),
            "largest_gib": round(self.largest_gib, 3),
        }


def rank(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str],
    rates: plan.Rates,
) -> list[Candidate]:
    """Return the settings with which every stage fits, the fastest first.

    For each mesh, remat and number of slots only the best part of a batch of each stage
    is kept: it concerns that stage alone.

    Args:
      config: of a run; what is not searched for stays as it is there.
      topology: the chips, all of which are used.
      stages: names.
      rates: to reckon with.
    """
    start = advice.changed(config, {"mesh.data": -1, "mesh.fsdp": 1, "mesh.tensor": 1})
    setting = plan.make_setting(start, topology)
    whole = plan.Plan(topology, {}, "", {}, (), 0, 0, rates)
    candidates = []
    seen = set()
    for mesh in advice.meshes(config, topology, topology):
        key = tuple(mesh.values())
        if key in seen or not advice.possible(setting, mesh, stages):
            continue
        seen.add(key)
        candidates += _on_mesh(setting, whole, mesh, stages)
    return sorted(candidates, key=lambda one: one.hours)


def _on_mesh(
    setting: sizes.Setting, whole: plan.Plan, mesh: Changes, stages: Sequence[str]
) -> Iterator[Candidate]:
    """Yield the best candidate of each remat and number of slots on one mesh."""
    base = advice.changed(setting.job.config, mesh)
    whole = dataclasses.replace(
        whole, mesh=dict(zip(sharding.MESH_AXES, mesh.values(), strict=True))
    )
    options = {name: list(values(base, name)) for name in _knobs(stages)}
    best: dict[tuple, tuple[float, float, dict[str, Any]] | None] = {}

    def of(name: str, changes: Changes) -> tuple[float, float, dict[str, Any]] | None:
        """Return (hours, GiB, changes) of a stage, with its best part of a batch."""
        own = {knob: changes[knob] for knob in KNOBS[name] if knob in changes}
        key = (name, *own.items())
        if key not in best:
            parts = [k for k in KNOBS[name] if k not in own]
            tried = (
                _look(
                    setting,
                    whole,
                    base,
                    name,
                    {**own, **dict(zip(parts, one, strict=True))},
                )
                for one in itertools.product(*(options[part] for part in parts))
            )
            # The first that fits: the more parts, the more often weights are read.
            best[key] = next(filter(None, tried), None)
        return best[key]

    shared = [k for k in ("model.remat", "engine.slots_per_device") if k in options]
    for chosen in itertools.product(*(options[name] for name in shared)):
        changes = dict(zip(shared, chosen, strict=True))
        parts = [of(name, changes) for name in stages]
        if None in parts:
            continue
        for _, _, own in parts:
            changes |= own
        yield Candidate(
            {**mesh, **changes},
            sum(hours for hours, _, _ in parts),
            max(gib for _, gib, _ in parts),
        )


def _knobs(stages: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(knob for name in stages for knob in KNOBS[name]))


def values(config: ConfigDict, knob: str) -> Iterator[Any]:
    """Yield what a field may be; parts of a batch, from all of it to the smallest."""
    if knob == "model.remat":
        yield from llama.REMAT
        return
    section, field = knob.split(".")
    ways = config.mesh.slices * config.mesh.data * config.mesh.fsdp
    if field == "slots_per_device":
        now = config[section][field]
        yield from dict.fromkeys(max(1, int(now * factor)) for factor in FACTORS)
        return
    whole = config[section][STAGES[section].batch]
    yield 0
    size = whole
    while size % 2 == 0 and size // 2 % ways == 0 and size > ways:
        size //= 2
        yield size


def _look(
    setting: sizes.Setting,
    whole: plan.Plan,
    base: ConfigDict,
    name: str,
    changes: Changes,
) -> tuple[float, float, dict[str, Any]] | None:
    """Return hours, GiB and changes of a stage, or None where it does not fit."""
    stage = advice.plan_stage(setting, advice.changed(base, changes), name)
    if whole.verdict(stage) != plan.FITS:
        return None
    return whole.hours(stage), stage.largest.total / chips.GIB, dict(changes)
