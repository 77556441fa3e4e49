"""The rows of `metrics.jsonl`, read and held against what was written.

A row is a flat object: `stage`, `step`, `wall_time` (seconds since 1970), and one
finite number for each metric. A stage's rows are in the order of its steps, each step
once.
"""

from __future__ import annotations

import pathlib
from typing import Any

from rlcd_jax import jsonl, schema

FILE_NAME = "metrics.jsonl"
RESERVED = ("stage", "step", "wall_time")


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a last line that was cut short is left out.

    Raises:
      ValueError: names the file, the line and the field that is wrong.
    """
    rows = []
    last: dict[str, int] = {}  # step by stage
    for number, row in jsonl.read(path, drop_truncated=True):
        wrong = _problem(row, last)
        if wrong:
            raise ValueError(f"{path}:{number}: {wrong}; remove the line to go on")
        last[row["stage"]] = row["step"]
        rows.append(row)
    return rows


def _problem(row: dict[str, Any], last: dict[str, int]) -> str:
    """Say what is wrong with a row, "" if nothing is."""
    accepted = {"stage": "text", "step": "a whole number from 0"}
    fits = {
        "stage": lambda value: isinstance(value, str) and not schema.is_blank(value),
        "step": lambda value: type(value) is int and value >= 0,
    }
    for name, check in fits.items():
        if not check(row.get(name)):
            shown = schema.shown(row.get(name))
            return f"field {name!r} is {shown}; accepted: {accepted[name]}"
    for name, value in row.items():
        if name in fits or schema.is_number(value, float):
            if name != RESERVED[-1] or value >= 0:
                continue
        return f"field {name!r} is {schema.shown(value)}; accepted: a finite number"
    before = last.get(row["stage"], -1)
    if row["step"] <= before:
        return (
            f"step {row['step']} of stage {row['stage']!r} comes after its step "
            f"{before}; accepted: steps that rise, each once"
        )
    return ""
