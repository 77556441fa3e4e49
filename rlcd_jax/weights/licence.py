"""Under which licence a model was published, as its files say."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import yaml

CARD = "README.md"
MOST_BYTES = 2**20  # of a card that is read


def of_folder(folder: pathlib.Path) -> str:
    """Return the licence in the head of a folder's model card; "": it does not say."""
    path = folder / CARD
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return ""
        said = huggingface_hub.metadata_load(path) or {}
    except (ValueError, OSError, yaml.YAMLError):
        return ""  # a card for people alone; nothing is computed from it
    return _name(said.get("license_name") or said.get("license"))


def of_fields(fields: Mapping[str, Any]) -> str:
    """Return the licence in a GGUF file's metadata; "": it does not say."""
    return _name(fields.get("general.license"))


def _name(value: Any) -> str:
    return value.strip() if isinstance(value, str) and value.isprintable() else ""
