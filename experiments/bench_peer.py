"""The peer of the benchmarks: Hugging Face transformers' `generate` in torch.

Here and not in `rlcd_jax.bench`, since the library imports no other framework.
"""

from __future__ import annotations

import importlib.util
import time

import jax
import numpy as np

from rlcd_jax.bench import settings
from rlcd_jax.models import llama


def make_peers(cfg: llama.LlamaConfig) -> dict[str, settings.Peer]:
    """Return the peers worth measuring here: bfloat16, and float32 too on CPUs."""
    dtypes = ["bfloat16"]
    if jax.default_backend() == "cpu":
        dtypes = ["float32", "bfloat16"]
    return {f"hf_{dtype}": HfPeer(cfg, dtype).seconds for dtype in dtypes}


class HfPeer:
    """A model of the same shape with random weights.

    Args:
      cfg: model numbers.
      dtype: "float32" or "bfloat16", of weights and products.
    """

    def __init__(self, cfg: llama.LlamaConfig, dtype: str) -> None:
        missing = [n for n in ("torch", "transformers") if not _installed(n)]
        if missing:
            raise ValueError(
                f"--peer hf needs {' and '.join(missing)}: pip install -e '.[bench]'"
            )
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        config = transformers.LlamaConfig(
            hidden_size=cfg.embed_dim,
            intermediate_size=cfg.mlp_dim,
            num_hidden_layers=cfg.num_layers,
            num_attention_heads=cfg.num_heads,
            num_key_value_heads=cfg.num_kv_heads,
            vocab_size=cfg.vocab_size,
            max_position_embeddings=cfg.max_positions,
            tie_word_embeddings=cfg.tie_embeddings,
        )
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


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
