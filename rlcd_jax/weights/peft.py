"""Adapters in the layout of PEFT: adapter_config.json and adapter_model.safetensors.

PEFT lays them on the model that the run had, as it is published: `base_model.model` is
before each of transformers' names, `lora_A` and `lora_B` behind. A preference or value
model is a `SequenceClassification` with one label (see `scalar`), whose head is one of
PEFT's modules that are saved whole.

Source: PEFT 0.21, `peft/utils/save_and_load.py`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from rlcd_jax import fetched, tree
from rlcd_jax.models import llama, lora, quantized
from rlcd_jax.weights import hf, names, scalar

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ORIGIN = "origin.json"  # what PEFT has no place for
PREFIX = "base_model.model."
PARTS = {"a": "lora_A", "b": "lora_B"}
KINDS = {
    scalar.POLICY: "CAUSAL_LM",
    scalar.PREFERENCE: "SEQ_CLS",
    scalar.VALUE: "SEQ_CLS",
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What was trained of a model.

    Attributes:
      params: adapters, of a scalar model with its head; NumPy arrays.
      sizes: theirs.
      base: spec of the model on which they lie.
      base_hashes: a fingerprint of each of its arrays, rounded to bfloat16.
      form: in which it was read, of `quantized.FORMS`. PEFT lays adapters on the base
        as it is published, whatever they were trained on.
    """

    params: Any
    sizes: lora.Lora
    base: str
    base_hashes: Mapping[str, str]
    form: str = quantized.AS_COMPUTED


def tensors(
    trained: Trained, cfg: llama.LlamaConfig, role: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of adapters by PEFT's names, one at a time, float32."""
    is_policy = role == scalar.POLICY
    own = trained.params if is_policy else trained.params["trunk"]
    leaves = tree.flatten_names(own)
    for name, entry in names.entries(cfg, "hf").items():
        for part, suffix in PARTS.items():
            leaf = leaves.get(f"{entry.path}/{part}")
            if leaf is not None:
                module = name.removesuffix(".weight")
                yield f"{PREFIX}{module}.{suffix}.weight", np.asarray(leaf[entry.layer])
    if not is_policy:
        for name, values in scalar.head_tensors(trained.params["head"]).items():
            yield PREFIX + name, values


def config(trained: Trained, role: str) -> dict[str, Any]:
    """Return adapter_config.json."""
    sizes = trained.sizes
    modules = {row.ours: row.hf.split(".")[-2] for row in names.TABLE}
    return {
        "peft_type": "LORA",
        "task_type": KINDS[role],
        "base_model_name_or_path": trained.base.removeprefix("hf:"),
        "r": sizes.rank,
        "lora_alpha": sizes.alpha,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "target_modules": [modules[f"layers/{one}"] for one in sizes.targets],
        "modules_to_save": None if role == scalar.POLICY else ["score"],
    }


def write(
    folder: pathlib.Path,
    trained: Trained,
    cfg: llama.LlamaConfig,
    role: str,
    dtype: str,
) -> None:
    """Write adapters into an empty folder.

    Args:
      folder: is there, and empty.
      trained: the adapters.
      cfg: of the model.
      role: "policy", "preference" or "value".
      dtype: of the file: "float32" (exact), "bfloat16" or "float16".
    """
    held = {
        name: hf.rounded_to(values, hf.DTYPES[dtype], name)
        for name, values in tensors(trained, cfg, role)
    }
    safetensors.numpy.save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
    _write_json(folder / CONFIG, config(trained, role))
    origin: dict[str, Any] = {
        "base": trained.base,
        "base_hashes": trained.base_hashes,
        "base_form": trained.form,
    }
    if role != scalar.POLICY:  # transformers' head has none
        origin[scalar.BIAS_FIELD] = float(trained.params["head"]["bias"])
    _write_json(folder / ORIGIN, origin)


def check_folder(
    folder: pathlib.Path,
    trained: Trained,
    cfg: llama.LlamaConfig,
    role: str,
    dtype: str,
) -> int:
    """Read a written folder again; return how many numbers are the same, all of them.

    Raises:
      ValueError: the config or a tensor is not the source's in `dtype`; it is named.
    """
    said, wanted = fetched.read_object(folder / CONFIG), config(trained, role)
    wrong = [name for name in wanted if said.get(name) != wanted[name]]
    found = safetensors.numpy.load_file(folder / WEIGHTS)
    count = 0
    for name, values in tensors(trained, cfg, role):
        held = found.pop(name, None)
        as_written = hf.rounded_to(values, hf.DTYPES[dtype], name)
        if held is None or not np.array_equal(held, as_written):
            wrong.append(name)
        count += values.size
    if wrong := [*wrong, *found]:
        raise ValueError(
            f"{folder}: {', '.join(wrong[:4])}, read again, are not the source's; do "
            "not use the folder"
        )
    return count


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
