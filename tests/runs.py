"""Small runs that several test files share: configs, one device, files of a run."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from unittest import mock

import jax
from ml_collections import ConfigDict

from rlcd_jax import metrics, pipeline, sharding
from rlcd_jax import stages as stage_table
from rlcd_jax.job import workspace
from rlcd_jax.resuming import comparing
from rlcd_jax.weights import embedded

# The smallest job whose numbers mean something: replies of a random model never end
# by themselves, so the terminal rule is off; rates are large enough to move weights.
# Sizes divide among eight devices, so that a run on a mesh is the same job.
FIELDS = {
    "model.dtype": "float32",
    "mesh.data": 1,
    "pairs.part_prompts": 4,
    "preference.learning_rate": 1e-4,
    "preference.batch_size": 4,
    "preference.epochs": 2,
    "preference.checkpoint_every": 1,
    "preference.eval_every": 1,
    "distill.learning_rate": 1e-4,
    "distill.batch_size": 8,
    "distill.micro_batch": 4,
    "distill.epochs": 4,
    "direct.learning_rate": 1e-4,
    "direct.batch_size": 4,
    "policy.learning_rate": 1e-4,
    "policy.rollouts": 8,
    "policy.update_batch": 4,
    "policy.epochs": 2,
    "policy.terminal_mode": "none",
    "policy.kl_target": 1.0,
    "policy.kl_horizon": 10,
    "policy.ratio_tolerance": 1e-3,
    "evaluate.judges": ("lexicon", "log_odds"),
}


def write_hh(path: pathlib.Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows as hh-rlhf has them: a folder a subset, a gzipped JSONL a split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def tiny_config(name: str = "quickstart", task: str = "cheerful", **fields):
    """Return a smoke config of a random tiny model, with some fields set.

    Fields are dotted names with "__" for the dots: ``policy__steps=1``.
    """
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(f"task={task},size=smoke,model=random:tiny")
    own = {name.replace("__", "."): value for name, value in fields.items()}
    with config.unlocked():
        config.update_from_flattened_dict(FIELDS | own)
    return config


_make_mesh = sharding.make_mesh


def _fitting_mesh(data, fsdp, tensor, devices=None, *, slices=1):
    """Like ``make_mesh``, but (1, 1, 1) takes the first of the eight fake devices."""
    if (slices, data, fsdp, tensor) == (1, 1, 1, 1) and devices is None:
        devices = jax.devices()[:1]
    return _make_mesh(data, fsdp, tensor, devices, slices=slices)


@contextlib.contextmanager
def devices_by_mesh() -> Iterator[None]:
    """Let a job of mesh (1, 1, 1) run although there are eight devices."""
    with mock.patch.object(sharding, "make_mesh", _fitting_mesh):
        yield


def run(config: ConfigDict, workdir: pathlib.Path, *stages: str) -> dict[str, dict]:
    """Run stages in this process and return their summaries by name."""
    with devices_by_mesh():
        workspace.open_run(config, workdir)
        return {
            stage: stage_table.STAGES[stage].run(config, str(workdir))
            for stage in stages or config.stages
        }


def run_checked(config: ConfigDict, workdir: pathlib.Path, names: Iterable[str]):
    """Run stages as the command does: all checks first, the report last."""
    cache_dir = str(embedded.default_cache_dir(os.environ))
    pipeline.run_stages(
        config, str(workdir), tuple(names), cache_dir=cache_dir, preset=None
    )


def copy_run(source: pathlib.Path, target: pathlib.Path, *folders: str) -> pathlib.Path:
    """Copy the config and the named folders of a run to a new workdir."""
    target.mkdir(parents=True)
    shutil.copy(source / "config.json", target)
    for folder in folders:
        shutil.copytree(source / folder, target / folder)
    return target


def metric_rows(workdir: pathlib.Path, stage: str) -> list[dict]:
    """Return the metrics of a stage without what clocks say."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["stage"] == stage]
    return without_clocks(rows)


# What tests compare of a run is read as the command that compares runs reads it.
without_clocks, saved_arrays = metrics.without_clocks, comparing.saved_arrays
