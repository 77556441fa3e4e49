"""A run that stops on eight devices goes on with four and ends on one.

The batches are those of the run: an order is a function of (seed, index) alone, and a
checkpoint is restored into whatever mesh there is. What differs is the order in which
devices add.
"""

import contextlib

import jax
import numpy as np
import padded
import pytest
import runs

from rlcd_jax import leaving, sharding
from rlcd_jax.job import trainer

# float32 sums in another order; the rates are large enough to carry it through a step.
TOLERANCE = 2e-4
FIELDS = {
    "distill__micro_batch": 8,
    "distill__checkpoint_every": 100,
    "policy__update_batch": 8,
    "policy__epochs": 1,
    "policy__steps": 2,
    "policy__checkpoint_every": 100,
    "policy__dev_prompts": 0,
    "policy__normalise_reward": False,
    "policy__kl_target": 0.0,
}
NEEDED = {"distill": ("pairs",), "policy": ("pairs", "preference")}
MESHES = {"distill": [(4, 2), (2, 2), (1, 1)], "policy": [(4, 2), (1, 1)]}


@contextlib.contextmanager
def devices(count):
    """Let a job see so many of the fake devices, all in the mesh's first axes."""
    make = sharding.make_mesh

    def fitting(data, fsdp, tensor, given=None, *, slices=1):
        return make(data, fsdp, tensor, given or jax.devices()[:count], slices=slices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", fitting)
        yield


def run_on(workdir, stage, meshes, monkeypatch):
    """Run a stage a step on each mesh, the last to its end; return its batches."""
    batches = []
    update = trainer.Trainer.update

    def noted(self, state, batch, *behind):
        tokens = np.where(batch["segments"] > 0, padded.laid_out(batch), 0)
        # Of a batch as a set of texts: where they lie depends on the devices.
        batches.append((int((batch["segments"] > 0).sum()), int(tokens.sum())))
        return update(self, state, batch, *behind)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "update", noted)
        for place, (data, fsdp) in enumerate(meshes, start=1):
            config = runs.tiny_config(mesh__data=data, mesh__fsdp=fsdp, **FIELDS)
            asked = place < len(meshes)
            patch.setattr(leaving, "asked", lambda asked=asked: asked)
            with devices(data * fsdp):
                leaves = pytest.raises(leaving.Left) if asked else _nothing()
                with leaves:
                    runs.stage_table.STAGES[stage].run(config, str(workdir))
    return batches


def _nothing():
    return contextlib.nullcontext()


@pytest.mark.parametrize("stage", ["distill", "policy"])
def test_a_run_goes_on_with_fewer_devices(stage, finished_run, tmp_path, monkeypatch):
    moved = runs.copy_run(finished_run, tmp_path / "moved", *NEEDED[stage])
    stays = runs.copy_run(finished_run, tmp_path / "stays", *NEEDED[stage])
    ours = run_on(moved, stage, MESHES[stage], monkeypatch)
    theirs = run_on(stays, stage, [(1, 1)], monkeypatch)
    assert ours == theirs
    rows = [runs.metric_rows(folder, stage) for folder in (moved, stays)]
    assert len(rows[0]) == len(rows[1]) >= len(MESHES[stage])
    for one, other in zip(*rows, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"stage"}:
            if "useful" in name or name.startswith("generate/"):
                continue  # how full rows are depends on how many devices share them
            assert one[name] == pytest.approx(
                other[name], rel=TOLERANCE, abs=TOLERANCE
            ), name
