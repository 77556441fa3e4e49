"""What a field of a config accepts: its kind and range, said in words, and checked."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rlcd_jax import local_paths, records

FLAG, COUNT, NUMBER, CHOICE, TEXT = "flag", "count", "number", "choice", "text"
LENGTHS, CHOICES, TEXTS = "lengths", "choices", "texts"
COUNTS, NUMBERS = "counts", "numbers"
SHOWN = 60  # characters of a value in a message
MOST_NAMED = 8  # fields that are missing or unknown, of a config of another kind
MOST = records.MOST  # of a count
LEAST = float(np.finfo(np.float32).tiny)  # of what is not 0: devices take less for 0


@dataclasses.dataclass(frozen=True)
class Field:
    """What one field accepts.

    Attributes:
      kind: FLAG, COUNT (a whole number), NUMBER (as devices hold it, in float32),
        CHOICE or TEXT (of one line); LENGTHS, COUNTS, NUMBERS, CHOICES and TEXTS are
        tuples: rising counts, and distinct ones of the others.
      what: what it is, with its unit; "" where its name says it.
      example: a value that is accepted.
      low: the least that is accepted; above it where `open_low`.
      high: the most that is accepted; below it where `open_high`.
      also: numbers that are accepted beside the range.
      choices: names that are accepted, in their order.
      ordered: CHOICES must keep that order.
      empty: a text or a tuple may be empty.
      pattern: regular expression of a text, or of each of TEXTS.
      wanted: the pattern in words.
      path: a text, or what follows "=" in each of TEXTS, is a path; see `local_paths`.
      unset: None is accepted, which says that it is not given.
      argument: the config's argument that sets this field together with others, or
        "config file" where the file does: no field to set alone.
    """

    kind: str
    what: str
    example: Any
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    also: tuple[int, ...] = ()
    choices: tuple[str, ...] = ()
    ordered: bool = False
    empty: bool = False
    pattern: str = ""
    wanted: str = ""
    path: bool = False
    unset: bool = False
    argument: str = ""


def problems(
    known: Mapping[str, Field], values: Mapping[str, Any], others: str
) -> list[str]:
    """Return a line for each value that is missing, of no field, or not accepted.

    Args:
      known: the fields that a config has, by dotted name.
      values: of a config, likewise.
      others: what is said of a value of no field.
    """
    told = _few(known.keys() - values, "is missing in the config")
    told += _few(values.keys() - known, f"is no field of a config; {others}")
    lines = (
        problem(field, name, values[name])
        for name, field in known.items()
        if name in values
    )
    return told + [line for line in lines if line]


def _few(names: Iterable[str], what: str) -> list[str]:
    """Return a line for each of the first names, and how many more there are."""
    listed = sorted(names)
    more = len(listed) - MOST_NAMED
    lines = [f"{name[:SHOWN]} {what}" for name in listed[:MOST_NAMED]]
    return lines + ([f"{more} fields more: the same"] if more > 0 else [])


def problem(field: Field, name: str, value: Any) -> str:
    """Say what is wrong with a value, what is accepted, and an example of it.

    Args:
      field: what the field accepts.
      name: its dotted name.
      value: any value.

    Returns:
      One line; "" if the value is accepted.
    """
    if _fits(field, value):
        return ""
    told = f"{name}={_shown(field, value)}"
    if field.kind in (CHOICES, TEXTS) and isinstance(value, list | tuple):
        wrong = [one for one in value if not _is_entry(field, one)]
        told = f"{name} has {_shown(field, wrong[0])}" if wrong else told
    if field.kind == NUMBER and isinstance(value, float) and math.isfinite(value):
        number = _on_device(value)
        if number != value and number in (0.0, field.low, field.high, math.inf):
            told += f", which is {number:.9g} in float32"
        elif 0 < abs(number) < LEAST:
            told += ", which devices take for 0"
    return f"{told}; accepted: {accepted(field)}; {_example(name, field)}"


def accepted(field: Field) -> str:
    """Return in words what a field accepts."""
    named = ", ".join(one or '""' for one in field.choices)
    words = {
        FLAG: "True or False",
        COUNT: f"a whole number, {_range(field)}",
        NUMBER: f"a finite number, {_range(field)}",
        CHOICE: named,
        TEXT: local_paths.ACCEPTED
        if field.path
        else field.wanted or "a text of one line",
        LENGTHS: f"a tuple of whole numbers that rise, {_range(field)}",
        COUNTS: f"whole numbers, {_range(field)}, each once",
        NUMBERS: f"finite numbers, {_range(field)}, each once",
        CHOICES: f"{named}, each once" + (", in this order" if field.ordered else ""),
        TEXTS: f"{field.wanted}, each once",
    }[field.kind]
    if field.empty:
        words += ', or ""' if field.kind == TEXT else ", or ()"
    if field.unset:
        words += ", or none at all"
    return words + (f" ({field.what})" if field.what else "")


def _example(name: str, field: Field) -> str:
    value = field.example
    text = f'"{value}"' if isinstance(value, tuple) else value
    return f"for example --config.{name}={text}"


def _shown(field: Field, value: Any) -> str:
    """Return a value as it is told; letters that only look like a choice's as codes."""
    text = " ".join((ascii if field.choices else repr)(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _range(field: Field) -> str:
    low, high = f"{field.low:.15g}", f"{field.high:.15g}"
    low = f"above {low}" if field.open_low else f"from {low}"
    high = f"below {high}" if field.open_high else f"up to {high}"
    parts = [low] * math.isfinite(field.low) + [high] * math.isfinite(field.high)
    closed = not (field.open_low or field.open_high)
    words = (" " if closed else " and ").join(parts) or "of any sign"
    return words + "".join(f", or {one}" for one in field.also)


def _fits(field: Field, value: Any) -> bool:
    """Say whether a field accepts a value."""
    if value is None:
        return field.unset
    if field.kind == FLAG:
        return isinstance(value, bool)
    if field.kind in (COUNT, NUMBER):
        return _is_number(field, value)
    if field.kind in (CHOICE, TEXT):
        empty = field.empty and isinstance(value, str) and not value
        return empty or _is_entry(field, value)
    if not isinstance(value, list | tuple) or not (value or field.empty):
        return False
    if field.kind in (LENGTHS, COUNTS, NUMBERS):
        kind = NUMBER if field.kind == NUMBERS else COUNT
        right = all(_is_number(field, one, kind) for one in value)
        if field.kind == LENGTHS:
            return right and list(value) == sorted(set(value))
        return right and len(set(value)) == len(value)
    if not all(_is_entry(field, one) for one in value):
        return False
    places = [field.choices.index(one) for one in value] if field.ordered else []
    return len(set(value)) == len(value) and places == sorted(places)


def _is_number(field: Field, value: Any, kind: str = "") -> bool:
    whole = (kind or field.kind) == COUNT
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    if value in field.also:
        return True
    number = value if whole else _on_device(value)
    if not whole and (not math.isfinite(number) or (value and abs(number) < LEAST)):
        return False
    high = number < field.high if field.open_high else number <= field.high
    low = number > field.low if field.open_low else number >= field.low
    return low and high


def _on_device(value: float) -> float:
    """Return a number as devices hold it; one that is too large is infinite."""
    try:
        with np.errstate(all="ignore"):
            return float(np.float32(value))
    except OverflowError:  # of an int beyond any float
        return math.inf if value > 0 else -math.inf


def _is_entry(field: Field, value: Any) -> bool:
    """Say whether a value is a name that a field knows, or a text as it takes."""
    if not isinstance(value, str):
        return False
    if field.choices:
        return value in field.choices
    place = value.partition("=")[2] if field.kind == TEXTS else value
    if field.path and local_paths.is_remote(place):
        return False
    clean = value == value.strip() and bool(value)
    clean = clean and not any(unicodedata.category(one) == "Cc" for one in value)
    return clean and bool(re.fullmatch(field.pattern or ".+", value, re.DOTALL))
