"""Models brought in from other programs and handed out to them, with a check.

Both ways end in a Hugging Face folder. It is written under a temporary name, read
again as any folder is, and compared with its source: the config, every weight, and the
tokenizer. It gets its name only then, so a folder that is there is right.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import checkpoint, jsonl
from rlcd_jax.job import setup
from rlcd_jax.models import heads, llama, presets, table
from rlcd_jax.ppo import choosing
from rlcd_jax.text import byte_tokenizer, tokenizer
from rlcd_jax.weights import (
    config_json,
    embedded,
    files,
    finite,
    hf,
    resolve,
    scalar,
)

CHECK_TOKENS = 64  # tokens of the text on which the effect of rounding is measured
CHECK_TEXT = "Human: How are you?\n\nAssistant: Fine — thanks!  12345 \t(naïve) 日本"
# What a config says about how a run computes, which no file of weights holds.
OF_THE_RUN = ("dtype", "remat", "attention", "tensor_ways", "split_decode")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights to write: whose numbers they are, and how it spells.

    Attributes:
      params: float32, training form; of a scalar model, its trunk and head.
      cfg: of the model.
      text_tokenizer: of the model.
      role: "policy" (any language model), "preference" or "value".
      origin: where they are from, in words.
    """

    params: Any
    cfg: llama.LlamaConfig
    text_tokenizer: tokenizer.Tokenizer
    role: str
    origin: str


@dataclasses.dataclass(frozen=True)
class Target:
    """A folder to write.

    Attributes:
      folder: a place that does not exist yet, or is empty.
      dtype: of the weights: "float32" (exact), "bfloat16" or "float16".
      max_shard_bytes: largest file; a single larger tensor has a file of its own.
    """

    folder: pathlib.Path
    dtype: str
    max_shard_bytes: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_shard_bytes):
            raise ValueError(f"max_shard_bytes={self.max_shard_bytes}; give a number")
        hf.check_form(self.dtype, int(self.max_shard_bytes))
        files.check_new(self.folder)


def import_model(
    spec: str, target: Target, cache_dir: pathlib.Path, log: embedded.Log
) -> list[str]:
    """Write a model that another program wrote as a Hugging Face folder.

    Args:
      spec: see `resolve.resolve_model`.
      target: what to write.
      cache_dir: of fetched models.
      log: called with a line of text when something takes time.

    Returns:
      Lines that say what was written and what was compared.

    Raises:
      ValueError: the model cannot be read, or written, or is not the same when read
        again; the target is as it was.
    """
    model = resolve.resolve_model(spec, cache_dir, log)
    source = Source(
        params=model.load_params(),
        cfg=model.cfg,
        text_tokenizer=model.load_tokenizer(),
        role=scalar.POLICY,
        origin=spec,
    )
    return write(source, target)


def export_checkpoint(
    place: pathlib.Path,
    item: str,
    spec: str | None,
    target: Target,
    cache_dir: pathlib.Path,
    log: embedded.Log,
) -> list[str]:
    """Write a run's weights as a Hugging Face folder.

    See `read_checkpoint` for what may be named, and `import_model` for the rest.
    """
    return write(read_checkpoint(place, item, spec, cache_dir, log), target)


def read_checkpoint(
    place: pathlib.Path,
    item: str,
    spec: str | None,
    cache_dir: pathlib.Path,
    log: embedded.Log,
) -> Source:
    """Return the weights of a run's checkpoint.

    Args:
      place: a stage's folder or the `checkpoints` in it, which stand for the policy
        that the stage hands on and for the latest step of another item; or one step.
      item: "policy", "preference" or "value".
      spec: the run's model; None: as the run's config.json says.
      cache_dir: of fetched models.
      log: called with a line of text when something takes time.
    """
    if item not in scalar.ARCHITECTURES:
        raise ValueError(
            f"item {item!r} is no model; accepted: {', '.join(scalar.ARCHITECTURES)} "
            "(policy in RUN/policy and RUN/distill, value in RUN/policy, preference "
            "in RUN/preference)"
        )
    folder, step = _find_step(place, item)
    cfg, text_tokenizer = _model_of_run(folder, spec, cache_dir, log)
    is_policy = item == scalar.POLICY
    specs = llama.param_specs(cfg) if is_policy else heads.scalar_specs(cfg)
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    abstract = checkpoint.abstract_like(table.abstract_params(specs), one_device)
    items, _ = checkpoint.restore(folder, step, {item: abstract})
    return Source(
        params=jax.tree.map(np.asarray, items[item]),
        cfg=cfg,
        text_tokenizer=text_tokenizer,
        role=item,
        origin=f"{item} of step {step} in {folder}",
    )


def _find_step(place: pathlib.Path, item: str) -> tuple[pathlib.Path, int]:
    if place.name.isdecimal():
        return place.parent, int(place.name)
    if item == scalar.POLICY:
        folder = choosing.find_policy(place)
    else:
        inside = place / choosing.CHECKPOINTS
        folder = inside if inside.is_dir() else place
    step = checkpoint.latest_step(folder)
    if step is None:
        raise ValueError(f"{folder} holds no checkpoint; name RUN/STAGE/checkpoints")
    return folder, step


def _model_of_run(
    folder: pathlib.Path, spec: str | None, cache_dir: pathlib.Path, log: embedded.Log
) -> tuple[llama.LlamaConfig, tokenizer.Tokenizer]:
    spec = spec or _spec_of_run(folder.parent / "config.json")
    if spec.startswith(setup.RANDOM):
        cfg = presets.get_preset(spec.removeprefix(setup.RANDOM))
        return cfg, byte_tokenizer.make(cfg.vocab_size)
    model = resolve.resolve_model(spec, cache_dir, log)
    return model.cfg, model.load_tokenizer()


def _spec_of_run(path: pathlib.Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} is not there; name the run's model with --model")
    model = jsonl.read_object(path).get("model")
    spec = model.get("spec") if isinstance(model, dict) else None
    if not isinstance(spec, str):
        raise ValueError(
            f"{path} names no model (model.spec); name the run's model with --model"
        )
    return spec


def write(source: Source, target: Target) -> list[str]:
    """Write a source, read it again and compare; see `import_model`."""
    _check_finite(source)
    with files.new_folder(target.folder) as partial:
        hf.write(
            partial,
            source.params,
            source.cfg,
            tokenizer=source.text_tokenizer,
            dtype=target.dtype,
            max_shard_bytes=int(target.max_shard_bytes),
            role=source.role,
        )
        lines = check_folder(partial, source, target.dtype)
    kind = scalar.ARCHITECTURES[source.role]
    return [f"wrote {target.folder}: {source.origin}, as {kind}", *lines]


def _check_finite(source: Source) -> None:
    advice = "nothing is written; take an earlier checkpoint"
    for name, values in hf.disassemble(source.params, source.cfg, source.role):
        finite.check(values, f"{source.origin}: {name}", advice)
    if source.role == scalar.PREFERENCE:  # its bias is no tensor of transformers'
        bias = np.asarray(source.params["head"]["bias"])
        finite.check(bias, f"{source.origin}: {scalar.BIAS_FIELD}", advice)


def check_folder(folder: pathlib.Path, source: Source, dtype: str) -> list[str]:
    """Read a written folder again and compare it with its source.

    Returns:
      Lines that say what was compared.

    Raises:
      ValueError: the config, a weight or the tokenizer is not the source's in
        `dtype`; it is named.
    """
    cfg = hf.read_config(folder, source.role)
    own = {name: getattr(cfg, name) for name in OF_THE_RUN}
    if cfg != dataclasses.replace(source.cfg, **own):
        raise ValueError(
            f"{folder / config_json.NAME}, read again, says {cfg}, and the source is "
            f"{source.cfg}; do not use the folder"
        )
    if source.role == scalar.POLICY:
        found = hf.load_params(folder, cfg)
    else:
        found = hf.load_scalar_params(folder, cfg, source.role)
    count = _compare_weights(found, source, dtype, folder)
    _compare_tokenizers(tokenizer.load_tokenizer(folder), source.text_tokenizer, folder)
    lines = [f"checked: {count} weights and the tokenizer, read again, are the same"]
    if dtype != "float32":
        gap = np.abs(outputs(found, source) - outputs(source.params, source)).max()
        what = "a logit" if source.role == scalar.POLICY else "a score"
        lines.append(
            f"rounding the weights to {dtype} moved {what} by {gap:.2g} at most"
        )
    return lines + _about_bias(source)


def _compare_weights(
    found: Any, source: Source, dtype: str, folder: pathlib.Path
) -> int:
    """Return how many numbers are the same, all of them; one tensor at a time."""
    count = 0
    again = hf.disassemble(found, source.cfg, source.role)
    first = hf.disassemble(source.params, source.cfg, source.role)
    for (name, held), (_, values) in zip(again, first, strict=True):
        wanted = hf.rounded_to(values, hf.DTYPES[dtype], name).astype(np.float32)
        differing = int(np.count_nonzero(held != wanted))
        if differing:
            raise ValueError(
                f"{folder}: {name}, read again, differs from the source in "
                f"{differing} of {held.size} values; do not use the folder"
            )
        count += held.size
    if source.role == scalar.PREFERENCE:
        bias, wanted = found["head"]["bias"], source.params["head"]["bias"]
        if bias != wanted:
            raise ValueError(
                f"{folder}: {scalar.BIAS_FIELD}, read again, is {bias}, and the source "
                f"has {wanted}; do not use the folder"
            )
    return count


def _compare_tokenizers(
    found: tokenizer.Tokenizer, wanted: tokenizer.Tokenizer, folder: pathlib.Path
) -> None:
    def about(one: tokenizer.Tokenizer) -> tuple[Any, ...]:
        ids = one.encode(CHECK_TEXT)
        return ids, one.decode(ids), one.bos_id, one.eos_id, one.vocab_size

    if about(found) != about(wanted):
        raise ValueError(
            f"{folder}: the tokenizer, read again, spells {CHECK_TEXT!r} as "
            f"{about(found)}, and the source as {about(wanted)}; do not use the folder"
        )


def _about_bias(source: Source) -> list[str]:
    if source.role != scalar.PREFERENCE or not source.params["head"]["bias"]:
        return []
    bias = float(source.params["head"]["bias"])
    return [
        f"transformers has no place for the bias {bias:g}: its scores are less by "
        f"that, all alike; config.json keeps it as {scalar.BIAS_FIELD}"
    ]


def outputs(params: Any, source: Source) -> np.ndarray:
    """Return what a model says of a fixed random text, float32.

    Returns:
      Logits [CHECK_TOKENS, V], or the scalars [CHECK_TOKENS] of a scalar model.
    """
    cfg = dataclasses.replace(source.cfg, dtype="float32", attention="xla")
    ids = np.random.default_rng(0).integers(0, cfg.vocab_size, (1, CHECK_TOKENS))
    tokens, mask = jnp.asarray(ids, jnp.int32), jnp.ones(ids.shape, bool)
    if source.role != scalar.POLICY:
        return np.asarray(heads.scalar_per_token(params, cfg, tokens, mask)[0])
    positions = heads.positions_of(mask)
    hidden, _ = llama.hidden_states(params, cfg, tokens, positions, mask)
    return np.asarray(llama.logits(params, cfg, hidden)[0])
