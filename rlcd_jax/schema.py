"""The one check of what comes from files: the field, the value, what is accepted.

A frozen dataclass is the schema: annotations give types, `Literal` lists choices,
`between` gives a range, `filled` asks for text or entries. All that is wrong with a
record is said at once.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Literal

LONGEST_SHOWN = 60  # characters of a value in a message
LONGEST_NAME, MOST_SHOWN = 200, 20  # characters of a field's path, and problems, in one
Found = list[tuple[str, str]]  # (path of a field, what is wrong with it)


class Problems(ValueError):
    """All that is wrong with a record; `found` holds (field, what) pairs."""

    def __init__(self, found: Found) -> None:
        self.found = found
        super().__init__("; ".join(self.lines()))

    def lines(self) -> list[str]:
        """Return one message a problem, for the first ones, and how many more."""
        return [what.format(_cut_name(name)) for name, what in _first(self.found)]


def _first(found: Found) -> Found:
    """Return as many problems as a person reads, and how many more there are."""
    more = len(found) - MOST_SHOWN
    if more <= 1:  # as many lines
        return found
    return [*found[:MOST_SHOWN], ("", f"and {more} problems more")]


def _cut_name(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def between(low: float, high: float = math.inf, **default: Any) -> Any:
    """Return a dataclass field whose number must lie in [low, high].

    Args:
      low: the least number accepted.
      high: the largest.
      **default: `default=...` where the field may be left out of a file.
    """
    return dataclasses.field(metadata={"low": low, "high": high}, **default)


def filled(**default: Any) -> Any:
    """Return a dataclass field whose text (or each of whose texts) is not blank.

    Args:
      **default: `default=...` where the field may be left out of a file.
    """
    return dataclasses.field(metadata={"filled": True}, **default)


def problem(what: str) -> str:
    """Return a message of which `{}` is yet to become the path of its field."""
    return "field '{}' " + what.replace("{", "{{").replace("}", "}}")


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def listed(names: Iterable[str]) -> str:
    """Return names in quotes with commas between."""
    return ", ".join(f"'{name}'" for name in names)


def near(name: str, names: Iterable[str]) -> str:
    """Return "(did you mean 'x'?)" where a name is nearly one of some, else ""."""
    if len(name) > LONGEST_NAME:
        return ""
    found = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.6)
    return f"(did you mean '{found[0]}'?)" if found else ""


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
    if origin is dict:
        return f"an object of named values, each {_accepted(args[1])}"
    words = {str: "text", int: "a whole number", float: "a finite number"}
    words |= {bool: "true or false", dict: "an object", type(None): "null"}
    if hint in words:
        return words[hint]
    names = ", ".join(field.name for field in dataclasses.fields(hint))
    return f"an object with the fields of {hint.__name__} ({names})"


def is_number(value: Any, hint: type) -> bool:
    """Say whether a value is a whole number (`int`), or any finite one (`float`)."""
    kinds = int if hint is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return hint is int


def _coerce(value: Any, declared: Any, name: str, found: Found, exact: bool) -> Any:
    """Return `value` in its declared type; what is wrong goes to `found`."""
    hint = declared
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None:
            return None  # the only unions here are `X | None`
        hint = next(a for a in args if a is not type(None))
        origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and isinstance(value, str) and value in args:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(
            _coerce(entry, args[0], f"{name}[{i}]", found, exact)
            for i, entry in enumerate(value)
        )
    if origin is dict and isinstance(value, Mapping):
        return {
            key: _coerce(entry, args[1], f"{name}.{key}", found, exact)
            for key, entry in value.items()
        }
    if hint in (int, float) and is_number(value, hint):
        return hint(value)
    if hint in (str, dict, bool) and isinstance(value, hint):
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            try:
                return from_dict(hint, value, exact=exact)
            except Problems as error:
                found += [(f"{name}.{inner}", what) for inner, what in error.found]
            except ValueError as error:
                found.append((name, problem(f"is wrong: {error}")))
            return None
    found.append((name, problem(f"is {shown(value)}; accepted: {_accepted(declared)}")))
    return None


def is_blank(text: str) -> bool:
    """Say whether nothing of a text is seen: blanks, controls, characters of no width.

    Such a text is no prompt, no reply and no name, whatever its length.
    """
    return all(
        one.isspace() or unicodedata.category(one) in ("Cc", "Cf") for one in text
    )


def _limits(field: dataclasses.Field, value: Any, given: Any) -> str:
    """Return what is wrong with a value of the right type, or ""; shows `given`."""
    if value is None or not field.metadata:
        return ""
    if "filled" in field.metadata:
        texts = value.values() if isinstance(value, dict) else value
        texts = [value] if isinstance(value, str) else list(texts)
        if not texts or any(isinstance(t, str) and is_blank(t) for t in texts):
            plain = isinstance(value, str)
            wanted = "text" if plain else "one entry or more, each text"
            return f"is {shown(given)}; accepted: {wanted} that is not blank"
        return ""
    low, high = field.metadata["low"], field.metadata["high"]
    if low <= value <= high:
        return ""
    accepted = f"from {low} to {high}" if high < math.inf else f"at least {low}"
    return f"is {shown(given)}; accepted: {accepted}"


def _read(cls: type, given: Mapping[str, Any], exact: bool) -> tuple[dict, Found]:
    """Return fields in their declared types, and what is wrong with them."""
    read: dict[str, Any] = {}
    found: Found = []
    for field in dataclasses.fields(cls):
        if field.name not in given:
            continue
        hint, before = _hints(cls)[field.name], len(found)
        value = _coerce(given[field.name], hint, field.name, found, exact)
        wrong = _limits(field, value, given[field.name])
        if wrong and len(found) == before:
            found.append((field.name, problem(wrong)))
        read[field.name] = value
    return read, found


def validate(record: Any, *, exact: bool = True) -> None:
    """Check every field of a frozen dataclass against its annotation and range.

    JSON lists become tuples and JSON objects become the annotated dataclass.

    Args:
      record: a frozen dataclass just made.
      exact: whether objects inside it must hold every field, as in `from_dict`.

    Raises:
      Problems: a ValueError that names each wrong field, its value and what is
        accepted.
    """
    read, found = _read(type(record), vars(record), exact)
    if found:
        raise Problems(found)
    for name, value in read.items():
        object.__setattr__(record, name, value)


def from_dict(cls: type, row: Mapping[str, Any], *, exact: bool = True) -> Any:
    """Return the record that `row` describes; refuses missing and unknown fields.

    Args:
      cls: a frozen dataclass that checks itself by `validate`.
      row: its fields by name.
      exact: whether every field must be there; without it, fields with a default may
        be left out.

    Raises:
      Problems: a ValueError that names every missing, unknown and wrong field.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"the line is a {type(row).__name__}; accepted: an object")
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    needed = [field.name for field in fields if exact or _is_required(field)]
    found = [(n, "missing " + problem("").strip()) for n in needed if n not in row]
    unknown = [name for name in row if name not in names]
    for name in unknown[:MOST_SHOWN]:
        found.append((name, "unknown " + problem(near(name, names)).strip()))
    if len(unknown) > MOST_SHOWN:
        found.append(("", f"and {len(unknown) - MOST_SHOWN} unknown fields more"))
    if not found:
        return cls(**row)
    extent = "exactly the fields" if exact else "the fields"
    name, what = found[-1]
    accepted = f"; accepted: {extent} of {cls.__name__} ({', '.join(names)})"
    found[-1] = (name, what + accepted)
    raise Problems(found + _read(cls, row, exact)[1])


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def to_dict(record: Any) -> dict[str, Any]:
    """Return the JSON object of a record (or of a plain mapping)."""
    if isinstance(record, Mapping):
        return dict(record)
    return dataclasses.asdict(record)
