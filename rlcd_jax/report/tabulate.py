"""The tables of an evaluation as cells of text, with a plot of their intervals."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from rlcd_jax.judging import regression_table
from rlcd_jax.report import panels, plots, reading, sections
from rlcd_jax.statistics.estimates import Missing

BLANK = ("", "-")  # texts that go with any column
CONTRAST = ("told apart, %", " difference", "length gap, tokens")  # ends of columns
EVEN = ("win rate", "wins over", "equal length", "judge, %")  # where one half is even


def tables(runs: Mapping[str, list[dict[str, Any]] | Missing]) -> list[Any]:
    """Return the tables of one run, or those of two runs row beside row.

    Args:
      runs: tables as `tables.as_json` makes them, by the run's label; the label of a
        single run is "".

    Returns:
      For each table a dict with caption, header, rows of (name, run, cells) and plots;
      a `Missing` for each run that has none.
    """
    shown: list[Any] = []
    there: dict[str, list[dict[str, Any]]] = {}
    for label, part in runs.items():
        if isinstance(part, Missing):
            reason = f"{label}: {part.reason}" if label else part.reason
            shown.append(Missing(reason))
        else:
            there[label] = part
    for place in range(max(map(len, there.values()), default=0)):
        parts = [(k, part[place]) for k, part in there.items() if place < len(part)]
        shown.append(_joined(parts))
    return shown


def regression(runs: Mapping[str, list[dict[str, Any]] | Missing]) -> list[Any]:
    """Return the tables of what alignment cost; [] of runs that did not measure it."""
    there = {k: part for k, part in runs.items() if not isinstance(part, Missing)}
    return tables(there) if there else []


def take_common_notes(shown: Iterable[Any]) -> list[str]:
    """Take the notes that several tables share out of them and return them.

    Args:
      shown: what `tables` returned; its entries lose their shared notes.
    """
    there = [entry for entry in shown if not isinstance(entry, Missing)]
    counts = collections.Counter(note for entry in there for note in entry["notes"])
    for entry in there:
        entry["notes"] = [note for note in entry["notes"] if counts[note] == 1]
    return [note for note, count in counts.items() if count > 1]


def studies(read: Iterable[reading.StudyTables]) -> list[tuple[str, list[Any]]]:
    """Return the tables of each human study by its folder.

    They have no plots: their rows are few, and columns of one row are of many units.
    """
    shown = []
    for study in read:
        parts = [entry for part in study.tables for entry in tables({"": part})]
        parts = [
            entry if isinstance(entry, Missing) else entry | {"plots": []}
            for entry in parts
        ]
        shown.append((str(study.folder), parts))
    return shown


def contrast(part: list[dict[str, Any]] | Missing) -> list[Any]:
    """Return the tables of a diagnosis of affixes; plots of what tells the most."""
    shown = tables({"": part})
    for entry in shown:
        if not isinstance(entry, Missing):
            entry["plots"] = [
                svg
                for name, svg in zip(entry["plotted"], entry["plots"], strict=True)
                if name.endswith(CONTRAST)
            ]
    return shown


def _joined(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the tables of all runs as one, the rows of one name together."""
    columns = list(
        {col["name"]: col for _, table in parts for col in table["columns"]}.values()
    )
    entries = [(label, row) for label, table in parts for row in table["rows"]]
    keys = list(dict.fromkeys(_row_key(row) for _, row in entries))
    entries.sort(key=lambda entry: keys.index(_row_key(entry[1])))
    found_estimates = [
        cell
        for _, row in entries
        for cell in row["cells"].values()
        if sections.is_estimate(cell)
    ]
    counts = {cell.get("num") for cell in found_estimates}
    shared = len(counts) == 1
    rows = [
        (
            row["name"],
            label,
            [_cell(row["cells"].get(c["name"], ""), c, not shared) for c in columns],
        )
        for label, row in entries
    ]
    notes = [
        f"Brackets: {100 * level:g} % intervals."
        for level in sorted(
            {cell["level"] for cell in found_estimates if "level" in cell}
        )
    ]
    notes += [f"n = {count} in every cell." for count in counts if shared and count]
    notes += _notes(parts)
    drawn = {c["name"]: svg for c in columns if (svg := _plot(c, entries))}
    return {
        "caption": _caption(parts),
        "header": parts[0][1].get("row_header", ""),
        "columns": [column["name"] for column in columns],
        "aligned": [
            all(entry["kind"] != "text" for entry in cells)
            for cells in zip(*(cells for _, _, cells in rows), strict=True)
        ],
        "with_run": any(label for label, _ in parts),
        "rows": rows,
        "notes": notes,
        "plots": list(drawn.values()),
        "plotted": list(drawn),
    }


def _caption(parts: list[tuple[str, dict[str, Any]]]) -> str:
    """Return the caption that all tables share, or that of each run."""
    captions = {label: table["caption"] for label, table in parts}
    if len(set(captions.values())) == 1:
        return parts[0][1]["caption"]
    return " — ".join(f"{label}: {caption}" for label, caption in captions.items())


def _notes(parts: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the notes of all tables; one that not all have names its run."""
    notes: dict[str, None] = {}
    for label, table in parts:
        for note in table.get("notes", ()):
            shared = all(note in other.get("notes", ()) for _, other in parts)
            notes[note if shared else f"{label}: {note}"] = None
    return list(notes)


def _row_key(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row's name with the texts that tell rows of one name apart."""
    judge = row["cells"].get("Judge")
    return (row["name"], judge) if isinstance(judge, str) else (row["name"],)


def _cell(cell: Any, column: dict[str, Any], with_num: bool) -> dict[str, str]:
    """Return the texts of a cell: kind, figure, interval and what stands below."""
    if isinstance(cell, dict) and "missing" in cell:
        return {"kind": "missing", "text": f"missing: {cell['missing']}"}
    scale = 100.0 if column.get("percent") else 1.0
    digits = column.get("digits", 2)
    if sections.is_estimate(cell):
        value, low, high = (
            f"{scale * cell[name]:.{digits}f}" for name in ("value", "low", "high")
        )
        facts = [f"n = {cell['num']}"] if with_num and "num" in cell else []
        if cell.get("p_value") is not None:
            facts.append(f"p = {cell['p_value']:.2g}")
        below = ", ".join(facts)
        interval = f"[{low}, {high}]"
        return {"kind": "estimate", "text": value, "interval": interval, "below": below}
    if isinstance(cell, float):
        return {"kind": "number", "text": f"{scale * cell:.{digits}f}"}
    if cell in BLANK:
        return {"kind": "blank", "text": cell}
    return {"kind": "number" if _is_number(cell) else "text", "text": str(cell)}


def _is_number(cell: Any) -> bool:
    """Say whether a cell reads as a number, as the text of a p-value does."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _plot(
    column: dict[str, Any], entries: list[tuple[str, dict[str, Any]]]
) -> plots.Svg | None:
    """Return dots and whiskers of a column's estimates, a row each."""
    scale = 100.0 if column.get("percent") else 1.0
    twice = len({(label, row["name"]) for label, row in entries}) < len(entries)
    dots = []
    for label, row in entries:
        cell = row["cells"].get(column["name"])
        if sections.is_estimate(cell):
            figures = (scale * cell[name] for name in ("value", "low", "high"))
            name = " · ".join(_row_key(row)) if twice else row["name"]
            dots.append(panels.Dot(name, *figures, run=label))
    if not dots:
        return None
    name = column["name"].lower()
    even = 0.5 * scale if any(part in name for part in EVEN) else None
    if name.endswith(regression_table.AGAINST):
        even = 0.0
    return plots.intervals(column["name"], dots, reference=even)
