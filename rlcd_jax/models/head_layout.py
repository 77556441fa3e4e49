"""Which heads a device computes where they do not divide among the tensor ways.

A model has K key/value heads of G query heads each. Among t devices whole key/value
heads are split where t divides K. Elsewhere a layer's weights are spread over more
heads before they are used: each key/value head is copied for parts of its query heads,
and heads of zeros fill the count up to a multiple of t. A head of zeros adds zero to
the output, and a copy reads what the original reads, so no value changes; parameters,
checkpoints and exported files keep the model's own heads.

LLaMA-30B has 52 heads: on 8 devices each computes 7, four of the 56 being zeros.
TinyLlama has 4 key/value heads of 8: on 8 devices each key/value head lies twice, with
four of its query heads each. SmolLM2-135M has 3 of 3: on 4 devices one has zeros only.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import products

Layer = Any  # one layer in training form: "q", "k", "v", "o" and what else


@dataclasses.dataclass(frozen=True)
class HeadLayout:
    """Heads as they are computed.

    Attributes:
      own_kv_heads: key/value heads of the model.
      own_group: query heads of each of them, in the model.
      copies: how often each key/value head lies on the devices.
      kv_heads: key/value heads computed, copies and zeros included, K of arrays.
      group: query heads of each, zeros included, G of arrays.
      ways: devices among which they are split.
    """

    own_kv_heads: int
    own_group: int
    copies: int
    kv_heads: int
    group: int
    ways: int

    @property
    def is_own(self) -> bool:
        """Whether heads are computed as the model has them."""
        return (self.kv_heads, self.group) == (self.own_kv_heads, self.own_group)

    def describe(self) -> str:
        """Return what is copied and filled up, for logs and plans; "" if nothing."""
        if self.is_own:
            return ""
        own = self.own_kv_heads * self.own_group
        return (
            f"mesh.tensor={self.ways} does not divide {self.own_kv_heads} key/value "
            f"heads: each device computes {self.kv_heads // self.ways} of them and "
            f"{self.kv_heads * self.group // self.ways} query heads; together "
            f"{self.kv_heads * self.group} for {own} query heads, and "
            f"{self.kv_heads} for {self.own_kv_heads} key/value heads "
            f"({self.copies} of each, the rest zeros)"
        )


@functools.lru_cache
def find(num_heads: int, num_kv_heads: int, ways: int) -> HeadLayout:
    """Return the layout in which a device computes the fewest heads.

    Args:
      num_heads: query heads of the model, a multiple of `num_kv_heads`.
      num_kv_heads: its key/value heads.
      ways: devices among which heads are split.
    """
    own_group = num_heads // num_kv_heads

    def with_copies(copies: int) -> HeadLayout:
        kv_heads = -(-num_kv_heads * copies // ways) * ways
        group = -(-own_group // copies)
        return HeadLayout(num_kv_heads, own_group, copies, kv_heads, group, ways)

    # Rows of q, k, v and columns of o: G + 1 pairs for each key/value head.
    options = map(with_copies, range(1, own_group + 1))
    return min(options, key=lambda one: (one.kv_heads * (one.group + 1), one.copies))


def spread(layer: Layer, layout: HeadLayout, width: int) -> Layer:
    """Return a layer whose attention weights are those of the layout's heads.

    Args:
      layer: training form of one layer: "q" [N*H, D], "k" and "v" [K*H, D], "o"
        [D, N*H] of the model's heads.
      layout: the heads to compute.
      width: of a head, H.

    Returns:
      The layer with N and K of the layout; as it was where they are the model's.
    """
    if layout.is_own:
        return layer
    queries = functools.partial(_spread_queries, layout=layout, width=width)
    keys = functools.partial(_spread_keys, layout=layout, width=width)
    return {
        **layer,
        "q": _on_rows(queries, layer["q"]),
        "k": _on_rows(keys, layer["k"]),
        "v": _on_rows(keys, layer["v"]),
        "o": _on_columns(queries, layer["o"]),
    }


def _on_rows(
    spreading: Callable, weight: jax.Array | products.Adapted
) -> jax.Array | products.Adapted:
    """Return a weight [O, I] with its rows spread, of adapters those of `b`."""
    if isinstance(weight, products.Quantized):
        return jax.tree.map(lambda part: spreading(part, "embed"), weight)
    if not isinstance(weight, products.Adapted):
        return spreading(weight, "embed")
    rows = _on_rows(spreading, weight.weight)
    return weight.replace(weight=rows, b=spreading(weight.b, "rank"))


def _on_columns(
    spreading: Callable, weight: jax.Array | products.Adapted
) -> jax.Array | products.Adapted:
    """Return a weight [O, I] with its columns spread, of adapters those of `a`."""
    if isinstance(weight, products.Quantized):
        return weight.replace(values=spreading(weight.values.T, "embed").T)
    if not isinstance(weight, products.Adapted):
        return spreading(weight.T, "embed").T
    columns = _on_columns(spreading, weight.weight)
    return weight.replace(weight=columns, a=spreading(weight.a.T, "rank").T)


def _spread_queries(
    rows: jax.Array, into: str, *, layout: HeadLayout, width: int
) -> jax.Array:
    """Return query heads' rows [N*H, I] from the model's; `into` is I's axis."""
    dim = rows.shape[-1]
    rows = _gathered(rows, into)
    rows = rows.reshape(layout.own_kv_heads, layout.own_group, width, dim)
    more = layout.copies * layout.group - layout.own_group
    rows = jnp.pad(rows, ((0, 0), (0, more), (0, 0), (0, 0)))
    rows = rows.reshape(-1, layout.group * width, dim)
    return _filled(rows, into, layout)


def _spread_keys(
    rows: jax.Array, into: str, *, layout: HeadLayout, width: int
) -> jax.Array:
    """Return key/value heads' rows [K*H, I] from the model's; `into` is I's axis."""
    rows = _gathered(rows, into).reshape(layout.own_kv_heads, width, -1)
    return _filled(jnp.repeat(rows, layout.copies, axis=0), into, layout)


def _gathered(rows: jax.Array, into: str) -> jax.Array:
    """Return rows whole on every device: what follows is then cut without exchange."""
    return sharding.constrain(rows, (None, into))


def _filled(heads: jax.Array, into: str, layout: HeadLayout) -> jax.Array:
    """Return [K * X, I] from [k, X, I]: heads of zeros behind, split among devices."""
    more = layout.kv_heads - heads.shape[0]
    heads = jnp.pad(heads, ((0, more), (0, 0), (0, 0)))
    heads = sharding.constrain(heads, ("kv_heads", None, into))
    return heads.reshape(-1, heads.shape[-1])
