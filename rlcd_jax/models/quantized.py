"""A frozen base in eight bits: the matrices of its layers, with a scale a row.

Half the memory of bfloat16. Embeddings, norms and the output table stay as they are.
The adapters that are trained on it see the rounded model, and so does whoever reads
it. qwix (extra "int8") rounds; `products.matrix` reads.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax.models import llama, products, table

Params = Any
AS_COMPUTED, INT8 = FORMS = ("compute", "int8")  # of a base: model.dtype, or eight bits
PACKAGE = "qwix"


def missing() -> str:
    """Say that the package which rounds is not installed; "" where it is."""
    if importlib.util.find_spec(PACKAGE) is not None:
        return ""
    return (
        f"a base in {INT8} is made by {PACKAGE}, which is not installed; "
        'pip install "rlcd_jax[int8]"'
    )


def quantize(weight: jax.Array) -> products.Quantized:
    """Return a matrix [..., O, I] in eight bits.

    The scale of a row is its largest number over 127.5: whole steps of it are stored,
    so that no number is further off than half of it.
    """
    import qwix

    rounded = qwix.quantize(
        weight.astype(jnp.float32),
        "int8",
        channelwise_axes=range(weight.ndim - 1),
        scale_dtype=jnp.float32,
    )
    return products.Quantized(rounded.qvalue, rounded.scale)


def specs(cfg: llama.LlamaConfig) -> Params:
    """Return the table of a base in eight bits, as `llama.param_specs` has it."""

    def rows(spec: table.ParamSpec) -> table.ParamSpec:
        shape, axes = (*spec.shape[:-1], 1), (*spec.axes[:-1], None)
        return dataclasses.replace(spec, shape=shape, axes=axes)

    return _on_matrices(
        llama.param_specs(cfg),
        lambda spec: products.Quantized(spec, rows(spec)),
    )


def form(
    params: Params, make: Callable[[str, jax.Array], products.Quantized]
) -> Params:
    """Return a base with its matrices in eight bits, made one after the other.

    Args:
      params: training form. Its layers are used up, so that no two of it are there.
      make: from a matrix's name and the matrix to `quantize` of it.
    """
    layers = dict(params["layers"])
    params["layers"].clear()
    for name in [name for name, leaf in layers.items() if _is_matrix(leaf)]:
        layers[name] = make(name, layers.pop(name))
    return {**params, "layers": layers}


def shapes(base: Params) -> Params:
    """Return the shapes of a base in eight bits by those of the base."""

    def of(leaf: Any) -> products.Quantized:
        rows = (*leaf.shape[:-1], 1)
        return products.Quantized(
            jax.ShapeDtypeStruct(leaf.shape, jnp.int8),
            jax.ShapeDtypeStruct(rows, jnp.float32),
        )

    return _on_matrices(base, of)


def _on_matrices(params: Params, change: Callable[[Any], Any]) -> Params:
    """Return a tree of parameters with the matrices of its layers changed."""
    layers = {
        name: change(leaf) if _is_matrix(leaf) else leaf
        for name, leaf in params["layers"].items()
    }
    return {**params, "layers": layers}


def _is_matrix(leaf: Any) -> bool:
    """Say whether a parameter of all layers, or its row of a table, is of matrices."""
    return len(leaf.shape) > 2
