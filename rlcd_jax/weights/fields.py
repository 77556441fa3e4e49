"""Fields of files that others wrote, each with its type and its bounds.

A config says how many layers a loop runs over and how large an array is, so no number
is used before it is known to be one, and to be of a size that a model can have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlcd_jax import fetched

# The largest numbers accepted: several times those of the largest LLaMA, 405B.
MOST_LAYERS = 1024
MOST_WIDTH = 2**18  # hidden_size; rows of a head's matrices
MOST_MLP = 2**20
MOST_HEADS = 4096
MOST_HEAD_DIM = 4096
MOST_IDS = 2**22
MOST_POSITIONS = 2**31 - 1
MOST_THETA = 1e15


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


def _present(raw: Mapping[str, Any], name: str, origin: str, absent: Any) -> Any:
    value = raw.get(name)
    value = absent if value is None else value
    if value is None:
        raise ValueError(f"{origin}: missing {name}; restore the file")
    return value


def _refuse(origin: str, name: str, value: Any, accepted: str) -> None:
    raise ValueError(
        f"{origin}: {name} is {fetched.show(value)}; accepted: {accepted}; restore the "
        "file"
    )
