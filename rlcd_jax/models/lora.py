"""LoRA: small trained matrices beside frozen ones, as surgery on the parameter table.

A matrix W [O, I] of a layer is read as `W + alpha / rank * B A`, with A [rank, I] and
B [O, rank] trained and W not. B starts at zeros, so every model starts as its base. The
base is one set of arrays: policy, reference, preference and value model are it with
adapters of their own laid on, and nothing of it is copied (`lay`). Embeddings, norms
and the output table stay the base's; a scalar head is trained whole.

Source: arXiv 2106.09685; the start of A is PEFT's, U(-1/sqrt(I), 1/sqrt(I)).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from rlcd_jax.models import heads, llama, products, table

Params = Any
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")  # the matrices of a layer


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which matrices have adapters, and of what size.

    Attributes:
      rank: rows of A and columns of B.
      alpha: the product of the two is multiplied by `alpha / rank`.
      targets: of `TARGETS`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank={self.rank} of adapters; accepted: 1 or more")
        unknown = sorted({*self.targets} - {*TARGETS})
        if unknown or not self.targets:
            raise ValueError(
                f"targets={self.targets} of adapters; accepted: one or more of "
                f"{', '.join(TARGETS)}"
            )

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank


def param_specs(cfg: llama.LlamaConfig, adapters: Lora) -> Params:
    """Return the table of a model's adapters: {"layers": {name: {"a", "b"}}}.

    Their axes are those of the matrices beside which they lie.
    """
    layers = llama.param_specs(cfg)["layers"]

    def pair(spec: table.ParamSpec) -> Params:
        (depth, out, into), (_, out_axis, in_axis) = spec.shape, spec.axes
        rank = adapters.rank
        a_axes, b_axes = ("layers", "rank", in_axis), ("layers", out_axis, "rank")
        return {
            "a": table.ParamSpec((depth, rank, into), a_axes, "uniform_fan_in"),
            "b": table.ParamSpec((depth, out, rank), b_axes, "zeros"),
        }

    # In the order of the layer's own table, however the targets were named.
    return {
        "layers": {
            name: pair(layers[name]) for name in TARGETS if name in adapters.targets
        }
    }


def scalar_specs(cfg: llama.LlamaConfig, adapters: Lora) -> Params:
    """Return the table of a scalar model: adapters of its trunk, and its head."""
    head = heads.scalar_specs(cfg)["head"]
    return {"trunk": param_specs(cfg, adapters), "head": head}


def lay(base: Params, trained: Params, scale: float) -> Params:
    """Return a model: its adapters on the base, whose arrays it shares.

    Args:
      base: LLaMA weights in training form, of any dtype.
      trained: of `param_specs` or `scalar_specs`.
      scale: see `Lora.scale`.

    Returns:
      What `models.llama` or, with "trunk" and "head", `models.heads` reads.
    """
    if "trunk" in trained:
        trunk = {name: part for name, part in base.items() if name != "unembed"}
        return {**trained, "trunk": lay(trunk, trained["trunk"], scale)}
    layers = dict(base["layers"])
    for name, pair in trained["layers"].items():
        layers[name] = products.Adapted(layers[name], pair["a"], pair["b"], scale)
    return {**base, "layers": layers}


def lay_all(
    base: Params, trained: Mapping[str, Params], scale: float | None
) -> Mapping[str, Params]:
    """Return models by name, each on the base; where scale is None, they are whole."""
    if scale is None:
        return trained
    return {name: lay(base, one, scale) for name, one in trained.items()}


def merge(params: Params) -> Params:
    """Return a model without adapters, whose matrices are the sums, float32."""
    return jax.tree.map(
        products.whole,
        params,
        is_leaf=lambda leaf: isinstance(leaf, products.Adapted | products.Quantized),
    )
