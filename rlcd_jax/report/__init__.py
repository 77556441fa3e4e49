"""One HTML page of what a run left: a single file that needs no network.

A part that is not there, or that cannot be read, is named on the page with the reason
and never filled in. The page may be made while the run still goes on.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import record_files, trackers
from rlcd_jax.report import (
    answer,
    browsers,
    comparing,
    curves,
    histograms,
    pages,
    panels,
    plots,
    reading,
    sections,
    tabulate,
    watch,
)
from rlcd_jax.statistics.estimates import Missing

COMPARISON_NAME = "compare.html"
TABLES_NAME = "tables.html"


def write_report(
    workdir: str | os.PathLike[str],
    *,
    preset: Mapping[str, Any] | None = None,
    studies: Sequence[str | os.PathLike[str]] = (),
) -> pathlib.Path:
    """Write `report.html` of a run and return its path.

    Args:
      workdir: folder of the run.
      preset: the config as it was before single fields were set, to show what was
        changed; None: the page says that nothing was given to compare with.
      studies: folders of human studies whose results are shown.

    Raises:
      ValueError: the folder holds nothing of a run.
    """
    run = reading.read_run(workdir)
    drawn = curves.stage_curves({"": run.metrics}, apart=watch.CURVES)
    page = _page(
        "page.html",
        run=run,
        title=sections.title(run),
        answer=answer.answer(run),
        tiles=sections.tiles(run),
        changes=sections.changes(run, preset),
        config=sections.config_groups(run.config),
        stages=sections.stages(run),
        too_long=sections.too_long(run),
        cut=sections.cut(run),
        curves=drawn,
        watch=watch.watch(run, drawn),
        tables=[
            *tabulate.tables({"": run.tables}),
            *tabulate.regression({"": run.regression}),
        ],
        studies=tabulate.studies(map(reading.read_study, studies)),
        spread=histograms.histograms(run),
        contrast=tabulate.contrast(run.contrast),
        drops=sections.drops(run),
        pair_cells=sections.pair_cells(run),
        samples=browsers.samples({"": run}),
        policy_samples=browsers.policy_samples(run),
        pairs=browsers.pairs(run),
        dropped=browsers.dropped(run),
        cost=sections.cost({"": run}),
        environment=sections.key_values(run.environment),
        plan=sections.plan(run.plan),
    )
    return _write(run.folder / trackers.REPORT, page)


def write_comparison(
    workdirs: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> pathlib.Path:
    """Write a page that shows runs side by side and return its path.

    Args:
      workdirs: folders of two or more runs; those that differ in the seed alone are
        shown as one group, with mean and spread.
      path: file to write, such as `compare.html`.

    Raises:
      ValueError: one of the folders holds nothing of a run, or they are too few.
    """
    runs = comparing.labelled([reading.read_run(folder) for folder in workdirs])
    page = _page(
        "compare.html",
        runs=runs,
        heads=comparing.headings(runs),
        answers=comparing.answers(runs),
        changes=sections.differences(*(run.config for run in runs.values())),
        environment=sections.differences(*(run.environment for run in runs.values())),
        stages={label: sections.stages(run) for label, run in runs.items()},
        curves=curves.stage_curves({k: run.metrics for k, run in runs.items()}),
        watch=watch.compared(runs),
        tables=[
            *tabulate.tables({k: run.tables for k, run in runs.items()}),
            *tabulate.regression({k: run.regression for k, run in runs.items()}),
        ],
        drops={label: sections.drops(run) for label, run in runs.items()},
        samples=browsers.samples(runs),
        cost=sections.cost(runs),
    )
    return _write(pathlib.Path(path), page)


def write_tables(
    path: str | os.PathLike[str],
    tables: Mapping[str, list[dict[str, Any]] | Missing],
    *,
    title: str,
    figures: Mapping[str, Sequence[str]] | None = None,
) -> pathlib.Path:
    """Write a page of tables and return its path.

    Args:
      path: file to write, such as `tables.html`.
      tables: tables as `tables.as_json` makes them, by the name that leads to them.
      title: of the page.
      figures: SVG texts of `plots` to show below tables, by the same names.
    """
    path = pathlib.Path(path)
    shown = {name: tabulate.tables({"": part}) for name, part in tables.items()}
    notes = tabulate.take_common_notes([t for own in shown.values() for t in own])
    page = _page(
        "tables.html",
        title=title,
        folder=path.parent,
        shown=shown,
        notes=notes,
        figures={k: list(map(plots.Svg, v)) for k, v in (figures or {}).items()},
    )
    return _write(path, page)


def _page(template: str, **given: Any) -> str:
    return str(pages.render(template, colour_of=panels.colour_of, **given))


def _write(path: pathlib.Path, page: str) -> pathlib.Path:
    """Write a page; half a surrogate pair, which JSON allows, becomes a "?"."""
    record_files.write_text(path, page.encode("utf-8", "replace").decode())
    return path
