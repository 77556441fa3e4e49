"""The JSON files beside a tokenizer: read strictly, for what is wrong shows nowhere."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from rlcd_jax import jsonl

SETTINGS = (  # read by transformers or here, where they are
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.*",
    "config.json",
)


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
      ValueError: there is none; the message says what was found in its place.
    """
    remedy = "fetch the file again from where the model came from"
    try:
        text = path.read_bytes().decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON (it is not UTF-8); {remedy}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not usable: its JSON is too deep") from error
    except KeyError as error:
        raise ValueError(
            f"{path} has the key {error} twice in one object; keep the right one"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON: it {_looks(text)} ({error}); {remedy}"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} must hold a JSON object, got {short(value)}; {remedy}"
        )
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a JSON file; a KeyError names the key that is twice there."""
    double = jsonl.first_double(pairs)
    if double is not None:
        raise KeyError(double)
    return dict(pairs)


def check_links(folder: pathlib.Path) -> None:
    """Refuse a folder in which a file that is read if it is there cannot be read.

    A cache of models holds links to its files: of one whose file was not fetched, the
    settings would be left out without a word.

    Raises:
      ValueError: with the name of the file.
    """
    for path in sorted(folder.iterdir()):
        if not any(map(path.match, SETTINGS)) or path.is_file():
            continue
        if path.is_symlink() and not path.exists():
            raise ValueError(
                f"{path} is a link to a file that is not there; fetch the model again"
            )
        raise ValueError(f"{path} is no file; remove it, or put the file there")


def _looks(text: str) -> str:
    start = text.lstrip()
    if not start:
        return "is empty"
    if start.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS, whose file was not fetched (git lfs pull)"
    if start.startswith("<"):
        return "is a web page"
    return f"starts with {start[:20]!r}"


def short(value: Any) -> str:
    """Return a value as a message shows it, its end left out where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_optional(path: pathlib.Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} where there is no file.

    Raises:
      ValueError: as `read_object`.
    """
    return read_object(path) if path.exists() else {}
