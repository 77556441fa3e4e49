"""What of a model a run trains and keeps: all of it, or adapters on a shared base.

A checkpoint's item is what was trained. One of adapters says in the checkpoint's JSON
of what size they are and on which base they lie, so that whoever restores it makes the
model whole as it was trained, also where that was another run with other settings.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import checkpoint, fingerprints, seeds, sharding
from rlcd_jax.job import setup
from rlcd_jax.models import frozen, heads, llama, lora, table
from rlcd_jax.weights import scalar

Params = Any
NOTE = "lora"  # in a checkpoint's JSON


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
        return {NOTE: {**sizes, "base": base_hashes(self.params)}}

    def check(self, meta: Mapping[str, Any], where: Any) -> None:
        """Refuse adapters that were not trained on this base."""
        wanted = meta.get(NOTE, {}).get("base", {})
        check_base(self.note[NOTE]["base"], wanted, where)


def base_of(job: setup.Job) -> Base | None:
    """Return the base of a job's adapters; None where models are trained whole."""
    return None if job.lora is None else Base(job)


def saved(
    folder: str | os.PathLike[str], step: int
) -> tuple[lora.Lora | None, Mapping[str, str]]:
    """Return the adapters of a step's items, and the fingerprints of their base.

    Returns:
      (None, {}) where its models are whole.
    """
    note = checkpoint.restore(folder, step, {})[1].get(NOTE)
    if note is None:
        return None, {}
    adapters = lora.Lora(note["rank"], note["alpha"], tuple(note["targets"]))
    return adapters, note["base"]


def restore(
    job: setup.Job, folder: pathlib.Path, item: str, step: int | None = None
) -> Params:
    """Return a model that a run has kept, whole, on the mesh; arguments as `trained`.

    What was trained as adapters lies on the job's base, whose arrays it shares.
    """
    params, adapters, wanted = _read(job, folder, item, step)
    if adapters is None:
        return params
    base = job.load_base()
    check_base(base_hashes(base), wanted, folder)
    return lora.lay(base, params, adapters.scale)


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
    params, adapters, wanted = _read(job, folder, item, step)
    if adapters is not None:
        check_base(base_hashes(job.load_base()), wanted, folder)
    return params, adapters


def _read(
    job: setup.Job, folder: pathlib.Path, item: str, step: int | None
) -> tuple[Params, lora.Lora | None, Mapping[str, str]]:
    """Return an item, its adapters, and the fingerprints of the base of these."""
    step = setup.find_step(folder) if step is None else step
    with setup.damage_told(folder):
        adapters, wanted = saved(folder, step)
    own = table_of(job.cfg, adapters, item)
    return setup.restore_params(job, folder, item, own, step), adapters, wanted


def base_hashes(base: Params) -> dict[str, str]:
    """Return a fingerprint of each array, whatever the dtype in which it is kept."""
    return fingerprints.of_tree(base, rounded_to="bfloat16")


def check_base(found: Mapping[str, str], wanted: Mapping[str, str], where: Any) -> None:
    """Refuse adapters that were not trained on the base that there is.

    Args:
      found: `base_hashes` of the base.
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
