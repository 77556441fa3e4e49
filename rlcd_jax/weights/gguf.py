"""GGUF files: config and weights, quantised or not.

A GGUF file of a LLaMA holds the rows of Q and K in the order of interleaved rotary
pairs; ours are in halves, as in Hugging Face files, so the rows are put back. Split
files are refused: llama.cpp joins them.
"""

from __future__ import annotations

import dataclasses
import mmap
import pathlib
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from rlcd_jax import fetched
from rlcd_jax.models import attention, llama
from rlcd_jax.weights import fields, finite, gguf_header, names

# LLaMA-3 scalings in use: a GGUF file keeps only the factors that follow from one.
KNOWN_SCALINGS = (
    llama.RopeScaling(8.0, 1.0, 4.0, 8192),  # LLaMA 3.1
    llama.RopeScaling(32.0, 1.0, 4.0, 8192),  # LLaMA 3.2
)
ROPE_FACTORS = "rope_freqs.weight"
# Of our own files: the numbers from which the factors follow.
ROPE_NUMBERS = "rlcd_jax.rope_scaling"
# Kinds of tensors that are read: plain floats, and what gguf's `dequantize` expands.
READABLE = (
    *("F32", "F16", "BF16", "F64"),
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    *("IQ4_NL", "IQ4_XS"),
)
# Fields that change the computation, with the values that mean "as in LLaMA".
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "general.type": ("model", None),
    "llama.rope.scaling.type": ("none", None),
    "llama.rope.scale_linear": (1.0, None),
    "llama.expert_count": (0, None),
    "llama.attention.causal": (True, None),
    "llama.attention.sliding_window": (0, None),
}
PERMUTED = {"attn_q.weight": "num_heads", "attn_k.weight": "num_kv_heads"}


def open_file(path: str | pathlib.Path) -> gguf.GGUFReader:
    """Return an open GGUF file; its tensors stay on disk until they are read.

    Raises:
      ValueError: it is no whole, little-endian GGUF file; see `gguf_header`.
    """
    path = pathlib.Path(path)
    with fetched.reading(path):
        if not path.is_file():
            raise ValueError(f"no file {path}; give the path of a .gguf file")
    gguf_header.check(path)
    try:
        return gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole GGUF file ({error}); download it again"
        ) from error


def read_config(
    reader: gguf.GGUFReader, metadata: Mapping[str, Any], origin: str
) -> llama.LlamaConfig:
    """Return the model numbers of a GGUF file.

    Args:
      reader: the open file.
      metadata: its fields, from `gguf_vocabulary.read_fields`.
      origin: its name, for messages.

    Raises:
      ValueError: it is no LLaMA or a part of one; the field or tensor is named.
    """
    _check_kind(metadata, origin)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    vocab, dim = _embedding_shape(tensors, origin)

    def whole(name: str, most: int, **other: int) -> int:
        return fields.integer(metadata, f"llama.{name}", origin, most, **other)

    heads = whole("attention.head_count", fields.MOST_HEADS)
    kv_heads = whole("attention.head_count_kv", fields.MOST_HEADS, absent=heads)
    width = whole("attention.key_length", fields.MOST_HEAD_DIM, absent=dim // heads)
    if dim < heads or heads % kv_heads or width % 2:
        raise ValueError(
            f"{origin}: {heads} heads, {kv_heads} key/value heads, key_length={width}, "
            f"embedding of {dim}; accepted: heads that are a multiple of the key/value "
            "heads, and an even key_length; convert the model again"
        )
    whole("embedding_length", fields.MOST_WIDTH)  # without it no file is whole
    for name, same in (
        ("llama.vocab_size", vocab),
        ("llama.embedding_length", dim),
        ("llama.attention.value_length", width),
        ("llama.rope.dimension_count", width),
    ):
        if metadata.get(name) not in (same, None):
            raise ValueError(
                f"{origin}: {name} is {fetched.show(metadata[name])}; accepted: {same}"
            )
    theta = fields.number(
        metadata, "llama.rope.freq_base", origin, fields.MOST_THETA, absent=10000.0
    )
    eps = fields.number(metadata, "llama.attention.layer_norm_rms_epsilon", origin, 1.0)
    cfg = llama.LlamaConfig(
        vocab_size=vocab,
        num_layers=whole("block_count", fields.MOST_LAYERS),
        embed_dim=dim,
        mlp_dim=whole("feed_forward_length", fields.MOST_MLP),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        rope_theta=round(theta, 3),
        rope_scaling=None,
        norm_eps=_short(eps),
        tie_embeddings="output.weight" not in tensors,
        max_positions=whole("context_length", fields.MOST_POSITIONS),
    )
    if ROPE_FACTORS not in tensors:
        return cfg
    own = metadata.get(ROPE_NUMBERS)
    return _with_scaling(cfg, tensors[ROPE_FACTORS], own, origin)


def _check_kind(metadata: Mapping[str, Any], origin: str) -> None:
    """Refuse a file that is not one whole LLaMA."""
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise ValueError(
            f"{origin}: architecture is {fetched.show(kind)}; accepted: 'llama'"
        )
    if metadata.get("split.count") not in (0, 1, None):
        raise ValueError(
            f"{origin} is one of {fetched.show(metadata['split.count'])} parts of a "
            "model; join them first: llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    for field, accepted in FIXED_FIELDS.items():
        if metadata.get(field) not in accepted:
            raise ValueError(
                f"{origin}: {field} is {fetched.show(metadata[field])}; accepted: "
                f"{accepted[0]!r}"
            )


def _embedding_shape(tensors: Mapping[str, Any], origin: str) -> tuple[int, int]:
    name = "token_embd.weight"
    if name not in tensors:
        raise ValueError(f"{origin} has no tensor {name}; is it a whole model?")
    shape = _shape(tensors[name])
    bounds = (fields.MOST_IDS, fields.MOST_WIDTH)
    if len(shape) != 2 or any(n > most for n, most in zip(shape, bounds, strict=True)):
        raise ValueError(
            f"{origin}: {name} has shape {shape}; accepted: two axes, up to {bounds}"
        )
    return shape[0], shape[1]


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(n) for n in reversed(tensor.shape))


def _short(value: float) -> float:
    """Return the shortest decimal that float32 stores as `value` (1e-5, not 9.9…)."""
    return float(str(np.float32(value)))


def _with_scaling(
    cfg: llama.LlamaConfig, tensor: gguf.ReaderTensor, own: Any, origin: str
) -> llama.LlamaConfig:
    """Return the config with the scaling whose factors these are: known, or named."""
    is_plain = tensor.tensor_type == gguf.GGMLQuantizationType.F32
    if not is_plain or _shape(tensor) != (cfg.head_dim // 2,):
        raise ValueError(
            f"{origin}: {ROPE_FACTORS} is {tensor.tensor_type.name} of shape "
            f"{_shape(tensor)}; accepted: F32 of shape ({cfg.head_dim // 2},)"
        )
    factors = np.asarray(tensor.data, np.float32)
    finite.check(factors, f"{origin}: {ROPE_FACTORS}", "convert the model again")
    if np.allclose(factors, 1.0):
        return cfg
    for scaling in (*_named_scaling(own), *KNOWN_SCALINGS):
        scaled = dataclasses.replace(cfg, rope_scaling=scaling)
        if np.allclose(rope_factors(scaled), factors, rtol=1e-4):
            return scaled
    raise ValueError(
        f"{origin}: the factors in {ROPE_FACTORS} are of no known rope scaling "
        f"(largest {factors.max():g}); load the model from its Hugging Face folder"
    )


def _named_scaling(numbers: Any) -> list[llama.RopeScaling]:
    """Return the scaling that a file of ours names, if it is one."""
    is_list = isinstance(numbers, list) and len(numbers) == 4
    if not is_list or not all(isinstance(one, float) for one in numbers):
        return []
    *factors, length = map(_short, numbers)
    usable = min(*factors, length) > 0 and factors[2] > factors[1]
    return [llama.RopeScaling(*factors, int(length))] if usable else []


def rope_factors(cfg: llama.LlamaConfig) -> np.ndarray:
    """Return by how much a rotary scaling slows each frequency, [H / 2] float32."""
    scaling = cfg.rope_scaling
    numbers = None if scaling is None else dataclasses.astuple(scaling)
    plain = attention.rope_frequencies(cfg.head_dim, cfg.rope_theta, None)
    slowed = attention.rope_frequencies(cfg.head_dim, cfg.rope_theta, numbers)
    return np.asarray(plain / slowed, np.float32)


def unpermute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Return rows [heads * H, in] in halves from rows in interleaved rotary pairs."""
    rows, width = weight.shape
    paired = weight.reshape(num_heads, rows // num_heads // 2, 2, width)
    return paired.swapaxes(1, 2).reshape(rows, width)


def permute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Return rows in interleaved rotary pairs from rows in halves; `unpermute` undone.

    Args:
      weight: [heads * H, in].
      num_heads: query or key/value heads.
    """
    rows, width = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, width)
    return halves.swapaxes(1, 2).reshape(rows, width)


def check_weights(reader: gguf.GGUFReader, cfg: llama.LlamaConfig, origin: str) -> None:
    """Refuse tensors that are not the config's, or of a kind that cannot be read."""
    names.check(cfg, "gguf", {one.name: _shape(one) for one in reader.tensors}, origin)
    for tensor in reader.tensors:
        if tensor.tensor_type.name not in READABLE:
            raise ValueError(
                f"{origin}: {tensor.name} is stored as {tensor.tensor_type.name}; "
                f"accepted: {', '.join(READABLE)}; quantise the model in another way"
            )


def load_params(
    reader: gguf.GGUFReader,
    cfg: llama.LlamaConfig,
    origin: str,
    put: names.Put | None = None,
) -> llama.Params:
    """Return a GGUF file's weights as float32 parameters in training form.

    Args:
      reader: the open file.
      cfg: the model, as `read_config` gives it.
      origin: the file's name, for messages.
      put: see `names.assemble`.

    Raises:
      ValueError: a tensor is missing, unknown, of another shape, of a kind that is not
        in `READABLE`, or holds NaN or infinity.
    """
    check_weights(reader, cfg, origin)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    shapes = {name: _shape(tensor) for name, tensor in tensors.items()}
    orders = {
        ending: _row_order(cfg, getattr(cfg, heads))
        for ending, heads in PERMUTED.items()
    }

    def read(name: str, index: names.Index) -> np.ndarray:
        order = next((own for end, own in orders.items() if name.endswith(end)), None)
        rows = index[0] if order is None else order[index[0]]
        values = _expand(tensors[name], rows, f"{origin}: {name}")
        return values[(slice(None), *index[1:])]

    params = names.assemble(cfg, "gguf", shapes, read, origin=origin, put=put)
    _let_go(reader)
    return params


def _let_go(reader: gguf.GGUFReader) -> None:
    """Let the pages of a file that was read take no room; they can be read again."""
    mapped = reader.data
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if hasattr(mmap, "MADV_DONTNEED") and isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _row_order(cfg: llama.LlamaConfig, num_heads: int) -> np.ndarray:
    """Return which row of the file each of our rows of Q or K is."""
    rows = np.arange(num_heads * cfg.head_dim)
    return unpermute(rows[:, None], num_heads)[:, 0]


def _expand(
    tensor: gguf.ReaderTensor, rows: slice | np.ndarray, what: str
) -> np.ndarray:
    """Return some rows of a tensor, float32; no others are read or expanded.

    A block of quantised values lies in one row.
    """
    data = tensor.data[rows]
    if tensor.tensor_type == gguf.GGMLQuantizationType.F64:
        return data.astype(np.float32)  # the package expands no F64
    try:
        return gguf.quants.dequantize(data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ValueError(
            f"{what} is stored as {tensor.tensor_type.name}, which this version of the "
            "gguf package cannot expand; install a newer one"
        ) from error
