"""Damage of a checkpoint is noticed, whatever file it is in; the step before is taken.

The property: whichever file of the newest step is changed, cut, emptied or deleted, a
training goes on from that step as it was saved, or from the one before, and says so.
"""

import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from rlcd_jax import checkpoint, retention, sharding
from rlcd_jax.job import trainer
from rlcd_jax.models import table


def specs():
    return {
        "embed": table.ParamSpec((64, 16), ("vocab", "embed"), "normal"),
        "norm": table.ParamSpec((16,), ("embed",), "ones"),
    }


def loss(params, batch):
    del batch
    value = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return value, {}


@pytest.fixture(scope="module")
def program():
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    return trainer.Trainer(
        mesh, {"policy": specs()}, optax.adam(1e-3), loss, num_micro=1, weight="w"
    )


def params_of(seed):
    rng = np.random.default_rng(seed)
    made = {
        name: jnp.asarray(rng.normal(size=spec.shape), jnp.float32)
        for name, spec in specs().items()
    }
    return {"policy": made}


@pytest.fixture(scope="module")
def saved(program, tmp_path_factory):
    """Return a folder with steps 1 and 2, of other numbers each."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with checkpoint.Checkpointer(folder, asynchronous=False) as saver:
        for step in (1, 2):
            state = program.create(params_of(step))
            program.save(saver, step, state, {"kl_coef": 0.004 * step})
    return folder


FILES = (  # of a step, all but names that differ from run to run
    "_CHECKPOINT_METADATA",
    "meta/metadata",
    "hashes/metadata",
    "policy/_METADATA",
    "policy/manifest.ocdbt",
    "policy/d/*",
    "policy/ocdbt.process_0/d/*",
    "optimizer/_METADATA",
    "optimizer/ocdbt.process_0/d/*",
)
# What a restore reads; the others may be damaged without harm.
READ = ("meta/metadata", "hashes/metadata", "policy/_METADATA", "policy/manifest.ocdbt")


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 0x10
    path.write_bytes(bytes(data))


DAMAGES = {
    "first byte": lambda path: flip(path, 0.0),
    "bit in the middle": lambda path: flip(path, 0.5),
    "bit near the end": lambda path: flip(path, 0.9),
    "cut to half": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
    ),
    "empty": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


def go_on(program, folder):
    with checkpoint.Checkpointer(folder) as saver:
        return program.start_or_resume(saver, lambda: params_of(0))


def assert_is_step(program, state, step, meta):
    expected = program.create(params_of(step))
    for one, other in zip(
        jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert meta == {"kl_coef": 0.004 * step}


@pytest.mark.parametrize("name", FILES)
def test_damage_of_a_file_of_the_newest_step_computes_nothing_wrong(
    name, program, saved, tmp_path, caplog
):
    where = [path for path in sorted((saved / "2").glob(name)) if path.is_file()]
    assert where, f"Orbax writes no {name} any more"
    largest = max(where, key=lambda path: path.stat().st_size)
    noticed = 0
    for number, (damage, act) in enumerate(DAMAGES.items()):
        folder = tmp_path / str(number)
        shutil.copytree(saved, folder)
        act(folder / largest.relative_to(saved))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            state, step, meta = go_on(program, folder)
        assert step in (1, 2), damage
        assert_is_step(program, state, step, meta)
        if step == 1:
            noticed += 1
            assert f"checkpoint {folder}/2 is damaged" in caplog.text, damage
            assert "goes on from step 1" in caplog.text
            assert (folder / ".damaged-2").is_dir()
            assert checkpoint.latest_step(folder) == 1
    assert noticed or name not in READ


def test_the_parameter_that_differs_is_named(program, saved, tmp_path, monkeypatch):
    """A bit that the format of the files does not miss is found in the numbers."""
    whole = ocp.Checkpointer.restore

    def restore(self, *args, **kwargs):
        restored = whole(self, *args, **kwargs)
        policy = restored["policy"] if "policy" in restored else {}
        if isinstance(policy.get("norm"), jax.Array):  # and not what its hashes say
            norm = np.array(policy["norm"])
            norm.view(np.uint32)[3] ^= 1
            restored["policy"]["norm"] = jnp.asarray(norm)
        return restored

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore)
    wanted = {"policy": program.state_shapes.params["policy"]}
    with pytest.raises(checkpoint.Damaged, match="policy/norm is not as it was saved"):
        checkpoint.restore(saved, 2, wanted)


@pytest.mark.parametrize("item", ["policy", "optimizer", "meta", "hashes"])
def test_a_half_deleted_step_is_gone_on_from_without(item, program, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "2" / item)
    state, step, meta = go_on(program, tmp_path / "run")
    assert step == 1
    assert_is_step(program, state, 1, meta)


def test_where_no_step_is_whole_nothing_is_made_up(program, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    for step in (1, 2):
        (folder / str(step) / "policy" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint in .* is whole: steps 1, 2"):
        go_on(program, folder)
    assert pathlib.Path(folder, ".damaged-1").is_dir()


def test_files_of_a_damaged_step_go_when_the_stage_is_done(program, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    (folder / "2" / "meta" / "metadata").unlink()
    go_on(program, folder)
    trainer.drop_moments(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["1"]


def test_steps_saved_because_a_run_left_take_no_place_of_others():
    def left(steps, policy):
        there = []
        for step in steps:
            there.append(type("Info", (), {"step": step})())
            stay = policy.should_preserve(there, context=None)
            there = [one for one, kept in zip(there, stay, strict=True) if kept]
        return [one.step for one in there]

    policy = retention.Regular(keep=2, every=20, last=50)
    undisturbed = left([20, 40, 50], policy)
    assert undisturbed == [40, 50]
    assert left([7, 20, 33, 40, 45, 50], policy) == undisturbed
    assert left([7, 20, 33], policy) == [20, 33]


def test_a_deletion_that_a_kill_ended_half_way_is_ended(program, saved, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "2", folder / "3")  # whole, and so 1 was to go
    (folder / "1" / "policy" / "manifest.ocdbt").unlink()
    (folder / ".dropped-0").mkdir()
    keep = retention.Regular(keep=2, every=1, last=9)
    with checkpoint.Checkpointer(folder, regular=keep) as saver:
        assert saver.steps() == [2, 3]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
