"""JSON of files, one value a line, read strictly: what is wrong is told with its place.

Python's own reader lets through what later ends elsewhere: NaN, numbers beyond a
float, a name twice in an object, half of a surrogate pair, nesting without end.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 100  # of lists and objects in each other
_ENDLESS = re.compile(r"NaN|Infinity|\d[eE]\+?\d|\d{308}")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a surrogate pair, or what looks like it


def parse(text: str | bytes, where: str) -> Any:
    """Return the JSON value of a text.

    Args:
      text: as text, or as bytes in UTF-8.
      where: the file and the line, for the message.

    Raises:
      ValueError: it starts with `where` and says what is wrong.
    """
    try:
        return strict(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def strict(text: str | bytes) -> Any:
    """Return the value of a text, as `parse` does, with no place in the message.

    Raises:
      JSONDecodeError, UnicodeDecodeError: it is no JSON at all.
      ValueError: it is, and holds what is refused.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=single_names,
            parse_constant=_Endless,
            parse_float=_float,
        )
        deep = text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(
            f"nested too deeply: lists and objects are more than {MAX_DEPTH} deep in "
            "each other; accepted: fewer"
        )
    if _ENDLESS.search(text):  # or what looks like it
        _refuse_endless(value)
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                "a text holds half of a surrogate pair (\\ud800 to \\udfff), which is "
                "no character; write the whole pair"
            ) from error
    return value


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of a text; other values are refused as in `parse`."""
    value = parse(text, where)
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: the line is {_named(value)}; accepted: an object, as in "
            '{"field": value}'
        )
    return value


def read_object(path: epath.PathLike) -> dict[str, Any]:
    """Return the JSON object that a whole file is, such as a run's config.json.

    Raises:
      ValueError: it cannot be read, is damaged or is no object; it names the file.
    """
    path = epath.Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    value = parse(data.removeprefix(BOM), str(path))
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} holds {_named(value)}, and an object is accepted; restore the file"
        )
    return value


def read(
    path: epath.PathLike, *, drop_truncated: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    r"""Yield the number of each line, from 1, and its object; skip empty lines.

    Args:
      path: a file with one JSON object a line; its lines may end in "\r\n", and a
        byte order mark may be before the first.
      drop_truncated: leave out a last line that a killed writer cut short, instead of
        refusing the file.

    Raises:
      ValueError: names the file and the line.
    """
    path = epath.Path(path)
    lines = split_lines(path.read_bytes())
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        cut = number == len(lines) and _is_cut(line)  # no newline after it
        if cut and drop_truncated:
            return
        if cut:
            raise ValueError(
                f"{where}: the last line is cut short (a writer was killed); delete "
                "that line, or read with drop_truncated=True"
            )
        yield number, parse_object(line, where)


def _is_cut(line: bytes) -> bool:
    try:
        strict(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return True
    except ValueError:
        pass  # it is JSON, and wrong
    return False


def split_lines(data: bytes) -> list[bytes]:
    """Return the lines of a file without a byte order mark; the last has no newline."""
    return data.removeprefix(BOM).split(b"\n")


def first_double(pairs: Sequence[tuple[str, Any]]) -> str | None:
    """Return the first name that an object of JSON has again; None: all are its own."""
    seen = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None


def single_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, as `object_pairs_hook`; refuse a name twice in it."""
    double = first_double(pairs)
    if double is not None:
        raise ValueError(f"field {double!r} is there twice in one object; give one")
    return dict(pairs)


class _Endless(str):
    """What stands for NaN, infinity or a number beyond a float until it is refused."""


def _float(text: str) -> float | _Endless:
    value = float(text)
    return value if math.isfinite(value) else _Endless(text[:20])


def _refuse_endless(value: Any, path: str = "") -> None:
    """Raise a ValueError that names the first field without a finite number."""
    if isinstance(value, _Endless):
        where = f" (field {path!r})" if path else ""
        raise ValueError(
            f"a value is {value}{where}; accepted: a finite number, or null"
        )
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = ((f"{path}.{k}" if path else k, one) for k, one in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{i}]", one) for i, one in enumerate(value))
    for name, one in inner:
        _refuse_endless(one, name)


def _is_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return False
    return True


def _named(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
