"""What of a model a run trains and keeps: all of it, or adapters on a shared base.

A checkpoint's item is what was trained. One of adapters says in the checkpoint's JSON
of what size they are and on which base they lie, so that whoever restores it makes the
model whole as it was trained, also where that was another run with other settings.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import checkpoint, seeds, sharding
from rlcd_jax.job import setup
from rlcd_jax.models import frozen, heads, llama, lora, quantized, table
from rlcd_jax.weights import scalar

Params = Any
NOTE = "lora"  # in a checkpoint's JSON
FORM = "base_form"  # in it: how the base was read, of `quantized.FORMS`


def specs(job: setup.Job, item: str) -> Params:
    """Return the parameter table of what a run trains of one of its models."""
    return table_of(job.cfg, job.lora, item)


def table_of(cfg: llama.LlamaConfig, adapters: lora.Lora | None, item: str) -> Params:
    """Return the parameter table of a checkpoint's item.

    Args:
      cfg: model numbers.
      adapters: that were trained; None: the whole model was.
      item: "policy", "preference" or "value".
    """
    if item == scalar.POLICY:
        if adapters is None:
            return llama.param_specs(cfg)
        return lora.param_specs(cfg, adapters)
    if adapters is None:
        return heads.scalar_specs(cfg)
    return lora.scalar_specs(cfg, adapters)


def fresh(job: setup.Job, item: str) -> Params:
    """Return adapters that change nothing yet, on the mesh; keyed by the item's name.

    Args:
      job: whose config has adapters.
      item: of which model.
    """
    own = lora.param_specs(job.cfg, job.lora)
    words = seeds.seed_words(job.config.seed, "lora", item)
    key = jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32))
    make = jax.jit(
        functools.partial(table.init_from_specs, own),
        out_shardings=sharding.param_shardings(own, job.mesh),
    )
    return make(key)


def start_policy(job: setup.Job) -> Params:
    """Return what is trained of a policy as it is before the first update."""
    return job.load_base() if job.lora is None else fresh(job, scalar.POLICY)


class Base:
    """The frozen model on which adapters of a job are trained.

    Args:
      job: whose config has adapters.
    """

    def __init__(self, job: setup.Job) -> None:
        self._job = job
        self.scale = job.lora.scale

    @property
    def form(self) -> str:
        """How its matrices are kept, of `quantized.FORMS`."""
        return self._job.base_form

    @property
    def params(self) -> Params:
        """Its arrays, which all models of the job share."""
        return self._job.load_base()

    @property
    def shapes(self) -> Params:
        """It without values: shape, dtype and sharding of each array."""
        own, dtype = llama.param_specs(self._job.cfg), self._job.cfg.dtype
        abstract = jax.eval_shape(
            lambda params: frozen.form(params, dtype), table.abstract_params(own)
        )
        if self.form == quantized.INT8:
            own, abstract = quantized.specs(self._job.cfg), quantized.shapes(abstract)
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=where
            ),
            abstract,
            sharding.param_shardings(own, self._job.mesh),
        )

    @functools.cached_property
    def note(self) -> dict[str, Any]:
        """What a checkpoint of adapters says of them and of their base."""
        own = self._job.lora
        sizes = {"rank": own.rank, "alpha": own.alpha, "targets": list(own.targets)}
        hashes = dict(self._job.base_hashes())
        return {NOTE: {**sizes, "base": hashes, FORM: self.form}}

    def check(self, meta: Mapping[str, Any], where: Any) -> None:
        """Refuse adapters that were not trained on this base."""
        own, noted = self.note[NOTE], meta.get(NOTE, {})
        check_base(own["base"], noted.get("base", {}), where)
        check_form(self.form, _form(noted), where)


def base_of(job: setup.Job) -> Base | None:
    """Return the base of a job's adapters; None where models are trained whole."""
    return None if job.lora is None else Base(job)


@dataclasses.dataclass(frozen=True)
class Saved:
    """Of which form the items of a checkpoint are.

    Attributes:
      adapters: that they are; None: they are whole models.
      base: fingerprints of the base on which they were trained.
      form: how it was read, of `quantized.FORMS`.
    """

    adapters: lora.Lora | None = None
    base: Mapping[str, str] = dataclasses.field(default_factory=dict)
    form: str = quantized.AS_COMPUTED


def saved(folder: str | os.PathLike[str], step: int) -> Saved:
    """Return of which form the items of a step are."""
    note = checkpoint.restore(folder, step, {})[1].get(NOTE)
    if note is None:
        return Saved()
    adapters = lora.Lora(note["rank"], note["alpha"], tuple(note["targets"]))
    return Saved(adapters, note["base"], _form(note))


def _form(note: Mapping[str, Any]) -> str:
    return note.get(FORM, quantized.AS_COMPUTED)  # an older checkpoint does not say


def restore(
    job: setup.Job, folder: pathlib.Path, item: str, step: int | None = None
) -> Params:
    """Return a model that a run has kept, whole, on the mesh; arguments as `trained`.

    What was trained as adapters lies on the job's base, whose arrays it shares.
    """
    params, form = _read(job, folder, item, step)
    if form.adapters is None:
        return params
    return lora.lay(_base_of(job, form, folder), params, form.adapters.scale)


def _base_of(job: setup.Job, form: Saved, folder: pathlib.Path) -> Params:
    """Return the job's base in the form in which adapters were trained on it.

    A run with adapters of its own holds it in one form, which others must have.

    Raises:
      ValueError: it is another base, or in another form.
    """
    base = job.load_base()
    if job.lora is not None:
        _check(job, form, folder)
        return base
    check_base(setup.base_hashes(base), form.base, folder)
    if form.form != quantized.INT8:
        return base
    base = frozen.form(base, job.cfg.dtype)  # as it was before it was rounded
    return setup.quantize(base, job.cfg, job.mesh)


def trained(
    job: setup.Job, folder: pathlib.Path, item: str, step: int | None = None
) -> tuple[Params, lora.Lora | None]:
    """Return an item of a checkpoint as it was trained, and its adapters if any.

    Args:
      job: of the stage.
      folder: of checkpoints, of this run or of another.
      item: "policy", "preference" or "value".
      step: of the checkpoint; None: the latest.

    Raises:
      Damaged: it is not what was saved.
      ValueError: there is none, it does not fit, or it belongs to another base.
    """
    params, form = _read(job, folder, item, step)
    if form.adapters is not None:
        _check(job, form, folder)
    return params, form.adapters


def _check(job: setup.Job, form: Saved, folder: pathlib.Path) -> None:
    """Refuse adapters of another base than the job's, or of it in another form."""
    check_base(job.base_hashes(), form.base, folder)
    check_form(job.base_form, form.form, folder)


def _read(
    job: setup.Job, folder: pathlib.Path, item: str, step: int | None
) -> tuple[Params, Saved]:
    """Return an item, and of which form it is."""
    step = setup.find_step(folder) if step is None else step
    with setup.damage_told(folder):
        form = saved(folder, step)
    own = table_of(job.cfg, form.adapters, item)
    return setup.restore_params(job, folder, item, own, step), form


def check_base(found: Mapping[str, str], wanted: Mapping[str, str], where: Any) -> None:
    """Refuse adapters that were not trained on the base that there is.

    Args:
      found: `setup.base_hashes` of the base.
      wanted: those of the base of the adapters.
      where: the adapters are.
    """
    others = [name for name, value in found.items() if wanted.get(name) != value]
    if others:
        raise ValueError(
            f"the adapters in {where} were trained on another base model: "
            f"{', '.join(others[:4])} differ from what they were trained beside; name "
            "the model that the run had"
        )


def check_form(found: str, wanted: str, where: Any) -> None:
    """Refuse adapters that were trained on a base in another form.

    Args:
      found: the form in which the base is read.
      wanted: that in which it was when they were trained.
      where: the adapters are.
    """
    if found != wanted:
        raise ValueError(
            f"the adapters in {where} were trained on a base with lora.base="
            f"{wanted!r}, and this run has lora.base={found!r}; set "
            f"--config.lora.base={wanted}"
        )
