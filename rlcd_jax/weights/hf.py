"""Hugging Face folders: config.json and safetensors, read lazily and written whole.

LLaMA models are accepted, and nothing else: a field that changes the computation, a
number that no model has, a rotary scaling other than LLaMA-3's, and weights that are
quantised or not finite end in a `ValueError` that names the file and the field.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import huggingface_hub
import ml_dtypes
import numpy as np
import safetensors.numpy
from huggingface_hub import errors as hub_errors

from rlcd_jax import fetched
from rlcd_jax.models import llama
from rlcd_jax.text import tokenizer as tokenizers
from rlcd_jax.weights import config_json, files, names, scalar

WEIGHTS, INDEX = files.WEIGHTS, files.INDEX
HUB_FILES = (
    *("*.json", "model*.safetensors", "*.jinja", "tokenizer.model"),
    "README.md",  # whose head says the licence
)
HUB_OTHERS = ("*/*",)  # sub-folders hold the same weights in other forms
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


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
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; hf: takes the folder that it lies in, "
            "gguf: takes a .gguf file"
        )
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                path_or_id,
                cache_dir=cache_dir,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=list(HUB_OTHERS),
            )
        )
    except (
        hub_errors.HfHubHTTPError,
        hub_errors.HFValidationError,
        httpx.HTTPError,
        OSError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"no model at {path_or_id!r}: it is no folder here, and the hub did not "
            f"give it ({reason}); give the path of a folder with config.json and "
            "safetensors, or an id that this machine can download"
        ) from error


def read_config(
    folder: str | pathlib.Path, role: str = scalar.POLICY
) -> llama.LlamaConfig:
    """Return the model numbers of a folder's config.json.

    Args:
      folder: of the model.
      role: "policy" for a language model, "preference" or "value" for a scalar one.

    Raises:
      ValueError: there is none, it is broken, or it is no LLaMA; the field is named.
    """
    raw = config_json.read(folder)
    return config_json.from_dict(
        raw, str(pathlib.Path(folder) / config_json.NAME), role
    )


def check_weights(folder: str | pathlib.Path, cfg: llama.LlamaConfig) -> None:
    """Refuse weights that are not the config's, by the headers of their files."""
    shapes = files.shapes_of(files.open_tensors(pathlib.Path(folder)))
    names.check(cfg, "hf", shapes, str(folder))


def load_params(
    folder: str | pathlib.Path, cfg: llama.LlamaConfig, put: names.Put | None = None
) -> llama.Params:
    """Return a folder's weights as float32 parameters in training form.

    Args:
      folder: holds safetensors, in one file or several with an index.
      cfg: the model, as `read_config` gives it.
      put: see `names.assemble`.

    Raises:
      ValueError: a file is not there or damaged, a tensor is missing, unknown, of
        another shape, quantised, or holds NaN or infinity.
    """
    tensors = files.open_tensors(pathlib.Path(folder))
    return _assemble(tensors, cfg, str(folder), put)


def _assemble(
    tensors: files.Tensors,
    cfg: llama.LlamaConfig,
    origin: str,
    put: names.Put | None = None,
) -> llama.Params:
    return names.assemble(
        cfg,
        "hf",
        files.shapes_of(tensors),
        lambda name, index: tensors[name].get_slice(name)[index],
        origin=origin,
        put=put,
    )


def load_scalar_params(
    folder: str | pathlib.Path, cfg: llama.LlamaConfig, role: str
) -> llama.Params:
    """Return a preference or value model that `write` wrote, as float32 parameters.

    Args:
      folder: of the model.
      cfg: as `read_config(folder, role)` gives it.
      role: "preference" or "value".
    """
    folder = pathlib.Path(folder)
    tensors = files.open_tensors(folder)
    is_head = dict.fromkeys(name for name in tensors if name.startswith("score."))
    head = {name: np.asarray(tensors.pop(name).get_tensor(name)) for name in is_head}
    raw = config_json.read(folder)
    return {
        "trunk": _assemble(tensors, _without_output(cfg), str(folder)),
        "head": scalar.head_from_tensors(head, raw, role, str(folder)),
    }


def _without_output(cfg: llama.LlamaConfig) -> llama.LlamaConfig:
    """Return the config whose parameters are those of a trunk."""
    return dataclasses.replace(cfg, tie_embeddings=True)


def export(
    folder: str | pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    *,
    tokenizer: tokenizers.Tokenizer | None = None,
    dtype: str = "float32",
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a folder that transformers and `load_params` read, all of it or nothing.

    The numbers are written as they are; `exchange` is the way that checks them.

    Args:
      folder: a place that does not exist yet, or is empty.
      params: training form.
      cfg: the model.
      tokenizer: written beside the weights, if given.
      dtype: of the file: "float32" (exact), "bfloat16" or "float16".
      max_shard_bytes: largest file; a single larger tensor has a file of its own.
    """
    check_form(dtype, max_shard_bytes)
    with files.new_folder(pathlib.Path(folder)) as partial:
        write(
            partial,
            params,
            cfg,
            tokenizer=tokenizer,
            dtype=dtype,
            max_shard_bytes=max_shard_bytes,
        )


def check_form(dtype: str, max_shard_bytes: int) -> None:
    """Refuse a form of weights that cannot be written."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; accepted: {', '.join(DTYPES)}")
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes={max_shard_bytes}; accepted: 1 or more")


def write(
    folder: pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    *,
    tokenizer: tokenizers.Tokenizer | None,
    dtype: str,
    max_shard_bytes: int,
    role: str = scalar.POLICY,
) -> None:
    """Write a model into an empty folder; see `export`.

    Args:
      folder: is there, and empty.
      params: of the role: a language model, or a trunk and its head.
      cfg: of the model.
      tokenizer: see `export`.
      dtype: see `export`.
      max_shard_bytes: see `export`.
      role: "policy", "preference" or "value"; see `scalar` for how transformers
        knows them.
    """
    _write_weights(folder, params, cfg, role, DTYPES[dtype], max_shard_bytes)
    config = config_json.to_dict(cfg, dtype, role)
    if role != scalar.POLICY:
        config |= scalar.config_fields(params["head"])
    if tokenizer is not None:
        _write_tokenizer(folder, tokenizer)
        ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
        ids |= {"eos_token_id": list(tokenizer.eos_ids)}
        config |= ids
        _write_json(folder / "generation_config.json", ids)
    _write_json(folder / config_json.NAME, config)


def _write_tokenizer(folder: pathlib.Path, tokenizer: tokenizers.Tokenizer) -> None:
    tokenizer.save(folder)
    path = folder / "tokenizer_config.json"
    # transformers 5 writes a class of its own, which transformers 4 does not know.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(path, fetched.read_object(path) | settings)


def disassemble(
    params: llama.Params, cfg: llama.LlamaConfig, role: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a model's tensors by transformers' names, one at a time; see `write`."""
    if role == scalar.POLICY:
        yield from names.disassemble(params, cfg, "hf")
        return
    yield from names.disassemble(params["trunk"], _without_output(cfg), "hf")
    yield from scalar.head_tensors(params["head"]).items()


def _write_weights(
    folder: pathlib.Path,
    params: llama.Params,
    cfg: llama.LlamaConfig,
    role: str,
    dtype: np.dtype,
    max_shard_bytes: int,
) -> None:
    held: dict[str, np.ndarray] = {}
    shards: list[list[str]] = []
    total = 0

    def save() -> None:
        path = folder / f"shard-{len(shards)}"
        safetensors.numpy.save_file(held, path, metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, values in disassemble(params, cfg, role):
        rounded = rounded_to(values, dtype, name)
        size = sum(one.nbytes for one in held.values())
        if held and size + rounded.nbytes > max_shard_bytes:
            save()
        held[name] = rounded
        total += rounded.nbytes
    save()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / WEIGHTS)
        return
    where = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        where |= dict.fromkeys(shard, file)
    _write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where}
    )


def rounded_to(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """Return a tensor in a file's dtype, refusing finite values that it cannot hold."""
    with np.errstate(over="ignore"):  # said below
        rounded = values.astype(dtype)
    lost = int(np.count_nonzero(np.isfinite(values) & ~np.isfinite(rounded)))
    if lost:
        raise ValueError(
            f"{name}: {lost} of {values.size} values are too large for {dtype}; give "
            "--dtype float32 or bfloat16"
        )
    return rounded


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
