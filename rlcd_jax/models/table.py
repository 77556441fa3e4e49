"""The parameter table: each parameter is declared once.

Initialisation, sharding, checkpoint restore and the import and export of weights all
derive from a nested dict of `ParamSpec`, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

Params = Any


@dataclasses.dataclass(frozen=True)
class ParamSpec:
    """One parameter, declared once: shape, logical axes, initialiser."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: str  # "normal" (standard deviation 0.02), "ones", "zeros", "uniform_fan_in"


def init_from_specs(specs: Params, key: jax.Array) -> Params:
    """Return float32 parameters drawn as the table says.

    Each parameter's key is folded from its place in the table, so a value does not
    depend on the mesh. Under jit with `out_shardings` no device holds the whole.
    """
    leaves, structure = jax.tree.flatten(specs, is_leaf=_is_spec)

    def one(index: int, spec: ParamSpec) -> jax.Array:
        own_key = jax.random.fold_in(key, index)
        if spec.init == "normal":
            return 0.02 * jax.random.normal(own_key, spec.shape, jnp.float32)
        if spec.init == "uniform_fan_in":
            bound = 1 / math.sqrt(spec.shape[-1])
            return jax.random.uniform(own_key, spec.shape, jnp.float32, -bound, bound)
        fill = {"ones": 1.0, "zeros": 0.0}[spec.init]
        return jnp.full(spec.shape, fill, jnp.float32)

    return structure.unflatten([one(i, spec) for i, spec in enumerate(leaves)])


def _is_spec(leaf: Any) -> bool:
    return isinstance(leaf, ParamSpec)


def abstract_params(specs: Params, dtype: Any = jnp.float32) -> Params:
    """Return the table as `jax.ShapeDtypeStruct` leaves."""
    return jax.tree.map(
        lambda spec: jax.ShapeDtypeStruct(spec.shape, dtype), specs, is_leaf=_is_spec
    )
