"""A plan and all that was asked about it, as one report."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from rlcd_jax.planning import advice, chips, compiled, plan, search, tables

FILE_NAME = "plan.json"  # in a run's folder, whose report shows it


def make_report(
    config: ConfigDict,
    topology: chips.Topology,
    stages: Sequence[str],
    rates: plan.Rates,
    *,
    problems: Sequence[str] = (),
    searches: bool = False,
    measure: Callable[[], compiled.Figures] | None = None,
) -> tables.Report:
    """Plan stages of a run, say what to change where it does not work, rank, compile.

    Args:
      config: of the run.
      topology: the chips.
      stages: names.
      rates: what of the chips is reached, and their price.
      problems: what the run's own first checks refuse in the config.
      searches: whether to rank all settings that fit; no change is advised then.
      measure: returns the compiler's figures; None: they are not asked for.
    """
    made = plan.make_plan(config, topology, stages, rates=rates)
    wanting = not made.works and not searches
    return tables.Report(
        made,
        change=advice.advise(config, topology, stages, rates) if wanting else None,
        measured=measure() if measure else {},
        problems=problems,
        ranked=search.rank(config, topology, stages, rates) if searches else None,
    )


def leave(report: tables.Report, workdir: str | pathlib.Path) -> None:
    """Write a report into the folder of its run, which is made when absent."""
    path = pathlib.Path(workdir, FILE_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.render(report, "json") + "\n")
