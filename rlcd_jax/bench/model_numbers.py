"""The numbers of the model that a benchmark is of."""

from __future__ import annotations

import dataclasses
import os

from rlcd_jax.job import kernels
from rlcd_jax.models import llama, presets
from rlcd_jax.weights import resolve


def find(
    model: str, *, dtype: str, attention: str, cache_dir: str | os.PathLike[str]
) -> llama.LlamaConfig:
    """Return the model's numbers; a preset's need no files.

    Args:
      model: a preset, hf:… or gguf:….
      dtype: of the products.
      attention: the kernel; "auto": the fastest of this machine. In float32 it is
        "xla", which alone has it.
      cache_dir: of fetched models.
    """
    if ":" in model:
        cfg = resolve.resolve_model(model, cache_dir).cfg
    else:
        cfg = presets.get_preset(model)
    if dtype == "float32":
        attention = "xla"
    return kernels.configured(
        dataclasses.replace(cfg, dtype=dtype),
        attention=attention,
        results=kernels.AUTO,
        backend=kernels.this_backend(),
    )
