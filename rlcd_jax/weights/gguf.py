"""GGUF files: config and weights, quantised or not.

A GGUF file of a LLaMA holds the rows of Q and K in the order of interleaved rotary
pairs; ours are in halves, as in Hugging Face files, so the rows are put back.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from rlcd_jax.models import attention, llama
from rlcd_jax.weights import names

# LLaMA-3 scalings in use: a GGUF file keeps only the factors that follow from one.
KNOWN_SCALINGS = (
    llama.RopeScaling(8.0, 1.0, 4.0, 8192),  # LLaMA 3.1
    llama.RopeScaling(32.0, 1.0, 4.0, 8192),  # LLaMA 3.2
)
ROPE_FACTORS = "rope_freqs.weight"
PERMUTED = {"attn_q.weight": "num_heads", "attn_k.weight": "num_kv_heads"}


def open_file(path: str | pathlib.Path) -> gguf.GGUFReader:
    """Return an open GGUF file; its tensors stay on disk until they are read."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}; give the path of a .gguf file")
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{path} is not a whole GGUF file ({error}); download it again"
        ) from error


def read_config(
    reader: gguf.GGUFReader, fields: Mapping[str, Any], origin: str
) -> llama.LlamaConfig:
    """Return the model numbers of a GGUF file.

    Args:
      reader: the open file.
      fields: its metadata, from ``gguf_vocabulary.read_fields``.
      origin: its name, for messages.
    """
    kind = fields.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"{origin}: architecture is {kind!r}; accepted: 'llama'")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    vocab, dim = _shape(tensors, "token_embd.weight", origin)
    heads = _need(fields, "llama.attention.head_count", origin)
    head_dim = fields.get("llama.attention.key_length", dim // heads)
    accepted = {
        "llama.rope.dimension_count": (head_dim, None),
        "llama.rope.scaling.type": ("none", None),
        "llama.expert_count": (0, None),
    }
    for field, values in accepted.items():
        if fields.get(field) not in values:
            raise ValueError(
                f"{origin}: {field} is {fields[field]!r}; accepted: {values[0]!r}"
            )
    cfg = llama.LlamaConfig(
        vocab_size=vocab,
        num_layers=_need(fields, "llama.block_count", origin),
        embed_dim=dim,
        mlp_dim=_need(fields, "llama.feed_forward_length", origin),
        num_heads=heads,
        num_kv_heads=fields.get("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=round(float(fields.get("llama.rope.freq_base", 10000.0)), 3),
        rope_scaling=None,
        norm_eps=_short(
            _need(fields, "llama.attention.layer_norm_rms_epsilon", origin)
        ),
        tie_embeddings="output.weight" not in tensors,
        max_positions=_need(fields, "llama.context_length", origin),
    )
    if ROPE_FACTORS not in tensors:
        return cfg
    return _with_scaling(
        cfg, np.asarray(tensors[ROPE_FACTORS].data, np.float32), origin
    )


def _need(fields: Mapping[str, Any], name: str, origin: str) -> Any:
    if name not in fields:
        raise ValueError(f"{origin} lacks the field {name}; convert the model again")
    return fields[name]


def _shape(tensors: Mapping[str, Any], name: str, origin: str) -> tuple[int, ...]:
    if name not in tensors:
        raise ValueError(f"{origin} has no tensor {name}; is it a whole model?")
    return tuple(int(n) for n in reversed(tensors[name].shape))


def _short(value: float) -> float:
    """Return the shortest decimal that float32 stores as ``value`` (1e-5, not 9.9…)."""
    return float(str(np.float32(value)))


def _with_scaling(
    cfg: llama.LlamaConfig, factors: np.ndarray, origin: str
) -> llama.LlamaConfig:
    """Return the config with the known scaling whose factors these are."""
    if np.allclose(factors, 1.0):
        return cfg
    plain = attention.rope_frequencies(cfg.head_dim, cfg.rope_theta, None)
    for scaling in KNOWN_SCALINGS:
        numbers = dataclasses.astuple(scaling)
        slowed = attention.rope_frequencies(cfg.head_dim, cfg.rope_theta, numbers)
        if np.allclose(plain / slowed, factors, rtol=1e-4):
            return dataclasses.replace(cfg, rope_scaling=scaling)
    raise ValueError(
        f"{origin}: the factors in {ROPE_FACTORS} are of no known rope scaling "
        f"(largest {factors.max():g}); load the model from its Hugging Face folder"
    )


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Return rows [heads * H, in] in halves from rows in interleaved rotary pairs."""
    rows, width = weight.shape
    paired = weight.reshape(num_heads, rows // num_heads // 2, 2, width)
    return paired.swapaxes(1, 2).reshape(rows, width)


def load_params(
    reader: gguf.GGUFReader,
    cfg: llama.LlamaConfig,
    origin: str,
    put: names.Put | None = None,
) -> llama.Params:
    """Return a GGUF file's weights as float32 parameters in training form.

    Args:
      reader: the open file.
      cfg: the model, as ``read_config`` gives it.
      origin: the file's name, for messages.
      put: see ``names.assemble``.
    """
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shapes = {name: _shape(tensors, name, origin) for name in tensors}

    def read(name: str, index: names.Index) -> np.ndarray:
        tensor = tensors[name]
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(
                f"{origin}: {name} is stored as {tensor.tensor_type.name}, which the "
                "gguf package cannot expand; quantise the model in another way"
            ) from error
        for ending, heads in PERMUTED.items():
            if name.endswith(ending):
                values = unpermute(values, getattr(cfg, heads))
        return values[index]

    return names.assemble(cfg, "gguf", shapes, read, origin=origin, put=put)
