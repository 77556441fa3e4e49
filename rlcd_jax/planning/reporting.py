"""A plan and all that was asked about it, as one report."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from rlcd_jax.checks import refusals
from rlcd_jax.planning import advice, chips, compiled, plan, search, tables

FILE_NAME = "plan.json"  # in a run's folder, whose report shows it


def name_chips(
    config: ConfigDict,
    topology: str,
    *,
    slices: int = 0,
    memory_share: float | None = None,
) -> tuple[ConfigDict, chips.Topology]:
    """Return a config with its slices, and the chips that a plan of it is for.

    Args:
      config: of the run.
      topology: of one slice, as text.
      slices: how many there are; 0: as many as the config's mesh has.
      memory_share: of a GPU's memory; None: as JAX has it.

    Raises:
      ValueError: see `chips.parse_topology`.
    """
    if slices:
        config = advice.changed(config, {"mesh.slices": slices})
    named = chips.parse_topology(topology, config.mesh.slices, memory_share)
    return config, named


def make_report(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str],
    rates: plan.Rates,
    *,
    searches: bool = False,
    measure: Callable[[], compiled.Figures] | None = None,
) -> tables.Report:
    """Plan stages of a run, say what to change where it does not work, rank, compile.

    Args:
      config: of the run.
      topology: the chips.
      stages: names; those of the config if empty.
      rates: what of the chips is reached, and their price.
      searches: whether to rank all settings that fit; no change is advised then.
      measure: returns the compiler's figures; None: they are not asked for.

    Raises:
      ValueError: the stages cannot be planned, or not be compiled for these chips.
    """
    stages = tuple(stages) or config.stages
    if measure:
        compiled.check_compilable(topology)
    told = refusals.verdict(config, names=stages, num_devices=topology.num_devices)
    made = plan.make_plan(config, topology, stages, rates=rates)
    wanting = not made.works and not searches
    return tables.Report(
        made,
        change=advice.advise(config, topology, stages, rates) if wanting else None,
        measured=measure() if measure else {},
        problems=told,
        ranked=search.rank(config, topology, stages, rates) if searches else None,
    )


def leave(report: tables.Report, workdir: str | pathlib.Path) -> None:
    """Write a report into the folder of its run, which is made when absent."""
    path = pathlib.Path(workdir, FILE_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.render(report, "json") + "\n")
