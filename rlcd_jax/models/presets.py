"""The numbers of published LLaMA models, by name.

Sources: LLaMA (arXiv 2302.13971, Table 2), LLaMA 2 (arXiv 2307.09288), LLaMA 3
(arXiv 2407.21783, Table 3), TinyLlama (arXiv 2401.02385), SmolLM2 (arXiv 2502.02737),
each completed from the model's published config.json. `tiny` is for tests.
"""

from __future__ import annotations

from rlcd_jax.models import llama


def _llama(layers: int, dim: int, mlp: int, heads: int, **other) -> llama.LlamaConfig:
    numbers = {
        "vocab_size": 32000,
        "num_layers": layers,
        "embed_dim": dim,
        "mlp_dim": mlp,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": dim // heads,
        "norm_eps": 1e-6,
        **other,
    }
    return llama.LlamaConfig(**numbers)


PRESETS: dict[str, llama.LlamaConfig] = {
    "tiny": _llama(2, 64, 128, 4, vocab_size=264, num_kv_heads=2, tie_embeddings=True),
    "smollm2-135m": _llama(
        30,
        576,
        1536,
        9,
        vocab_size=49152,
        num_kv_heads=3,
        norm_eps=1e-5,
        rope_theta=100000.0,
        tie_embeddings=True,
        max_positions=8192,
    ),
    "tinyllama-1.1b": _llama(22, 2048, 5632, 32, num_kv_heads=4, norm_eps=1e-5),
    "llama-7b": _llama(32, 4096, 11008, 32),
    "llama-13b": _llama(40, 5120, 13824, 40),
    "llama-30b": _llama(60, 6656, 17920, 52),
    "llama-65b": _llama(80, 8192, 22016, 64, norm_eps=1e-5),
    "llama2-7b": _llama(32, 4096, 11008, 32, norm_eps=1e-5, max_positions=4096),
    "llama3-8b": _llama(
        32,
        4096,
        14336,
        32,
        vocab_size=128256,
        num_kv_heads=8,
        norm_eps=1e-5,
        rope_theta=500000.0,
        max_positions=8192,
    ),
}


def get_preset(name: str) -> llama.LlamaConfig:
    """Return the numbers of the model `name`.

    Raises:
      ValueError: the name is not a preset; the message lists them all.
    """
    if name not in PRESETS:
        raise ValueError(
            f"unknown model preset {name!a}; accepted: {', '.join(PRESETS)}, "
            "or hf:PATH_OR_ID, or gguf:PATH"
        )
    return PRESETS[name]
