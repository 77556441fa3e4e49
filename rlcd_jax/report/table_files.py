"""Reads the tables in a JSON file, each held against what `tables.as_json` makes."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from rlcd_jax import jsonl, schema

MOST_DIGITS = 20  # of a figure in a table


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number that a float can hold."""
    return schema.is_number(value, float)


def is_text(value: Any) -> bool:
    """Say whether a JSON value is text."""
    return isinstance(value, str)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return all tables of a JSON file, at any depth.

    Raises:
      ValueError: there is none, or one is not as it must be; it says what is wrong.
    """

    def find(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            if {"caption", "columns", "rows"} <= value.keys():
                _check_table(value)
                return [value]
            value = list(value.values())
        if not isinstance(value, list):
            return []
        return [table for entry in value for table in find(entry)]

    part = find(jsonl.parse(path.read_bytes(), path.name))
    if not part:
        raise ValueError("no table with caption, columns and rows is in it")
    return part


def _check_table(table: dict[str, Any]) -> None:
    """Refuse a table that is not as `tables.as_json` makes them."""
    wrong = _wrong(
        table, {"caption": is_text}, {"row_header": is_text, "notes": _texts}
    )
    for part, needed, more in (
        ("columns", {"name": is_text}, {"digits": _digits, "percent": _flag}),
        ("rows", {"name": is_text, "cells": _cells}, {}),
    ):
        entries = table[part] if isinstance(table[part], list) else [None]
        for number, entry in enumerate(entries, start=1):
            wrong = wrong or _wrong(entry, needed, more, f"{part} {number}: ")
    if wrong:
        raise ValueError(f"table {table['caption']!r:.40}: {wrong}")


def _wrong(
    given: Any,
    needed: Mapping[str, Callable[[Any], bool]],
    more: Mapping[str, Callable[[Any], bool]],
    where: str = "",
) -> str:
    """Say which field of an object is not there or no such value; "": none."""
    if not isinstance(given, dict):
        return f"{where}{given!r:.40} is no object"
    for name, fits in {**needed, **more}.items():
        if name in needed and name not in given:
            return f"{where}no field {name!r}"
        if name in given and not fits(given[name]):
            return f"{where}{name!r} is {given[name]!r:.40}, no such value"
    return ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _digits(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_DIGITS


def _cells(value: Any) -> bool:
    """Say whether a value is the cells of a row; estimates have figures alone."""
    inner = list(value.values()) if isinstance(value, dict) else [None]
    figures = ("num", "level", "p_value")
    return isinstance(value, dict) and all(
        is_number(cell[name]) or (name == "p_value" and cell[name] is None)
        for cell in inner
        if isinstance(cell, dict) and "missing" not in cell
        for name in figures
        if name in cell
    )
