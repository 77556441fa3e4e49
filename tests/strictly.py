"""What a file says, read strictly and by other code than that under test.

A spec is a function from a JSON value to what a loader is to make of it; it raises
`Refuse` where the value is to be refused.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable
from typing import Any

Spec = Callable[[Any], Any]
MOST = 2**31 - 1


class Refuse(Exception):
    """The file is to be refused."""


def need(fine: Any, why: str = "") -> None:
    if not fine:
        raise Refuse(why)


def decoded(content: bytes, *, bom: bool = True) -> str:
    content = content.removeprefix(b"\xef\xbb\xbf") if bom else content
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refuse("not UTF-8") from error


def value(text: str) -> Any:
    """Return the value of a JSON text."""

    def pairs(found: list) -> dict:
        need(len({name for name, _ in found}) == len(found), "a name twice")
        return dict(found)

    try:
        read = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise Refuse(str(error)) from error
    need(_depth(read) <= 100, "deep")
    for one in _all(read):
        if isinstance(one, float):
            need(math.isfinite(one), "no finite number")
        if isinstance(one, str):
            need(not any("\ud800" <= c <= "\udfff" for c in one), "half a pair")
    return read


def _depth(read: Any) -> int:
    depth, layer = 0, [read]
    while layer := [
        inner
        for one in layer
        if isinstance(one, dict | list)
        for inner in [None, *(one.values() if isinstance(one, dict) else one)]
    ]:
        depth += 1
    return depth


def _all(read: Any) -> list:
    inner = [*read, *read.values()] if isinstance(read, dict) else read
    if not isinstance(read, dict | list):
        return [read]
    return [leaf for one in inner for leaf in _all(one)]


def lines(content: bytes, *, drop_truncated: bool = False) -> list[Any]:
    """Return the objects of JSON lines; blank lines are none."""
    texts = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    rows = []
    for number, text in enumerate(texts):
        if not text.strip():
            continue
        try:
            row = value(decoded(text, bom=False))
        except Refuse:
            cut = drop_truncated and number == len(texts) - 1 and not _is_json(text)
            if cut:
                break
            raise
        need(isinstance(row, dict), "no object")
        rows.append(row)
    return rows


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8"))
    except RecursionError:
        return True
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    except ValueError:
        return True
    return True


# --- specs ----------------------------------------------------------------------------


def text(given: Any) -> str:
    need(type(given) is str, "no text")
    return given


def is_blank(given: str) -> bool:
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in given)


def filled(given: Any) -> str:
    need(not is_blank(text(given)), "blank")
    return given


def switch(given: Any) -> bool:
    need(type(given) is bool)
    return given


def count(low: int = 0, high: int = MOST) -> Spec:
    def spec(given: Any) -> int:
        need(type(given) is int and low <= given <= high, "no such count")
        return given

    return spec


def number(low: float = -math.inf, high: float = math.inf) -> Spec:
    def spec(given: Any) -> float:
        need(type(given) in (int, float), "no number")
        try:
            fine = math.isfinite(given) and low <= given <= high
        except OverflowError:
            fine = False
        need(fine, "out of range")
        return float(given)

    return spec


def one_of(*choices: Any) -> Spec:
    def spec(given: Any) -> Any:
        need(any(type(given) is type(one) and given == one for one in choices))
        return given

    return spec


def maybe(inner: Spec) -> Spec:
    return lambda given: None if given is None else inner(given)


def many(inner: Spec, least: int = 0) -> Spec:
    def spec(given: Any) -> list:
        need(isinstance(given, list) and len(given) >= least)
        return [inner(one) for one in given]

    return spec


def named(inner: Spec) -> Spec:
    def spec(given: Any) -> dict:
        need(isinstance(given, dict))
        return {name: inner(one) for name, one in given.items()}

    return spec


def record(fields: dict[str, Spec], **defaults: Any) -> Spec:
    """Return the spec of an object with these fields; defaults may be left out."""

    def spec(given: Any) -> dict:
        need(isinstance(given, dict), "no object")
        need(given.keys() <= fields.keys(), "an unknown field")
        whole = defaults | given
        need(fields.keys() <= whole.keys(), "a field is missing")
        return {
            name: inner(whole[name]) if name in given else whole[name]
            for name, inner in fields.items()
        }

    return spec


def each_once(rows: list, *names: str) -> list:
    keys = [tuple(row[name] for name in names) for row in rows]
    need(len(set(keys)) == len(keys), "there twice")
    return rows
