"""What an item of a checkpoint is like: type, shape and fingerprint of each array.

As text, so that JSON holds it and a message shows it: "float32[16, 8]", and what was
saved with a fingerprint behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlcd_jax import fingerprints, tree

Tree = Any
MOST_NAMED = 8  # parameters that one error message names


def form(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and dtype of a leaf as saved; typed keys are saved as words."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(
            jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        )
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def forms(item: Tree) -> dict[str, str]:
    """Return type and shape of each leaf of an item, by its path."""
    return {name: _shown(form(x)) for name, x in tree.flatten_names(item).items()}


def _shown(form: tuple[tuple[int, ...], np.dtype]) -> str:
    return f"{form[1]}{list(form[0])}"


def saved_forms(described: Mapping[str, str]) -> dict[str, str]:
    """Return type and shape of what was saved, without the fingerprints."""
    return {name: text.rpartition(" ")[0] for name, text in described.items()}


def differences(
    name: str, wanted: Mapping[str, str], saved: Mapping[str, str]
) -> list[str]:
    """Name the leaves of an item that are not as they were saved."""
    lines = []
    for key in sorted(wanted.keys() | saved.keys()):
        if key not in saved:
            lines.append(f"{name}/{key} is not in the checkpoint")
        elif key not in wanted:
            lines.append(f"{name}/{key} is in the checkpoint but was not asked for")
        elif wanted[key] != saved[key]:
            lines.append(
                f"{name}/{key} was saved as {saved[key]} but {wanted[key]} was asked "
                "for"
            )
    return lines


def described(item: Tree) -> dict[str, str]:
    """Return type, shape and fingerprint of each array of an item, by its path."""
    hashes = fingerprints.of_tree(item)
    return {name: f"{form} {hashes[name]}" for name, form in forms(item).items()}


def listed(lines: list[str]) -> str:
    """Return lines as a message shows them, the first ones of many."""
    rest = len(lines) - MOST_NAMED
    more = [f"and {rest} more"] if rest > 0 else []
    return "".join(f"\n  {line}" for line in [*lines[:MOST_NAMED], *more])
