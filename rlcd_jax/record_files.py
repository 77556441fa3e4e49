"""Files of records: written whole or not at all, read with file and line."""

import dataclasses
import json
import os
import platform
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from etils import epath

from rlcd_jax import jsonl, local_paths, schema

# What a record is known by: those of its fields that are in the first row with any.
KNOWN_BY = (
    ("id",),
    ("item",),
    (
        "prompt_id",
        "draw",
        "sampling",
        "side",
        "slot",
        "judge",
        "system",
        "system_1",
        "system_2",
    ),
)

# Fields that files of earlier versions do not have, and what they meant.
LATER = {
    "slot": "",
    "grade_1": None,
    "grade_2": None,
    "scale_index": None,
    "as_written": "",
}

# --- files ----------------------------------------------------------------------------


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Several processes, of several hosts too, may write it at once: the last one counts.
    """
    path = epath.Path(local_paths.check(path, "file"))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{platform.node()}.{os.getpid()}"
    temporary = path.parent / f".{path.name}.{writer}.tmp"
    temporary.write_bytes(text.encode())
    temporary.replace(path)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write one JSON value, indented for people, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _line(row: Any) -> str:
    return json.dumps(schema.to_dict(row), ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: epath.PathLike, rows: Iterable[Any]) -> None:
    """Write records (or mappings), one a line, atomically."""
    write_text(path, "".join(_line(row) for row in rows))


def read_jsonl(
    path: epath.PathLike,
    cls: type = dict,
    *,
    drop_truncated: bool = False,
    only: Collection[str] | None = None,
) -> list[Any]:
    """Return the records of a file, in order; empty lines are skipped.

    Args:
      path: a file with one JSON object a line.
      cls: a record class of this module, or `dict` for the plain objects.
      drop_truncated: leave out a last line that a killed writer cut short, instead of
        refusing the file.
      only: fields of the lines that the records are made of; None: all.

    Returns:
      A list of `cls`. A broken line is a ValueError that names file, line and field.
      A row without the field `draw` is of a prompt's only draw; with a "#" in its
      prompt id, where older files wrote the draw, it is refused.
    """
    rows: list[Any] = []
    first: dict[Any, int] = {}  # of what a record is known by, its line
    for number, row in jsonl.read(path, drop_truncated=drop_truncated):
        try:
            if cls is not dict:
                taken = {k: v for k, v in row.items() if only is None or k in only}
                row = schema.from_dict(cls, completed(cls, taken))
                _refuse_double(row, first, number)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        rows.append(row)
    return rows


def _refuse_double(row: Any, first: dict[Any, int], number: int) -> None:
    """Refuse a record that an earlier line of its file has too."""
    names = next(
        filter(None, ([n for n in r if hasattr(row, n)] for r in KNOWN_BY)), ()
    )
    key = tuple(getattr(row, name) for name in names)
    line = first.setdefault(key, number) if key else number
    if line != number:
        told = ", ".join(
            f"{name!r} {schema.shown(getattr(row, name))}" for name in names
        )
        raise ValueError(
            f"line {line} has a record of {told} too; accepted: each once; remove one "
            "of the two lines"
        )


def completed(cls: type, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row of a record of `cls` with what files of before leave out.

    Refuses one whose draw cannot be told; see above.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    row = {name: value for name, value in LATER.items() if name in names} | {**row}
    if "draw" not in names or "draw" in row:
        return row
    prompt_id = row.get("prompt_id")
    if isinstance(prompt_id, str) and "#" in prompt_id:
        raise ValueError(
            f"missing field 'draw', and field 'prompt_id' is {prompt_id!r}: older "
            'versions wrote draw n of prompt p as "p#n"; make the file again, or add '
            'the field: a number from 0, or null where "#" belongs to the id'
        )
    return {**row, "draw": None}
