"""Reads the files of a run; each part is its content or the reason why it is not there.

Nothing here needs a device or an import of JAX, so a report opens fast anywhere.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

from rlcd_jax import (
    diagnosis,
    done_mark,
    jsonl,
    metric_rows,
    record_files,
    records,
    stages,
)
from rlcd_jax.human import results
from rlcd_jax.judging import regression_table
from rlcd_jax.report import table_files
from rlcd_jax.statistics.estimates import Missing

SAMPLE_FIELDS = ("prompt_id", "prompt", "system", "reply")
POLICY_SAMPLE_FIELDS = ("prompt_id", "prompt", "reply")
NUMBERS = (
    "num_tokens",
    "divergence",
    "score",
    "kl",
    "wall_time",
)  # where they are there
STUDY_TABLES = ("table", "annotators")
STUDY_JUDGES = "judges"  # there when the study was read with verdicts
VERDICT_FIELDS = ("prompt_id", "judge", "system_1", "system_2", "winner")


@dataclasses.dataclass(frozen=True)
class StageState:
    """What a stage left: how far it came, and its summary."""

    name: str
    folder: str
    makes: str
    state: str  # "finished", "begun", "planned" or "not part of this run"
    summary: dict[str, Any] | Missing


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that a run left, part by part."""

    folder: pathlib.Path
    config: dict[str, Any] | Missing
    environment: dict[str, Any] | Missing
    stages: tuple[StageState, ...]
    metrics: list[dict[str, Any]] | Missing
    pairs: list[records.Pair] | Missing
    dropped: list[records.Dropped] | Missing
    samples: list[dict[str, Any]] | Missing
    verdicts: list[dict[str, Any]] | Missing
    policy_samples: dict[int, list[dict[str, Any]]] | Missing
    tables: list[dict[str, Any]] | Missing
    regression: list[dict[str, Any]] | Missing  # what alignment cost
    held_out: dict[str, list[records.HeldOutPair] | Missing]  # by stage
    contrast: list[dict[str, Any]] | Missing
    plan: dict[str, Any] | Missing

    def stage(self, name: str) -> StageState:
        """Return the stage called `name`."""
        return next(stage for stage in self.stages if stage.name == name)


@dataclasses.dataclass(frozen=True)
class StudyTables:
    """The tables that a human study left, or why there are none."""

    folder: pathlib.Path
    tables: tuple[list[dict[str, Any]] | Missing, ...]


def is_missing(part: Any) -> bool:
    """Say whether a part stands for something that is not there."""
    return isinstance(part, Missing)


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Return what a run left in its folder.

    Raises:
      ValueError: the folder is not there or holds no file of a run.
    """
    folder = pathlib.Path(workdir)
    known = ["config.json", "environment.json", "metrics.jsonl"]
    known += [stage.folder for stage in stages.STAGES.values()]
    if not any((folder / name).exists() for name in known):
        raise ValueError(
            f"workdir {folder} holds nothing of a run; accepted: a folder with one of "
            f"{', '.join(known)}; give the --workdir of experiments.run"
        )
    config = _part(folder, "config.json", _json_object)
    return Run(
        folder=folder,
        config=config,
        environment=_part(folder, "environment.json", _json_object),
        stages=tuple(_stage(folder, name, config) for name in stages.STAGES),
        metrics=_part(folder, "metrics.jsonl", metric_rows.read),
        pairs=_part(folder, "pairs/pairs.jsonl", _records(records.Pair)),
        dropped=_part(folder, "pairs/dropped.jsonl", _records(records.Dropped)),
        samples=_part(folder, "evaluate/samples.jsonl", _lines(*SAMPLE_FIELDS)),
        verdicts=_part(folder, "evaluate/verdicts.jsonl", _lines(*VERDICT_FIELDS)),
        policy_samples=_part(folder, "policy/samples", _steps),
        tables=_part(folder, "evaluate/table.json", table_files.read),
        regression=read_tables(folder / "evaluate", regression_table.STEM),
        held_out={name: _held_out(folder, name) for name in stages.STAGES},
        contrast=_contrast(folder),
        plan=_part(folder, "plan.json", _json_object),
    )


def read_study(folder: str | os.PathLike[str]) -> StudyTables:
    """Return the tables of a study, from the results of `experiments.human read`."""
    place = pathlib.Path(folder)
    if not (place / results.RESULTS).is_dir():
        how = f"first: python -m experiments.human read --workdir {place}"
        there = f"{results.RESULTS}/ is not there; {how}"
        reason = there if place.is_dir() else f"the folder {place} is not there"
        return StudyTables(place, (Missing(reason),))
    names = [f"{results.RESULTS}/{stem}.json" for stem in STUDY_TABLES]
    other = f"{results.RESULTS}/{STUDY_JUDGES}.json"
    names += [other] if (place / other).exists() else []
    return StudyTables(
        place, tuple(_part(place, name, table_files.read) for name in names)
    )


def read_tables(
    folder: str | os.PathLike[str], stem: str
) -> list[dict[str, Any]] | Missing:
    """Return the tables in `stem.json`, or the reason why there are none."""
    return _part(pathlib.Path(folder), f"{stem}.json", table_files.read)


def _part(
    folder: pathlib.Path, name: str, read: Callable[[pathlib.Path], Any]
) -> Any | Missing:
    """Return what `read` makes of a file, or the reason why it cannot."""
    path = folder / name
    if not path.exists():
        return Missing(f"{name} is not there")
    try:
        return read(path)
    except (ValueError, OSError) as error:  # shown on the page, in the part's place
        shown = str(error).replace(f"{folder}{os.sep}", "")
        return Missing(f"{name} cannot be read: {shown}")


def _stage(
    folder: pathlib.Path, name: str, config: dict[str, Any] | Missing
) -> StageState:
    where, makes = stages.STAGES[name].folder, stages.STAGES[name].makes
    planned = [] if is_missing(config) else config.get("stages", [])
    planned = planned if isinstance(planned, list) else []
    if (folder / where / done_mark.DONE).exists():
        state = "finished"
    elif (folder / where).exists():
        state = "begun"
    else:
        state = "planned" if name in planned else "not part of this run"
    summary = _part(folder, f"{where}/summary.json", _summary)
    if is_missing(summary) and state == "finished":
        own = _part(folder, f"{where}/{done_mark.DONE}", _summary_of_mark)
        summary = summary if is_missing(own) else own
    return StageState(name, where, makes, state, summary)


def _held_out(folder: pathlib.Path, name: str) -> list[records.HeldOutPair] | Missing:
    """Return what a stage that learns from pairs said of held-out ones."""
    if stages.STAGES[name].texts != 2:
        return Missing(f"{name} learns from no pairs")
    where = f"{stages.STAGES[name].folder}/{records.HELD_OUT}"
    return _part(folder, where, _records(records.HeldOutPair))


def _contrast(folder: pathlib.Path) -> list[dict[str, Any]] | Missing:
    """Return the tables of a diagnosis, or how to make them."""
    path = f"{diagnosis.FOLDER}/{diagnosis.AFFIXES}.json"
    if (folder / path).exists():
        return _part(folder, path, table_files.read)
    how = f"python -m experiments.diagnose --workdir {folder}"
    return Missing(f"{path} is not there; make it with {how}")


def _json_object(path: pathlib.Path) -> dict[str, Any]:
    value = jsonl.parse(path.read_bytes(), path.name)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__}, accepted: a JSON object")
    return value


def _records(cls: type) -> Callable[[pathlib.Path], list[Any]]:
    return lambda path: record_files.read_jsonl(path, cls, drop_truncated=True)


def _lines(*fields: str) -> Callable[[pathlib.Path], list[dict[str, Any]]]:
    """Return a reader of JSON lines that must have `fields`."""

    def read(path: pathlib.Path) -> list[dict[str, Any]]:
        rows = record_files.read_jsonl(path, drop_truncated=True)
        for number, row in enumerate(rows, start=1):
            absent = [name for name in fields if name not in row]
            if absent:
                raise ValueError(f"row {number} has no field {absent[0]!r}")
            texts = [name for name in fields if not isinstance(row[name], str)]
            numbers = [
                name
                for name in NUMBERS
                if row.get(name) is not None and not table_files.is_number(row[name])
            ]
            for name in texts + numbers:
                raise ValueError(
                    f"row {number}: {name!r} is {row[name]!r:.40}, which is no "
                    f"{'text' if name in texts else 'number'}"
                )
        return rows

    return read


def _summary(path: pathlib.Path) -> dict[str, Any]:
    """Return a stage's summary; what the page counts with is of the right kind."""
    return _with_kinds(_json_object(path))


def _summary_of_mark(path: pathlib.Path) -> dict[str, Any]:
    own = _json_object(path).get("summary")
    if not isinstance(own, dict):
        raise ValueError("it has no summary")
    return _with_kinds(own)


def _with_kinds(summary: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        "seconds": table_files.is_number,
        "dropped_by_side": lambda value: _is_nested(value, table_files.is_number),
        "cells": lambda value: (
            _is_nested(value)
            and all(_is_nested(cell.get("sides", {})) for cell in value.values())
        ),
        "held_out_accuracy": lambda value: (
            table_files.is_number(value)
            or (isinstance(value, dict) and table_files.is_number(value.get("value")))
        ),
    }
    for name, fits in kinds.items():
        if name in summary and not fits(summary[name]):
            raise ValueError(f"its {name!r} is {summary[name]!r:.40}, no such figure")
    return summary


def _is_nested(value: Any, fits: Callable[[Any], bool] = lambda inner: True) -> bool:
    """Say whether a value is objects by name, whose own values fit."""
    return isinstance(value, dict) and all(
        isinstance(inner, dict) and all(map(fits, inner.values()))
        for inner in value.values()
    )


def _steps(path: pathlib.Path) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of `<step>.jsonl` by step."""
    read = _lines(*POLICY_SAMPLE_FIELDS)
    files = [file for file in path.glob("*.jsonl") if file.stem.isdigit()]
    if not files:
        raise ValueError("no file <step>.jsonl is in it")
    return {int(file.stem): read(file) for file in sorted(files, key=_step_of)}


def _step_of(file: pathlib.Path) -> int:
    return int(file.stem)
