"""Nested objects of JSON, and configs, as fields by dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def flatten(
    tree: Any, is_leaf: Callable[[Any], bool] = lambda _: False, prefix: str = ""
) -> dict[str, Any]:
    """Return the leaves of nested objects by dotted name, in their order.

    Args:
      tree: nested mappings; an empty one is a leaf, as is all that is no mapping.
      is_leaf: says which other mappings are leaves.
      prefix: the name of `tree` itself.
    """
    if not isinstance(tree, Mapping) or not tree or is_leaf(tree):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, is_leaf, f"{prefix}.{key}" if prefix else str(key))
    return flat
