"""The form of weights that are only read: matrices in the dtype of products.

A product casts its operands anyway, so every value computed from them is the same as
from the float32 master, at half the memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import tree
from rlcd_jax.models import products, table

Params = Any


def form(params: Params, dtype: str) -> Params:
    """Return parameters with their matrices in `dtype`; norms and heads as given.

    Matrices in eight bits stay so.
    """

    def one(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, products.Quantized):  # a form of its own
            return leaf
        return leaf.astype(_dtype_at(path, leaf, dtype))

    return jax.tree_util.tree_map_with_path(one, params, is_leaf=_is_quantized)


def shapes(specs: Params, dtype: str) -> Params:
    """Return the shapes of `form` of the float32 parameters of a table."""
    return jax.eval_shape(lambda p: form(p, dtype), table.abstract_params(specs))


def is_form(params: Params, dtype: str) -> bool:
    """Say whether parameters are `form` of themselves, but for adapters."""

    def one(path: Any, leaf: Any) -> bool:
        if isinstance(leaf, products.Adapted):
            leaf = leaf.weight
        if isinstance(leaf, products.Quantized):
            return True
        return leaf.dtype == jnp.dtype(_dtype_at(path, leaf, dtype))

    return all(
        jax.tree.leaves(
            jax.tree_util.tree_map_with_path(
                one,
                params,
                is_leaf=lambda leaf: isinstance(
                    leaf, products.Adapted | products.Quantized
                ),
            )
        )
    )


def _is_quantized(leaf: Any) -> bool:
    return isinstance(leaf, products.Quantized)


def dtype_of(name: str, ndim: int, own: Any, dtype: str) -> Any:
    """Return the dtype of an array in `form`.

    Args:
      name: its path.
      ndim: its dimensions.
      own: its dtype before.
      dtype: of matrices.
    """
    return own if ndim < 2 or "norm" in name else dtype


def _dtype_at(path: Any, leaf: Any, dtype: str) -> Any:
    return dtype_of(tree.path_name(path), leaf.ndim, leaf.dtype, dtype)
