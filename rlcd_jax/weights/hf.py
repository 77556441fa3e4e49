"""Hugging Face folders: config.json and safetensors, read lazily and written whole."""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from huggingface_hub import errors as hub_errors

from rlcd_jax import tokenizer as tokenizers
from rlcd_jax.models import llama
from rlcd_jax.weights import names

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model")
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
FLOATS = ("F32", "BF16", "F16", "F64")

# Fields that change the computation, with the values that mean "as in LLaMA".
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish", None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
    "sliding_window": (None,),
}
NEEDED_FIELDS = (
    "vocab_size",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
)


def find_folder(
    path_or_id: str, cache_dir: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Return the local folder of a model, downloading a hub id when there is none.

    Args:
      path_or_id: a folder, or an id such as "owner/model".
      cache_dir: where downloads are kept; None leaves it to huggingface_hub.
    """
    folder = pathlib.Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                path_or_id, cache_dir=cache_dir, allow_patterns=list(HUB_FILES)
            )
        )
    except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"no model at {path_or_id!r}: it is no folder here, and the hub did not "
            f"give it ({reason}); give the path of a folder with config.json and "
            "safetensors, or an id that this machine can download"
        ) from error


def read_config(folder: str | pathlib.Path) -> llama.LlamaConfig:
    """Return the model numbers of a folder's config.json.

    Raises:
      ValueError: there is none, it is broken, or it is no LLaMA; the field is named.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no config.json; a model folder holds config.json, "
            "tokenizer.json and *.safetensors"
        )
    try:
        raw = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; restore the file") from error
    return config_from_dict(raw, str(path))


def config_from_dict(raw: Mapping[str, Any], origin: str) -> llama.LlamaConfig:
    """Return the model numbers of a Hugging Face config; see ``read_config``."""
    if raw.get("model_type") != "llama":
        raise ValueError(
            f"{origin}: model_type is {raw.get('model_type')!r}; accepted: 'llama' "
            "(LLaMA 1-3, TinyLlama, SmolLM2)"
        )
    for field, accepted in FIXED_FIELDS.items():
        if raw.get(field) not in accepted:
            raise ValueError(
                f"{origin}: {field} is {raw[field]!r}; accepted: "
                f"{' or '.join(repr(a) for a in accepted[:1])}; such a model is not a "
                "LLaMA in this sense"
            )
    missing = [field for field in NEEDED_FIELDS if raw.get(field) is None]
    if missing:
        raise ValueError(f"{origin}: missing {', '.join(missing)}; restore the file")
    heads = raw["num_attention_heads"]
    theta, scaling = _rope(raw, origin)
    return llama.LlamaConfig(
        vocab_size=raw["vocab_size"],
        num_layers=raw["num_hidden_layers"],
        embed_dim=raw["hidden_size"],
        mlp_dim=raw["intermediate_size"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        max_positions=raw.get("max_position_embeddings", 2048),
    )


def _rope(
    raw: Mapping[str, Any], origin: str
) -> tuple[float, llama.RopeScaling | None]:
    """Return theta and scaling from the fields of transformers 4 or 5."""
    both = raw.get("rope_parameters") or {}
    theta = float(both.get("rope_theta", raw.get("rope_theta", 10000.0)))
    scaling = raw.get("rope_scaling") or both
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(
            f"{origin}: rope scaling of type {kind!r}; accepted: 'llama3' or none"
        )
    try:
        return theta, llama.RopeScaling(
            factor=float(scaling["factor"]),
            low_freq_factor=float(scaling["low_freq_factor"]),
            high_freq_factor=float(scaling["high_freq_factor"]),
            original_max_positions=int(scaling["original_max_position_embeddings"]),
        )
    except KeyError as error:
        raise ValueError(f"{origin}: the llama3 rope scaling lacks {error}") from error


def config_to_dict(cfg: llama.LlamaConfig, dtype: str) -> dict[str, Any]:
    """Return config.json for transformers; ``config_from_dict`` undoes it."""
    out: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": cfg.vocab_size,
        "num_hidden_layers": cfg.num_layers,
        "hidden_size": cfg.embed_dim,
        "intermediate_size": cfg.mlp_dim,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "rope_theta": cfg.rope_theta,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        "max_position_embeddings": cfg.max_positions,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
    }
    if cfg.rope_scaling is not None:
        out["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": cfg.rope_scaling.factor,
            "low_freq_factor": cfg.rope_scaling.low_freq_factor,
            "high_freq_factor": cfg.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": cfg.rope_scaling.original_max_positions,
        }
    return out


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the safetensors files of a folder, by its index if it has one."""
    index = folder / INDEX
    if index.is_file():
        listed = json.loads(index.read_text("utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(listed))]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise ValueError(
                f"{index} names files that are not there: {', '.join(absent)}; "
                "download the folder again"
            )
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder} has no weights (*.safetensors); weights in another format, such "
            "as pytorch_model.bin, are to be saved once with transformers' "
            "save_pretrained"
        )
    return files


def load_params(
    folder: str | pathlib.Path, cfg: llama.LlamaConfig, put: names.Put | None = None
) -> llama.Params:
    """Return a folder's weights as float32 parameters in training form.

    Args:
      folder: holds safetensors, in one file or several with an index.
      cfg: the model, as ``read_config`` gives it.
      put: see ``names.assemble``.
    """
    folder = pathlib.Path(folder)
    files, shapes = {}, {}
    for path in weight_files(folder):
        try:
            opened = safetensors.safe_open(str(path), framework="numpy")
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is not a whole safetensors file ({error}); download it again"
            ) from error
        for name in opened.keys():
            part = opened.get_slice(name)
            if part.get_dtype() not in FLOATS:
                raise ValueError(
                    f"{path}: {name} is {part.get_dtype()}; accepted: "
                    f"{', '.join(FLOATS)}"
                )
            files[name], shapes[name] = opened, tuple(part.get_shape())
    return names.assemble(
        cfg,
        "hf",
        shapes,
        lambda name, index: files[name].get_slice(name)[index],
        origin=str(folder),
        put=put,
    )


def export(
    folder: str | pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a folder that transformers and ``load_params`` read, all of it or nothing.

    Args:
      folder: a place that does not exist yet, or is empty.
      params: training form.
      cfg: the model.
      tokenizer: written beside the weights, if given.
      dtype: of the file: "float32" (exact), "bfloat16" or "float16".
      max_shard_bytes: largest file; a single larger tensor has a file of its own.
    """
    folder = pathlib.Path(folder)
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; accepted: {', '.join(DTYPES)}")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    )
    try:
        _write_weights(partial, params, cfg, DTYPES[dtype], max_shard_bytes)
        config = config_to_dict(cfg, dtype)
        if tokenizer is not None:
            tokenizer.save(partial)
            ends = list(tokenizer.eos_ids)
            ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
            config |= ids | {"eos_token_id": ends}
            _write_json(
                partial / "generation_config.json", ids | {"eos_token_id": ends}
            )
        _write_json(partial / "config.json", config)
        _open_modes(partial)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(
    folder: pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    dtype: np.dtype,
    max_shard_bytes: int,
) -> None:
    shards: list[list[str]] = [[]]
    listed = names.entries(cfg, "hf")
    for name, entry in listed.items():
        held = names.num_bytes((listed[n] for n in shards[-1]), dtype.itemsize)
        if held and held + names.num_bytes([entry], dtype.itemsize) > max_shard_bytes:
            shards.append([])
        shards[-1].append(name)
    tensors = names.disassemble(params, cfg, "hf")
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        file = WEIGHTS if len(shards) == 1 else file
        held = {name: next(tensors)[1].astype(dtype) for name in shard}
        safetensors.numpy.save_file(held, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        size = names.num_bytes(listed.values(), dtype.itemsize)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        _write_json(folder / INDEX, index)


def _open_modes(folder: pathlib.Path) -> None:
    """Let others read what temporary folders and safetensors keep to their owner."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
