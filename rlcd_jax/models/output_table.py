"""The output table in a loop over chunks: gathered before it, its gradient after it.

Where fsdp splits the table [V, D], logits need all of D. A compiler gathers it within
the loop, and sums and scatters its gradient there, once for each chunk. Here every
device has a copy in the compute dtype before the loop begins, and the gradients of the
copies, float32, are summed once when it is over.

Letters: B batch, T positions, D model, V vocabulary; R replicas (slices and data) and S
shards (fsdp), among which B is split.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import llama, products

Params = Any


class Copies(NamedTuple):
    """The table of each device, both [R, S, V, D]; one copy without an ambient mesh.

    `cast` is in the compute dtype and has no gradient. The gradient goes to `whole`,
    float32, whose values nobody reads: a compiler leaves them out.
    """

    cast: jax.Array
    whole: jax.Array


def copies(params: Params, cfg: llama.LlamaConfig, rows: int) -> Copies:
    """Return a device's copies of the output table.

    Args:
      params: LLaMA weights in either form.
      cfg: model numbers.
      rows: B of what they are for; one copy is shared where it does not divide among
        the devices.
    """
    table = llama.output_table(params, cfg)
    shape = _ways(rows)

    def spread(table: jax.Array) -> jax.Array:
        # One mesh axis after the other, so that the gradient is first scattered over
        # fsdp, and only its shards are summed over replicas.
        table = jnp.broadcast_to(table, (shape[0], *table.shape))
        table = sharding.constrain(table, (_axis(shape[0], "rows"), "vocab", "embed"))
        table = jnp.broadcast_to(table[:, None], (*shape, *table.shape[1:]))
        axes = (_axis(shape[0], "rows"), _axis(shape[1], "shards"), "vocab", None)
        return sharding.constrain(table, axes)

    cast = sharding.constrain(table.astype(cfg.dtype), ("vocab", "activation"))
    return Copies(jax.lax.stop_gradient(spread(cast)), spread(table))


def logits(table: Copies, cfg: llama.LlamaConfig, hidden: jax.Array) -> jax.Array:
    """Return next-token logits [B, T, V] float32 from hidden states [B, T, D]."""
    shape = table.cast.shape[:2]
    parts = hidden.reshape(*shape, -1, *hidden.shape[1:])
    scores = products.contract_cast("rsbti,rsvi->rsbtv", parts, *table, cfg.dtype)
    return scores.reshape(*hidden.shape[:2], -1)


def _ways(rows: int) -> tuple[int, int]:
    """Return R and S."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or rows % sharding.batch_ways(mesh):
        return 1, 1
    return mesh.shape["slice"] * mesh.shape["data"], mesh.shape["fsdp"]


def _axis(ways: int, name: str) -> str | None:
    return name if ways > 1 else None
