"""A run's config and what its report reads, damaged; see `fuzz_records`."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import damage
import made_run
import numpy as np
import runs
import strictly as s
from fuzz_records import Case, json_damage
from hypothesis import strategies as st

from rlcd_jax import report, schema
from rlcd_jax.checks import fields, kinds, refusals


def _page(place: pathlib.Path) -> list:
    """Return that the page was made, and that nothing in it is alive."""
    page = report.write_report(place).read_text()
    assert "<script>alert" not in page
    return [True]


def _read_by_report(name: str, value: Any) -> Callable[[pathlib.Path], Case]:
    def make(folder: pathlib.Path) -> Case:
        (folder / "policy").mkdir(exist_ok=True)  # a run, whatever the file is
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, list):
            damaged = damage.lines(value)
        else:
            damaged = json_damage(value)
        return Case(
            path,
            damaged,
            lambda: _page(folder),
            lambda data: [True],
            share=1 / 9,  # as many times as long takes a page
            harms=False,  # what cannot be read is shown as such
        )

    return make


HOSTILE = "</script><script>alert(1)</script>"
ROW = {"prompt_id": "p", "system": HOSTILE, "prompt": HOSTILE, "reply": HOSTILE}
TABLE = {
    "caption": "c",
    "unit": "u",
    "columns": [{"name": HOSTILE, "digits": 2}],
    "rows": [{"name": "a", "cells": {HOSTILE: {"value": 0.5, "low": 0, "high": 1}}}],
    "notes": [HOSTILE],
}
SIDE = {"tries": {"1": 70, "2": 2}, "finish": {"stop": 9}, "mean_tokens": 2.5}
CELL = {"pairs": 3, "mean_prob_2": 0.5, "sides": {"positive": SIDE, "negative": SIDE}}
SUMMARY = {
    "cells": {"contrast-construction": CELL},
    "too_long": {"prompts": {"of": 1, "dropped": 0, "shortened": 0, "identical": 0}},
    "judge_cost": 0.5,
    "prompts_dropped": 2,
    "seconds": 1.5,
    "pairs": 3,
    "held_out_accuracy": {"value": 0.5, "low": 0.25, "high": 0.75},
    "dropped_by_side": {"positive": {"empty": 1}},
}
METRICS = [{"stage": "policy", "step": n, "wall_time": 1.0, "a": 0.5} for n in (1, 2)]


def config_field(folder: pathlib.Path) -> Case:
    """A value for any field of a run's config, as a command line might set it."""
    path = folder / "field.json"
    config = runs.tiny_config()
    given = st.sampled_from(
        [one for one in damage.VALUES if one != damage.DEEP and not _is_half(one)]
    )
    pairs = st.tuples(st.sampled_from(sorted(fields.FIELDS)), given)
    whole = pairs.map(lambda pair: json.dumps(pair).encode())

    def oracle(data: bytes) -> list:
        name, value = json.loads(data)
        s.need(_fits(fields.FIELDS[name], value), "no value of it")
        return [name, value]

    def read() -> list:
        name, value = json.loads(path.read_bytes())
        table = {n: field.example for n, field in fields.FIELDS.items()} | {name: value}
        told = kinds.problems(fields.FIELDS, table, "others")
        if told:
            raise ValueError("; ".join(told))
        return [name, value]

    assert refusals.check_config(config) is None
    return Case(path, whole, read, oracle, said="=")


def _is_half(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def _fits(field: kinds.Field, value: Any) -> bool:
    """Say whether a field takes a value, by its kind and range alone."""
    if field.kind == kinds.FLAG:
        return type(value) is bool
    if field.kind in (kinds.COUNT, kinds.NUMBER):
        kinds_of = (int,) if field.kind == kinds.COUNT else (int, float)
        if type(value) not in kinds_of or (value != value):
            return False
        if value in field.also:
            return True
        number = value if field.kind == kinds.COUNT else _float32(value)
        if field.kind == kinds.NUMBER and not math.isfinite(number):
            return False
        if field.kind == kinds.NUMBER and value and abs(number) < 1.1754943e-38:
            return False
        low = number > field.low if field.open_low else number >= field.low
        high = number < field.high if field.open_high else number <= field.high
        return low and high
    if isinstance(value, list):  # of those that damage has, [1] alone may fit
        if field.kind in (kinds.LENGTHS, kinds.COUNTS, kinds.NUMBERS) and value == [1]:
            return type(value[0]) is int and field.low <= 1 <= field.high
        return (
            field.empty and not value and field.kind not in (kinds.CHOICE, kinds.TEXT)
        )
    if field.kind not in (kinds.CHOICE, kinds.TEXT) or type(value) is not str:
        return False
    if not value:
        return field.empty
    if field.choices:
        return value in field.choices
    return _is_text(field, value)


def _is_text(field: kinds.Field, value: str) -> bool:
    fine = value == value.strip() and not any(c < " " for c in value)
    if field.pattern:
        return False  # of the texts that damage has, none is a split
    return fine and not (field.path and "://" in value)


def _float32(value: float) -> float:
    with np.errstate(all="ignore"):
        try:
            return float(np.float32(value))
        except OverflowError:
            return math.inf


def report_run(folder: pathlib.Path) -> Case:
    """The config of a run in its report."""
    config = {"name": HOSTILE, "task": "cheerful", "stages": ["policy"], "seed": 1}
    return _read_by_report("config.json", config)(folder)


PAIRS = [schema.to_dict(made_run.make_pair(n)) for n in range(2)]
DROPS = [
    {"prompt_id": "p", "task": "t", "sampling": "contrast", "side": "negative"}
    | {"reason": HOSTILE, "tries": 1, "reasons": ["empty"], "raws": [HOSTILE]}
    | {"draw": 1}
]
VERDICTS = [
    {"prompt_id": "p", "judge": HOSTILE, "system_1": "a", "system_2": "b"}
    | {"winner": winner}
    for winner in ("1", "tie")
]
GRID = {"headings": [HOSTILE, "b"], "rows": [[HOSTILE, 1.5]]}
PLAN = {
    "shown": {"notes": [HOSTILE], "table": GRID, "compiled": GRID, "verdicts": ["fits"]}
}


def report_study(folder: pathlib.Path) -> Case:
    """The table of a study with people, beside a run."""
    study = folder / "study"

    def read() -> list:
        (folder / "policy").mkdir(exist_ok=True)
        page = report.write_report(folder, studies=[study]).read_text()
        assert "<script>alert" not in page
        return [True]

    case = _read_by_report("study/results/table.json", TABLE)(folder)
    return dataclasses.replace(case, read=read)


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    "config_field": config_field,
    "report_config": report_run,
    "report_table": _read_by_report("evaluate/table.json", TABLE),
    "report_samples": _read_by_report("evaluate/samples.jsonl", [ROW, ROW]),
    "report_summary": _read_by_report("pairs/summary.json", SUMMARY),
    "report_done": _read_by_report("policy/DONE", {"summary": SUMMARY}),
    "report_metrics": _read_by_report("metrics.jsonl", METRICS),
    "report_pairs": _read_by_report("pairs/pairs.jsonl", PAIRS),
    "report_dropped": _read_by_report("pairs/dropped.jsonl", DROPS),
    "report_verdicts": _read_by_report("evaluate/verdicts.jsonl", VERDICTS),
    "report_policy": _read_by_report("policy/samples/000002.jsonl", [ROW, ROW]),
    "report_plan": _read_by_report("plan.json", PLAN),
    "report_study": report_study,
    "report_environment": _read_by_report("environment.json", {"packages": {"a": "1"}}),
}
