"""Fields of files that others wrote, each with its type and its bounds.

A config says how many layers a loop runs over and how large an array is, so no number
is used before it is known to be one, and to be of a size that a model can have.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rlcd_jax import jsonl

MOST_BYTES = 64 * 2**20  # of a JSON file: an index of 100,000 tensors has 10 MiB
LINK_START = b"version https://git-lfs"

# The largest numbers accepted: several times those of the largest LLaMA, 405B.
MOST_LAYERS = 1024
MOST_WIDTH = 2**18  # hidden_size; rows of a head's matrices
MOST_MLP = 2**20
MOST_HEADS = 4096
MOST_HEAD_DIM = 4096
MOST_IDS = 2**22
MOST_POSITIONS = 2**31 - 1
MOST_THETA = 1e15


@contextlib.contextmanager
def reading(path: str | pathlib.Path) -> Iterator[None]:
    """Turn what the operating system says about a file into a `ValueError`."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
      ValueError: the file is unreadable, too large or no JSON object, or a key of it
        stands there twice; the message names the file.
    """
    with reading(path), path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{path} is larger than {MOST_BYTES} bytes, which no file of its kind is; "
            "restore the file"
        )
    if content.startswith(LINK_START):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file; fetch it with: git lfs pull"
        )
    try:
        raw = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply; restore the file") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; restore the file") from error
    if not isinstance(raw, dict):
        raise ValueError(
            f"{path} holds a {type(raw).__name__}; accepted: a JSON object ({{...}}); "
            "restore the file"
        )
    return raw


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    double = jsonl.first_double(pairs)
    if double is not None:
        raise ValueError(f"the key {show(double)} stands there twice")
    return dict(pairs)


def integer(
    raw: Mapping[str, Any],
    name: str,
    origin: str,
    most: int,
    *,
    absent: int | None = None,
    least: int = 1,
) -> int:
    """Return a field that is a whole number.

    Args:
      raw: the fields.
      name: of the field.
      origin: where the fields are from, for the message.
      most: the largest number accepted.
      absent: what a field means that is not there or null; None: it must be there.
      least: the smallest number accepted.

    Raises:
      ValueError: it is missing, of another type (2.0 and true are), or out of bounds.
    """
    value = _present(raw, name, origin, absent)
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(origin, name, value, f"a whole number from {least} to {most}")
    if not least <= value <= most:
        _refuse(origin, name, value, f"{least} to {most}")
    return value


def number(
    raw: Mapping[str, Any],
    name: str,
    origin: str,
    most: float,
    *,
    absent: float | None = None,
) -> float:
    """Return a field that is a number above 0; see `integer`."""
    value = _present(raw, name, origin, absent)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(origin, name, value, f"a number above 0, up to {most:g}")
    if not 0 < value <= most:  # nor is NaN
        _refuse(origin, name, value, f"above 0, up to {most:g}")
    return float(value)


def switch(raw: Mapping[str, Any], name: str, origin: str, *, absent: bool) -> bool:
    """Return a field that is true or false; see `integer`."""
    value = _present(raw, name, origin, absent)
    if not isinstance(value, bool):
        _refuse(origin, name, value, "true or false")
    return value


def show(value: Any) -> str:
    """Return a value as a message shows it: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _present(raw: Mapping[str, Any], name: str, origin: str, absent: Any) -> Any:
    value = raw.get(name)
    value = absent if value is None else value
    if value is None:
        raise ValueError(f"{origin}: missing {name}; restore the file")
    return value


def _refuse(origin: str, name: str, value: Any, accepted: str) -> None:
    raise ValueError(
        f"{origin}: {name} is {show(value)}; accepted: {accepted}; restore the file"
    )
