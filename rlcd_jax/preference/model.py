"""The preference model: a scalar head on the base model, and its loss."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from rlcd_jax.job import setup, trained_form, trainer, workspace
from rlcd_jax.models import heads, llama
from rlcd_jax.training import preferences

Params = Any
ITEM = "preference"  # name of the parameters in a checkpoint


def start_params(job: setup.Job) -> Params:
    """Return what is trained of it: the base model's trunk under a fresh scalar head.

    Or adapters of the trunk, which change nothing yet, and the same head.
    """
    key = jax.random.fold_in(jax.random.key(job.config.seed), 1)
    if job.lora is not None:
        return heads.scalar_on(job.cfg, trained_form.fresh(job, ITEM), key)
    return heads.scalar_from_trunk(job.cfg, job.load_base(), key)


def preference_loss(job: setup.Job):
    """Return the loss of a batch, by the config, as a function of the parameters."""
    section = job.config.preference
    width, band = float(section.tie_width), float(section.tie_band)
    return _loss(job.trained_cfg("preference"), section.loss, width, band)


@functools.lru_cache(maxsize=trainer.KEPT)
def _loss(cfg: llama.LlamaConfig, loss: str, width: float, band: float):
    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        rewards = heads.scalar_in_rows(params[ITEM], cfg, batch)  # [B, K]
        if loss == preferences.RANKED:
            return preferences.plackett_luce(
                rewards, batch["grades"], batch["are_replies"]
            )
        pairs = (rewards[:, 0], rewards[:, 1], batch["prob_2"])
        if loss == "ties":
            return preferences.ties(*pairs, width=width, band=band)
        return preferences.bradley_terry(*pairs, margin=batch.get("margin"))

    return loss_fn


def restore(job: setup.Job, workdir: str | pathlib.Path) -> Params:
    """Return the preference model that a run has trained, whole."""
    return trained_form.restore(job, _folder(workdir), ITEM)


def restore_trained(job: setup.Job, workdir: str | pathlib.Path) -> Params:
    """Return what the run has trained of its preference model."""
    return trained_form.trained(job, _folder(workdir), ITEM)[0]


def _folder(workdir: str | pathlib.Path) -> pathlib.Path:
    return workspace.stage_folder(workdir, "preference") / "checkpoints"
