"""The peer of the benchmarks: Hugging Face transformers' `generate` in torch.

The library imports no other framework: who asks for this peer hands in what loads a
package by its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcd_jax.bench import settings
from rlcd_jax.models import llama

Load = Callable[[str], Any]  # from the name of a package to the package


def make_peers(cfg: llama.LlamaConfig, load: Load) -> dict[str, settings.Peer]:
    """Return the peers worth measuring here: bfloat16, and float32 too on CPUs.

    Args:
      cfg: model numbers.
      load: returns an installed package by its name, as `importlib.import_module`.

    Raises:
      ValueError: a package is not installed; it is named.
    """
    torch, transformers = load_packages(load, "hf")
    dtypes = ["bfloat16"]
    if jax.default_backend() == "cpu":
        dtypes = ["float32", "bfloat16"]
    return {
        f"hf_{dtype}": HfPeer(cfg, dtype, torch, transformers).seconds
        for dtype in dtypes
    }


def load_packages(load: Load, peer: str) -> tuple[Any, Any]:
    """Return torch and transformers, which a peer needs; see `make_peers`.

    Raises:
      ValueError: a package is not installed; it is named.
    """
    packages, missing = [], []
    for name in ("torch", "transformers"):
        try:
            packages.append(load(name))
        except ModuleNotFoundError:
            missing.append(name)
    if missing:
        raise ValueError(
            f"--peer {peer} needs {' and '.join(missing)}: pip install -e '.[bench]'"
        )
    return packages[0], packages[1]


def device_of(torch: Any) -> str:
    """Return what torch computes on here: a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def config_numbers(cfg: llama.LlamaConfig) -> dict[str, Any]:
    """Return a model's numbers as transformers' `LlamaConfig` names them."""
    return {
        "hidden_size": cfg.embed_dim,
        "intermediate_size": cfg.mlp_dim,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "vocab_size": cfg.vocab_size,
        "max_position_embeddings": cfg.max_positions,
        "tie_word_embeddings": cfg.tie_embeddings,
    }


class HfPeer:
    """A model of the same shape with random weights.

    Args:
      cfg: model numbers.
      dtype: "float32" or "bfloat16", of weights and products.
      torch: the package.
      transformers: the package.
    """

    def __init__(
        self, cfg: llama.LlamaConfig, dtype: str, torch: Any, transformers: Any
    ) -> None:
        self._torch = torch
        self._device = device_of(torch)
        config = transformers.LlamaConfig(**config_numbers(cfg))
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, dtype))
        with torch.device(self._device):
            self._model = transformers.LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)

    def seconds(self, batch: int, prompt: int, new: int, top_k: int) -> float:
        """Return how long `generate` takes for one static batch."""
        torch = self._torch
        rng = np.random.RandomState(0)
        vocab = self._model.config.vocab_size
        ids = torch.tensor(rng.randint(5, vocab, (batch, prompt)), device=self._device)
        start = time.perf_counter()
        with torch.no_grad():
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=top_k,
                min_new_tokens=new,
                max_new_tokens=new,
                pad_token_id=2,
            )
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start
