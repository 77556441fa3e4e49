"""Nested dicts of arrays: names, sizes, casts and structural differences."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

Tree = Any


def flatten_names(tree: Tree) -> dict[str, Any]:
    """Return the leaves of `tree` by path, such as `layers/q`.

    Args:
      tree: nested dicts, tuples and dataclasses with any leaves.

    Returns:
      A dict from the path, its parts joined by "/", to the leaf, in tree order.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def path_name(path: tuple[Any, ...]) -> str:
    """Return a tree path as text, its parts joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def count_params(tree: Tree) -> int:
    """Return the number of scalars in all leaves; leaves need only a shape."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def count_bytes(tree: Tree) -> int:
    """Return the size of all leaves in bytes; leaves need a shape and a dtype."""
    return sum(
        int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def cast(tree: Tree, dtype: Any) -> Tree:
    """Return `tree` with every floating leaf in `dtype`; others are untouched."""

    def one(leaf: Any) -> Any:
        floating = jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        return leaf.astype(dtype) if floating else leaf

    return jax.tree.map(one, tree)


def difference(expected: Tree, found: Tree) -> list[str]:
    """Name what differs between two trees in paths or shapes.

    Args:
      expected: tree whose leaves have `shape`.
      found: tree whose leaves have `shape`.

    Returns:
      One line for each missing, unknown or wrongly shaped leaf; empty when alike.
    """
    want, have = flatten_names(expected), flatten_names(found)
    lines = [f"missing {name}" for name in want if name not in have]
    lines += [f"unknown {name}" for name in have if name not in want]
    for name in want.keys() & have.keys():
        if tuple(want[name].shape) != tuple(have[name].shape):
            lines.append(
                f"{name} has shape {tuple(have[name].shape)}, "
                f"expected {tuple(want[name].shape)}"
            )
    return sorted(lines)
