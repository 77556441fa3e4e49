"""A LLaMA in NumPy, float64, one text at a time: what any weights say of any ids.

It is written from the model's definition and shares no code with rlcd_jax. The golden
files hold torch's numbers of the families' first weights; this gives those of weights
that a run has trained, and a test compares it with torch's first.

Weights are by Hugging Face's names, [out, in]; the config is config.json's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


def states(weights: Weights, config: Mapping[str, Any], ids: Sequence[int]):
    """Return the states [T, D] of a text after the last norm."""
    eps = config["rms_norm_eps"]
    x = _named(weights, "model.embed_tokens")[list(ids)]
    for layer in range(config["num_hidden_layers"]):
        own = f"model.layers.{layer}"
        y = _norm(x, _named(weights, f"{own}.input_layernorm"), eps)
        x = x + _attend(weights, config, f"{own}.self_attn", y)
        y = _norm(x, _named(weights, f"{own}.post_attention_layernorm"), eps)
        gate = y @ _named(weights, f"{own}.mlp.gate_proj").T
        up = y @ _named(weights, f"{own}.mlp.up_proj").T
        down = _named(weights, f"{own}.mlp.down_proj")
        x = x + (gate / (1 + np.exp(-gate)) * up) @ down.T
    return _norm(x, _named(weights, "model.norm"), eps)


def logprobs(weights: Weights, config: Mapping[str, Any], ids: Sequence[int]):
    """Return log-probabilities [T, V], nats, of what follows each token of a text."""
    tied = "lm_head.weight" not in weights
    output = _named(weights, "model.embed_tokens" if tied else "lm_head")
    logits = states(weights, config, ids) @ output.T
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def of_reply(table: np.ndarray, ids: Sequence[int], num: int) -> np.ndarray:
    """Return the log-probabilities of the last `num` ids, by `logprobs` of all."""
    places = np.arange(len(ids) - num, len(ids))
    return table[places - 1, np.asarray(ids)[places]]


def _named(weights: Weights, name: str) -> np.ndarray:
    return np.asarray(weights[f"{name}.weight"], np.float64)


def _norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale


def _attend(weights: Weights, config: Mapping[str, Any], own: str, x: np.ndarray):
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    width = config["hidden_size"] // heads
    cos, sin = _rotation(config, len(x), width)
    out = []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        q = _rotate(x @ _rows(weights, f"{own}.q_proj", head, width).T, cos, sin)
        k = _rotate(x @ _rows(weights, f"{own}.k_proj", shared, width).T, cos, sin)
        v = x @ _rows(weights, f"{own}.v_proj", shared, width).T
        scores = q @ k.T / np.sqrt(width)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        out.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(out, axis=1) @ _named(weights, f"{own}.o_proj").T


def _rows(weights: Weights, name: str, head: int, width: int) -> np.ndarray:
    return _named(weights, name)[head * width : (head + 1) * width]


def _rotation(config: Mapping[str, Any], length: int, width: int):
    theta = config.get("rope_theta", 10000.0)
    frequencies = theta ** (-np.arange(0, width, 2) / width)
    if scaling := config.get("rope_scaling"):
        frequencies = _slowed(frequencies, scaling)
    angles = np.arange(length)[:, None] * np.tile(frequencies, 2)
    return np.cos(angles), np.sin(angles)


def _slowed(frequencies: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Return LLaMA 3's frequencies: long waves go slower, those between by a blend."""
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / scaling["factor"])


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    first, second = np.split(x, 2, axis=1)
    return x * cos + np.concatenate([-second, first], axis=1) * sin
