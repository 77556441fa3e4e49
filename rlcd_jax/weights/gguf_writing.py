"""A language model as a GGUF file, as llama.cpp's own converter writes one.

Rows of Q and K lie in interleaved rotary pairs; matrices have the dtype that is asked
for, vectors (the norms) are float32; the factors of a LLaMA-3 rope scaling are a
tensor. One tensor at a time is in memory beside the parameters.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import gguf as gguf_package
import numpy as np

from rlcd_jax.models import llama
from rlcd_jax.weights import gguf, hf, names

TYPES = {
    "float32": gguf_package.GGMLQuantizationType.F32,
    "float16": gguf_package.GGMLQuantizationType.F16,
    "bfloat16": gguf_package.GGMLQuantizationType.BF16,
}
# Of the whole file, as programs show it.
FILE_TYPES = {
    "float32": gguf_package.LlamaFileType.ALL_F32,
    "float16": gguf_package.LlamaFileType.MOSTLY_F16,
    "bfloat16": gguf_package.LlamaFileType.MOSTLY_BF16,
}


def dtype_of(shape: tuple[int, ...], dtype: str) -> str:
    """Return the dtype of a tensor in a file of `dtype`: vectors stay float32."""
    return dtype if len(shape) > 1 else "float32"


def write(
    path: pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    *,
    dtype: str,
    metadata: Mapping[str, Any],
) -> None:
    """Write a GGUF file; the numbers are written as they are.

    Args:
      path: of the new file.
      params: training form.
      cfg: of the model.
      dtype: of matrices: "float32" (exact), "float16" or "bfloat16".
      metadata: the tokenizer's fields and those about the model's origin.
    """
    shapes = {name: entry.shape for name, entry in names.entries(cfg, "gguf").items()}
    if cfg.rope_scaling is not None:
        shapes |= {gguf.ROPE_FACTORS: (cfg.head_dim // 2,)}
    writer = gguf_package.GGUFWriter(path, "llama")
    for name, value in (_numbers(cfg, dtype) | dict(metadata)).items():
        _add(writer, name, value)
    for name, shape in shapes.items():
        own = hf.DTYPES[dtype_of(shape, dtype)]
        size = int(np.prod(shape)) * own.itemsize
        kind = TYPES[dtype_of(shape, dtype)]
        writer.add_tensor_info(name, shape, own, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for (name, shape), (other, values) in zip(
        shapes.items(), tensors(params, cfg), strict=True
    ):
        assert name == other and values.shape == shape, (name, other)
        own = hf.DTYPES[dtype_of(shape, dtype)]
        writer.write_tensor_data(np.ascontiguousarray(hf.rounded_to(values, own, name)))
    writer.close()


def tensors(
    params: llama.Params, cfg: llama.LlamaConfig
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of a GGUF file, one at a time, float32."""
    for name, values in names.disassemble(params, cfg, "gguf"):
        heads = [of for end, of in gguf.PERMUTED.items() if name.endswith(end)]
        yield name, gguf.permute(values, getattr(cfg, heads[0])) if heads else values
    if cfg.rope_scaling is not None:
        yield gguf.ROPE_FACTORS, gguf.rope_factors(cfg)


def _numbers(cfg: llama.LlamaConfig, dtype: str) -> dict[str, Any]:
    """Return the model's numbers by the names of GGUF's fields."""
    scaling = cfg.rope_scaling
    own = () if scaling is None else map(float, dataclasses.astuple(scaling))
    return ({gguf.ROPE_NUMBERS: list(own)} if scaling else {}) | {
        "general.file_type": int(FILE_TYPES[dtype]),
        "llama.vocab_size": cfg.vocab_size,
        "llama.block_count": cfg.num_layers,
        "llama.context_length": cfg.max_positions,
        "llama.embedding_length": cfg.embed_dim,
        "llama.feed_forward_length": cfg.mlp_dim,
        "llama.attention.head_count": cfg.num_heads,
        "llama.attention.head_count_kv": cfg.num_kv_heads,
        "llama.attention.key_length": cfg.head_dim,
        "llama.attention.value_length": cfg.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(cfg.norm_eps),
        "llama.rope.dimension_count": cfg.head_dim,
        "llama.rope.freq_base": float(cfg.rope_theta),
    }


def _add(writer: gguf_package.GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
