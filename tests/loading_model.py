"""A model large enough for its memory to be seen: 59 million parameters."""

import jax
import numpy as np

from rlcd_jax.models import llama, table

CFG = llama.LlamaConfig(
    vocab_size=8192,
    num_layers=12,
    embed_dim=512,
    mlp_dim=2048,
    num_heads=8,
    num_kv_heads=8,
    head_dim=64,
)


def make() -> table.Params:
    """Return its parameters, each a row of small numbers again and again."""

    def one(spec: table.ParamSpec) -> np.ndarray:
        row = np.linspace(-1, 1, spec.shape[-1], dtype=np.float32)
        return np.broadcast_to(row, spec.shape).copy()

    specs = llama.param_specs(CFG)
    return jax.tree.map(one, specs, is_leaf=lambda x: hasattr(x, "axes"))
