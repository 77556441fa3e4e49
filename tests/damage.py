"""Ways in which a file is damaged: its bytes, or one value of the JSON in it."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP = "\0deep"  # stands for lists in lists, deeper than any file
TWICE = "\0twice"  # in front of a name that stands in its object again

# In the place of any value: of another type, beyond any bound, of no number.
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 7, 10**6, 2**31, 2**63, 10**30),
    *(float("nan"), float("inf"), -float("inf"), 1e308, 1e-320),
    *("", " ", "\u200b", "1", "0.5", "nan", "true", "x", "x" * 70_000, "\0", "\x1b[2J"),
    *("\ud800", "a\udfffb", "\u202egnp", "é", "../x", "/etc/passwd", "a/../../b"),
    *("C:\\x", "gs://b/x", "<script>alert(1)</script>", "=1+1", "\ufeff"),
    *([], {}, [1], {"a": 1}, [[]], ["x"], DEEP),
)
NAMES = ("x", "", "__class__", "id ", "\ud800", "ID")
WHOLE = (
    b"",
    b" \n",
    b"null",
    b"[]",
    b"{}",
    b"0",
    b'"x"',
    b"NaN",
    b"\xff\xfe{\x00}\x00",
    b"\x00" * 64,
    b"<!DOCTYPE html><html><title>404</title></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13\n",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b'"' + b"x" * 100_000,
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"PK\x03\x04",
)
PIECES = (
    *(b"\0", b"\xff", b"\x80", b"{", b"}", b"[", b'"', b"9", b"-", b",", b":", b"\n"),
    *(b"\\", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"e9", b"\r", b" ", b"0" * 400),
)


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Return the path of each value inside a JSON value, its own first."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    return [at] + [path for key, one in inner for path in paths(one, (*at, key))]


def _holder(value: Any, path: tuple) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def _one(draw: Any) -> Any:
    return copy.deepcopy(draw(st.sampled_from(VALUES)))


@st.composite
def values(draw: Any, value: Any) -> Any:
    """Return a JSON value that is changed at one place or two."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        path = draw(st.sampled_from(paths(value)[1:] or [()]))
        if not path:
            return _one(draw)
        holder, key = _holder(value, path), path[-1]
        how = draw(st.sampled_from(["put", "put", "put", "drop", "add", "twice"]))
        if how == "put":
            holder[key] = _one(draw)
        elif how == "drop":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif how == "add":
            holder[draw(st.sampled_from(NAMES))] = _one(draw)
        else:
            again = copy.deepcopy(holder[key]) if draw(st.booleans()) else 0
            holder[f"{TWICE}{key}"] = again
    return value


def dumps(value: Any) -> str:
    """Return the JSON text of a value, `DEEP` and `TWICE` written out."""
    if isinstance(value, str) and value == DEEP:
        return "[" * 5000 + "]" * 5000
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(name.removeprefix(TWICE))}: {dumps(one)}"
                for name, one in value.items()
            )
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


@st.composite
def contents(draw: Any, content: bytes, end: int | None = None) -> bytes:
    """Return the bytes of a file that are damaged somewhere, up to `end`."""
    how = draw(st.sampled_from(["edit", "edit", "edit", "cut", "code", "whole"]))
    end = len(content) if end is None else end
    if how == "whole":
        return draw(st.sampled_from(WHOLE))
    if how == "code":
        codes = ("utf-16", "utf-32", "utf-8-sig", "utf-7", "cp037")
        text = content.decode("utf-8", "replace")
        return text.encode(draw(st.sampled_from(codes)), "replace")
    at = draw(st.integers(0, max(0, end - 1)))
    if how == "cut":
        return content[:at]
    for _ in range(draw(st.integers(1, 3))):
        piece = draw(st.sampled_from(PIECES))
        over = draw(st.integers(0, 2))  # bytes that the piece stands over
        content = content[:at] + piece + content[at + over :]
        at = draw(st.integers(0, max(0, end - 1)))
    if draw(st.integers(0, 3)) == 0 and at < len(content):  # and a bit of one byte
        bit = 1 << draw(st.integers(0, 7))
        content = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    return content


@st.composite
def lines(draw: Any, rows: list[Any]) -> bytes:
    """Return the content of a file of JSON lines, of which one is changed."""
    texts = list(map(json.dumps, rows))
    if draw(st.booleans()):
        content = "".join(f"{text}\n" for text in texts).encode()
        return draw(contents(content))
    number = draw(st.integers(0, len(texts) - 1))
    how = draw(st.sampled_from(["value"] * 5 + ["again", "swap"]))
    if how == "value":
        texts[number] = dumps(draw(values(rows[number])))
    elif how == "again":
        texts.insert(draw(st.integers(0, len(texts))), texts[number])
    else:
        texts.reverse()
    ending = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n"]))
    return "".join(text + ending for text in texts).encode()
