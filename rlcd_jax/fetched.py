"""Files of a model, as others wrote them and as they were fetched: read strictly.

What is wrong with such a file shows nowhere else, or much later: half a download, a
page of an error, a pointer in the place of a file, a name twice in an object.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from rlcd_jax import jsonl

# Of a JSON file: an index of 100,000 tensors has 10 MiB, a tokenizer of 256,000
# tokens 40.
MOST_BYTES = 128 * 2**20
POINTER_START = b"version https://git-lfs"
REMEDY = "fetch the file again from where the model came from"


@contextlib.contextmanager
def reading(path: str | pathlib.Path) -> Iterator[None]:
    """Turn what the operating system says about a file into a `ValueError`."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def refuse_pointer(path: pathlib.Path, start: bytes) -> None:
    """Refuse a file that only says which file Git LFS would fetch.

    Args:
      path: of the file, for the message.
      start: its first bytes, as many as `POINTER_START` has or more.
    """
    if start.startswith(POINTER_START):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file; fetch it with: git lfs pull"
        )


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
      ValueError: the file is unreadable, too large or no JSON object, or a key of it
        stands there twice; the message names the file and what was found.
    """
    with reading(path), path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{path} is larger than {MOST_BYTES} bytes, which no file of its kind is; "
            f"{REMEDY}"
        )
    refuse_pointer(path, content.lstrip())
    try:
        value = jsonl.strict(content)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON (it is not UTF-8); {REMEDY}") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON: it {_looks(content)} ({error}); {REMEDY}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {REMEDY}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} holds {show(value)}; accepted: a JSON object ({{...}}); {REMEDY}"
        )
    return value


def read_optional(path: pathlib.Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} where there is no file.

    Raises:
      ValueError: as `read_object`.
    """
    return read_object(path) if path.exists() else {}


def show(value: Any) -> str:
    """Return a value of a file as a message shows it: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, dict | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _looks(content: bytes) -> str:
    start = content.decode("utf-8").lstrip()
    if not start:
        return "is empty"
    if start.startswith("<"):
        return "is a web page"
    return f"starts with {start[:20]!r}"
