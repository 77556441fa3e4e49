"""Tables that show estimates with their intervals, and what is missing.

A cell that could not be computed is a `Missing` with its reason and never a number.
A table is written twice: as markdown to be read and as JSON to be computed with.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pathlib
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text

from rlcd_jax import record_files
from rlcd_jax.statistics import estimates

Cell = estimates.Estimate | estimates.Missing | str | int | float


@dataclasses.dataclass(frozen=True)
class Column:
    """A column's name and how its numbers are shown."""

    name: str
    digits: int = 2
    percent: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first entry of a row is its name."""

    caption: str
    row_header: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, cells in self.rows:
            if len(cells) != len(self.columns):
                raise ValueError(
                    f"row {name!r} of table {self.caption!r} has {len(cells)} cells "
                    f"for {len(self.columns)} columns"
                )


def markdown(table: Table) -> str:
    """Return a table as GitHub markdown, aligned so that it reads as plain text."""
    shared, notes = _shared(table)
    lines = [[table.row_header, *(column.name for column in table.columns)]]
    for name, cells in table.rows:
        shown = [
            show_cell(cell, column, with_num=not shared)
            for cell, column in zip(cells, table.columns, strict=True)
        ]
        lines.append([name, *shown])
    lines = [[_plain(text) for text in line] for line in lines]
    widths = [max(3, *map(len, entries)) for entries in zip(*lines, strict=True)]
    out = []
    for line in lines:
        first = line[0].ljust(widths[0])
        rest = [text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True)]
        out.append("| " + " | ".join([first, *rest]) + " |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    out.insert(1, "| " + " | ".join(rule) + " |")
    parts = [f"**{table.caption}**", "\n".join(out)]
    parts += ["\n".join(f"- {note}" for note in [*notes, *table.notes])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shared(table: Table) -> tuple[bool, list[str]]:
    """Return whether all estimates are of one number of things, and notes on both."""
    cells = [cell for _, row in table.rows for cell in row]
    found = [cell for cell in cells if isinstance(cell, estimates.Estimate)]
    counts, levels = {cell.num for cell in found}, {cell.level for cell in found}
    shared = len(counts) == 1
    notes = [f"Brackets: {100 * level:g} % intervals." for level in sorted(levels)]
    return shared, notes + [f"n = {count} in every cell." for count in counts if shared]


def narrow(table: Table, width: int = 100, columns: int = 3) -> str:
    """Return a table as text of a terminal: a line a column, the rows side by side.

    Args:
      table: to show; its rows are few and its columns many.
      width: in letters, which no line is over.
      columns: how many rows stand side by side, with the rest below them.
    """
    shared, told = _shared(table)
    console = rich.console.Console(
        file=io.StringIO(), width=width, color_system=None, legacy_windows=False
    )
    for start in range(0, len(table.rows), columns):
        shown = rich.table.Table(box=rich.box.SIMPLE)
        shown.add_column(table.row_header)
        rows = table.rows[start : start + columns]
        for name, _ in rows:
            shown.add_column(name, justify="right")
        for index, column in enumerate(table.columns):
            cells = [
                show_cell(cells[index], column, with_num=not shared)
                for _, cells in rows
            ]
            shown.add_row(*map(rich.text.Text, (column.name, *cells)))
        console.print(shown)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    notes = [line for note in (*told, *table.notes) for line in _wrapped(note, width)]
    text = "\n".join([table.caption, *lines, *notes])
    return re.sub(r"\n\n+", "\n\n", text) + "\n"


def _wrapped(note: str, width: int) -> list[str]:
    return textwrap.wrap(note, width, initial_indent="- ", subsequent_indent="  ")


def show_cell(cell: Cell, column: Column, *, with_num: bool = True) -> str:
    """Return a cell as text, such as `71.0 [64.3, 76.9] n=200`."""
    if isinstance(cell, estimates.Missing):
        return f"missing: {cell.reason}"
    if isinstance(cell, str):
        return cell
    scale = 100.0 if column.percent else 1.0

    def number(value: float) -> str:
        return f"{scale * value:.{column.digits}f}"

    if isinstance(cell, estimates.Estimate):
        text = f"{number(cell.value)} [{number(cell.low)}, {number(cell.high)}]"
        return f"{text} n={cell.num}" if with_num else text
    if isinstance(cell, int | np.integer):
        return str(cell)
    if not math.isfinite(cell):
        return f"missing: the value is {cell}"
    return number(cell)


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as plain JSON values, estimates and missing cells as objects."""

    def plain(cell: Cell) -> Any:
        if isinstance(cell, estimates.Estimate):
            return dataclasses.asdict(cell)
        if isinstance(cell, estimates.Missing):
            return {"missing": cell.reason}
        if isinstance(cell, float) and not math.isfinite(cell):
            return {"missing": f"the value is {cell}"}
        return cell.item() if isinstance(cell, np.generic) else cell

    names = [column.name for column in table.columns]
    rows = [
        {"name": name, "cells": dict(zip(names, map(plain, cells), strict=True))}
        for name, cells in table.rows
    ]
    return {
        "caption": table.caption,
        "row_header": table.row_header,
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": rows,
        "notes": list(table.notes),
    }


def from_json(data: Mapping[str, Any]) -> Table:
    """Return the table of which `as_json` made plain values."""

    def cell(value: Any) -> Cell:
        if not isinstance(value, dict):
            return value
        if "missing" in value:
            return estimates.Missing(value["missing"])
        return estimates.Estimate(**value)

    columns = tuple(Column(**column) for column in data["columns"])
    rows = tuple(
        (row["name"], tuple(cell(row["cells"][column.name]) for column in columns))
        for row in data["rows"]
    )
    return Table(
        data["caption"], data["row_header"], columns, rows, tuple(data["notes"])
    )


def write_table(
    table: Table, folder: str | os.PathLike[str], stem: str = "table"
) -> None:
    """Write `stem.md` and `stem.json` into `folder`."""
    folder = pathlib.Path(folder)
    record_files.write_text(folder / f"{stem}.md", markdown(table))
    record_files.write_json(folder / f"{stem}.json", as_json(table))


def _plain(text: str) -> str:
    """Return text that cannot break a markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
