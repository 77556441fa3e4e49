"""Checks of frozen dataclasses that come from files: the field, the value, the choices.

The annotations are the schema: `Literal` lists choices, `between` gives a range.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def between(
    low: float, high: float = math.inf, *, default: Any = dataclasses.MISSING
) -> Any:
    """Return a dataclass field whose number must lie in [low, high]."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _accepted(hint: Any) -> str:
    """Name in words what a type hint accepts."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin is types.UnionType:
        return " or ".join(_accepted(a) for a in args)
    if origin is tuple:
        return f"a list, each entry {_accepted(args[0])}"
    words = {str: "text", int: "a whole number", float: "a finite number"}
    words |= {bool: "true or false", dict: "an object", type(None): "null"}
    return words.get(hint) or f"an object with the fields of {hint.__name__}"


def _is_number(value: Any, hint: type) -> bool:
    kinds = int if hint is int else (int, float)
    return (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _coerce(value: Any, declared: Any, name: str) -> Any:
    """Return `value` in its declared type, or say what the field accepts."""
    hint = declared
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None:
            return None  # the only unions here are `X | None`
        hint = next(a for a in args if a is not type(None))
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(
            _coerce(entry, args[0], f"{name}[{i}]") for i, entry in enumerate(value)
        )
    if hint in (int, float) and _is_number(value, hint):
        return hint(value)
    if hint in (str, dict, bool) and isinstance(value, hint):
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_dict(hint, value)
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    raise ValueError(f"field '{name}' is {shown}; accepted: {_accepted(declared)}")


def validate(record: Any) -> None:
    """Check every field of a frozen dataclass against its annotation and range.

    JSON lists become tuples and JSON objects become the annotated dataclass.

    Raises:
      ValueError: names the field, the value and what is accepted.
    """
    for field in dataclasses.fields(record):
        hint = _hints(type(record))[field.name]
        value = _coerce(getattr(record, field.name), hint, field.name)
        low = field.metadata.get("low", -math.inf)
        high = field.metadata.get("high", math.inf)
        if field.metadata and value is not None and not low <= value <= high:
            accepted = f"from {low} to {high}" if high < math.inf else f"at least {low}"
            raise ValueError(f"field '{field.name}' is {value}; accepted: {accepted}")
        object.__setattr__(record, field.name, value)


def from_dict(cls: type, row: Mapping[str, Any]) -> Any:
    """Return the record that `row` describes; refuses missing and unknown fields."""
    if not isinstance(row, Mapping):
        raise ValueError(f"the line is a {type(row).__name__}; accepted: an object")
    names = [field.name for field in dataclasses.fields(cls)]
    for kind, wrong in (
        ("missing", [n for n in names if n not in row]),
        ("unknown", [n for n in row if n not in names]),
    ):
        if wrong:
            listed = ", ".join(repr(n) for n in wrong)
            raise ValueError(
                f"{kind} field {listed}; accepted: exactly the fields of "
                f"{cls.__name__} ({', '.join(names)})"
            )
    return cls(**row)


def to_dict(record: Any) -> dict[str, Any]:
    """Return the JSON object of a record (or of a plain mapping)."""
    if isinstance(record, Mapping):
        return dict(record)
    return dataclasses.asdict(record)
