"""Models brought in from other programs and handed out to them, with a check.

Both ways end in a Hugging Face folder or a GGUF file. It is written under a temporary
name, read again as any other is, and compared with its source (`read_again`). It gets
its name only then, so what is there is right.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from rlcd_jax import checkpoint, jsonl
from rlcd_jax.job import roles, setup, trained_form
from rlcd_jax.models import frozen, llama, lora, presets, quantized, table
from rlcd_jax.ppo import choosing
from rlcd_jax.text import byte_tokenizer, gguf_fields, tokenizer
from rlcd_jax.weights import (
    config_json,
    embedded,
    files,
    finite,
    gguf_writing,
    hf,
    model_card,
    peft,
    read_again,
    resolve,
    scalar,
)


@dataclasses.dataclass(frozen=True)
class Target:
    """What to write.

    Attributes:
      path: a folder that does not exist yet, or is empty; or a new file whose name
        ends in .gguf.
      dtype: of the weights: "float32" (exact), "bfloat16" or "float16".
      max_shard_bytes: largest file of a folder; a single larger tensor has one of its
        own.
      drop_bias: whether a preference or value model may lose the bias of its head, for
        which transformers has no place.
    """

    path: pathlib.Path
    dtype: str
    max_shard_bytes: float
    drop_bias: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_shard_bytes):
            raise ValueError(f"max_shard_bytes={self.max_shard_bytes}; give a number")
        hf.check_form(self.dtype, int(self.max_shard_bytes))
        files.check_new(self.path)


def import_model(
    spec: str, target: Target, cache_dir: pathlib.Path, log: embedded.Log
) -> list[str]:
    """Write a model that another program wrote, in the form that is asked for.

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
    source = read_again.Source(
        params=model.load_params(),
        cfg=model.cfg,
        text_tokenizer=model.load_tokenizer(),
        role=scalar.POLICY,
        origin=spec,
        about=model_card.About(spec, model.licence, "", None, {}),
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
    """Write a run's weights in the form that is asked for.

    See `read_checkpoint` for what may be named, and `import_model` for the rest.
    """
    return write(read_checkpoint(place, item, spec, cache_dir, log), target)


def read_checkpoint(
    place: pathlib.Path,
    item: str,
    spec: str | None,
    cache_dir: pathlib.Path,
    log: embedded.Log,
) -> read_again.Source:
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
            "(policy in RUN/policy, RUN/distill and RUN/direct, value in RUN/policy, "
            "preference in RUN/preference)"
        )
    folder, step = _find_step(place, item)
    config = _config_of_run(folder.parent)
    spec = spec or _spec_of_run(config, folder.parent, item)
    base = _base(spec, config, cache_dir, log)
    form = trained_form.saved(folder, step)
    specs = trained_form.table_of(base.cfg, form.adapters, item)
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    abstract = checkpoint.abstract_like(table.abstract_params(specs), one_device)
    items, _ = checkpoint.restore(folder, step, {item: abstract})
    params = jax.tree.map(np.asarray, items[item])
    origin, own = f"{item} of step {step} in {folder}", None
    if form.adapters is not None:
        own = peft.Trained(params, form.adapters, spec, form.base, form.form)
        dtype = config.get("model", {}).get("dtype", base.cfg.dtype)
        read = dataclasses.replace(base.cfg, dtype=dtype)
        params = _merged(own, base.load_params(), read, place)
        origin = f"{origin}, its adapters merged in {spec}"
    named = folder.parent.name  # of a policy without PPO, how it was made
    is_policy = item == scalar.POLICY
    stage = named if is_policy and named in model_card.MADE else item
    return read_again.Source(
        params=params,
        cfg=base.cfg,
        text_tokenizer=base.load_tokenizer(),
        role=item,
        origin=origin,
        about=model_card.About(spec, base.licence, stage, step, config),
        adapters=own,
    )


def export_adapters(
    place: pathlib.Path,
    item: str,
    spec: str | None,
    target: Target,
    cache_dir: pathlib.Path,
    log: embedded.Log,
) -> list[str]:
    """Write what a run has trained of a model as a folder that PEFT loads.

    Arguments and errors are those of `export_checkpoint`.
    """
    if files.is_gguf(target.path):
        raise ValueError(
            f"{target.path}: adapters are written as a folder, for PEFT; give a name "
            "without .gguf, or leave out --adapters for a GGUF file of the policy with "
            "its adapters merged"
        )
    source = read_checkpoint(place, item, spec, cache_dir, log)
    own = source.adapters
    if own is None:
        raise ValueError(
            f"{source.origin} was trained whole (lora.rank=0) and has no adapters; "
            "leave out --adapters to write the whole model"
        )
    _check_finite(source)
    _check_bias(source, target)
    with files.new_folder(target.path) as partial:
        peft.write(partial, own, source.cfg, source.role, target.dtype)
        _write_card(partial, source, adapters=True)
        count = peft.check_folder(partial, own, source.cfg, source.role, target.dtype)
    return [
        f"wrote {target.path}: adapters of {source.origin}, for PEFT on {own.base}",
        f"checked: {count} weights, read again, are the same",
        *_about_bias(source, peft.ORIGIN),
    ]


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


@dataclasses.dataclass(frozen=True)
class _Base:
    """The model that a run began with: numbers, licence, tokenizer and weights."""

    cfg: llama.LlamaConfig
    licence: str
    load_tokenizer: Callable[[], tokenizer.Tokenizer]
    load_params: Callable[[], Any]


def _base(
    spec: str, config: Mapping[str, Any], cache_dir: pathlib.Path, log: embedded.Log
) -> _Base:
    if not spec.startswith(setup.RANDOM):
        model = resolve.resolve_model(spec, cache_dir, log)
        loaders = model.load_tokenizer, model.load_params
        return _Base(model.cfg, model.licence, *loaders)
    cfg = presets.get_preset(spec.removeprefix(setup.RANDOM))

    def draw() -> Any:
        seed = config.get("seed")
        if not isinstance(seed, int):
            raise ValueError(f"the run's config.json has no seed, of which {spec} is")
        return setup.draw_params(cfg, seed)

    letters = functools.partial(byte_tokenizer.make, cfg.vocab_size)
    return _Base(cfg, "", letters, draw)


def _merged(
    own: peft.Trained, base: Any, cfg: llama.LlamaConfig, place: pathlib.Path
) -> Any:
    """Return a model of adapters and their base, float32 NumPy arrays.

    Args:
      own: the adapters.
      base: parameters of the model on which they lie; they are used up.
      cfg: its numbers, in the precision in which the run read it.
      place: of the checkpoint, for a message.
    """
    trained_form.check_base(setup.base_hashes(base), own.base_hashes, place)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        if own.form == quantized.INT8:
            if told := quantized.missing():
                raise ValueError(told)
            base = frozen.form(base, cfg.dtype)
            base = quantized.form(base, lambda _, weight: quantized.quantize(weight))
        whole = lora.merge(lora.lay(base, own.params, own.sizes.scale))
    return jax.tree.map(np.asarray, whole)


def _config_of_run(stage: pathlib.Path) -> dict[str, Any]:
    path = stage / "config.json"
    return jsonl.read_object(path) if path.is_file() else {}


def _spec_of_run(config: dict[str, Any], stage: pathlib.Path, item: str) -> str:
    path = stage / "config.json"
    if not config and not path.is_file():
        raise ValueError(f"{path} is not there; name the run's model with --model")
    model = config.get("model")
    spec = None
    if isinstance(model, dict) and isinstance(model.get(roles.MODEL), str):
        # A value model has the numbers and the tokenizer of the policy.
        is_preference = item == scalar.PREFERENCE
        role = roles.PREFERENCE if is_preference else roles.POLICY
        spec = roles.spec_of(model, role)
    if not isinstance(spec, str):
        raise ValueError(
            f"{path} names no model (model.spec); name the run's model with --model"
        )
    return spec


def write(source: read_again.Source, target: Target) -> list[str]:
    """Write a source, read it again and compare; see `import_model`."""
    is_gguf = files.is_gguf(target.path)
    if is_gguf and source.role != scalar.POLICY:
        raise ValueError(
            f"{target.path}: a {source.role} model gives scores, and a GGUF file of a "
            "LLaMA holds a language model, without a place for the head that scores; "
            "write a Hugging Face folder (a name without .gguf), or --item policy"
        )
    _check_finite(source)
    if source.role != scalar.POLICY:
        _check_bias(source, target)
        _check_padding(source)
    if is_gguf:
        lines, kind = _write_gguf(source, target), "a GGUF file"
    else:
        lines = _write_folder(source, target)
        kind = scalar.ARCHITECTURES[source.role]
    return [f"wrote {target.path}: {source.origin}, as {kind}", *lines]


def _write_folder(source: read_again.Source, target: Target) -> list[str]:
    with files.new_folder(target.path) as partial:
        hf.write(
            partial,
            source.params,
            source.cfg,
            tokenizer=source.text_tokenizer,
            dtype=target.dtype,
            max_shard_bytes=int(target.max_shard_bytes),
            role=source.role,
        )
        _write_card(partial, source)
        lines = read_again.check_folder(partial, source, target.dtype)
    return lines + _about_bias(source, config_json.NAME)


def _write_card(
    folder: pathlib.Path, source: read_again.Source, adapters: bool = False
) -> None:
    card = model_card.markdown(
        source.about, source.role, source.text_tokenizer, adapters=adapters
    )
    (folder / model_card.FILE).write_text(card, "utf-8")


def _write_gguf(source: read_again.Source, target: Target) -> list[str]:
    spelt = gguf_fields.of_tokenizer(source.text_tokenizer, source.cfg.vocab_size)
    with files.new_file(target.path) as partial:
        gguf_writing.write(
            partial,
            source.params,
            source.cfg,
            dtype=target.dtype,
            metadata=model_card.gguf_fields(source.about) | spelt,
        )
        return read_again.check_gguf(partial, source, target.dtype)


def _bias(source: read_again.Source) -> float:
    """Return the bias of a scalar model's head; a policy has none."""
    is_policy = source.role == scalar.POLICY
    return 0.0 if is_policy else float(source.params["head"]["bias"])


def _check_bias(source: read_again.Source, target: Target) -> None:
    """Refuse a scalar model that transformers would read with other numbers."""
    if (bias := _bias(source)) and not target.drop_bias:
        what = "scores" if source.role == scalar.PREFERENCE else "values"
        raise ValueError(
            f"{source.origin} has the bias {bias:g}, for which transformers' "
            f"{scalar.ARCHITECTURES[source.role]} has no place; with --drop_bias its "
            f"{what} are less by that, all alike, so that no comparison changes; the "
            "bias is kept beside, and the model card shows how it is added"
        )


def _check_padding(source: read_again.Source) -> None:
    """Refuse a scalar model whose last token depended on who fills up texts."""
    pad = source.text_tokenizer.pad_id
    if pad not in source.text_tokenizer.special_ids:
        raise ValueError(
            "the vocabulary has no special token that could fill up texts, and "
            "transformers reads a score at the last token that is not padding: which "
            "one that is would depend on who pads; add a padding token to the model"
        )


def _check_finite(source: read_again.Source) -> None:
    advice = "nothing is written; take an earlier checkpoint"
    for name, values in hf.disassemble(source.params, source.cfg, source.role):
        finite.check(values, f"{source.origin}: {name}", advice)
    if source.role != scalar.POLICY:  # its bias is no tensor of transformers'
        bias = np.asarray(source.params["head"]["bias"])
        finite.check(bias, f"{source.origin}: {scalar.BIAS_FIELD}", advice)


def _about_bias(source: read_again.Source, file: str) -> list[str]:
    if not (bias := _bias(source)):
        return []
    return [
        f"transformers has no place for the bias {bias:g}: its numbers are less by "
        f"that, all alike; {file} keeps it as {scalar.BIAS_FIELD}, and the model card "
        "shows how it is added"
    ]
