"""Losses and gradients that are not finite: the run stops or leaves the update out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs

from rlcd_jax.job import nonfinite, packed_batches
from rlcd_jax.ppo import learning, rollout
from rlcd_jax.training import train_state


def loss(params, batch):
    value = jnp.mean(params["layers"] * batch["x"])
    return value, {"loss": value}


def test_an_update_that_is_not_finite_changes_nothing():
    optimizer = optax.adam(0.1)
    state = train_state.create({"layers": jnp.ones(3)}, optimizer)

    def update(x):
        batch = {"x": jnp.asarray(x), "mask": jnp.ones(3, bool)}
        return train_state.update(
            state, batch, optimizer, loss, num_micro=1, weight="mask"
        )

    same, metrics = update([1.0, np.nan, 1.0])
    assert metrics[train_state.SKIPPED] == 1.0
    assert jax.tree.all(jax.tree.map(np.array_equal, same, state))
    other, metrics = update([1.0, 2.0, 1.0])
    assert metrics[train_state.SKIPPED] == 0.0 and other.updates == 1
    assert not np.array_equal(other.params["layers"], state.params["layers"])


def test_norms_are_by_layer():
    params = {"layers": {"q": jnp.ones((2, 3, 3))}, "norm": jnp.full(4, 2.0)}
    found = train_state.norms(params)
    np.testing.assert_allclose(found["layers/q"], [3.0, 3.0])
    np.testing.assert_allclose(found["norm"], [4.0])


def test_a_watch_lets_finite_metrics_through(tmp_path):
    watch = nonfinite.Watch("stop", tmp_path, "policy")
    assert watch.finite({"loss": 1.0, nonfinite.SKIPPED: 0.0}, 3, facts={}) == {
        "loss": 1.0,
        nonfinite.SKIPPED: 0.0,
    }
    assert not (tmp_path / nonfinite.FOLDER).exists()


@pytest.fixture
def poisoned(monkeypatch):
    """Make a label of the second batch NaN while the patch holds."""
    right = packed_batches.Batches.arrays

    def arrays(self, index):
        batch = dict(right(self, index))
        if index == 1:
            batch["prob_2"] = np.full_like(batch["prob_2"], np.nan)
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(packed_batches.Batches, "arrays", arrays)
        yield patch


def test_a_run_stops_leaves_a_note_and_goes_on_to_the_same(
    finished_run, tmp_path, poisoned
):
    config = runs.tiny_config(preference__checkpoint_every=100)
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    told = r"preference, step 2: not finite: .*loss = nan.*goes on from step 1 and"
    with pytest.raises(ValueError, match=told):
        runs.run(config, workdir, "preference")
    path = workdir / "preference" / nonfinite.FOLDER / "000002.json"
    note = json.loads(path.read_text())
    assert len(set(note["rows"])) == 4 and all(map(len, note["ids"]))
    assert note["goes_on_from"] == 1 and note["seed"] == config.seed
    layers = note["norms"]["parameters"]["preference/trunk/layers/q"]
    assert len(layers) == 2 and all(isinstance(one, float) for one in layers)
    grads = [one for norm in note["norms"]["gradients"].values() for one in norm]
    assert "nan" in grads
    poisoned.undo()  # whatever it was is mended: the same command goes on
    runs.run(config, workdir, "preference")
    whole = runs.copy_run(finished_run, tmp_path / "whole", "pairs")
    runs.run(config, whole, "preference")
    rows = [runs.metric_rows(one, "preference") for one in (workdir, whole)]
    assert rows[0] == rows[1]


def test_a_run_that_skips_counts_what_it_left_out(finished_run, tmp_path, poisoned):
    config = runs.tiny_config(preference__nonfinite="skip")
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    summary = runs.run(config, workdir, "preference")["preference"]
    assert summary["skipped_updates"] == 1.0
    rows = runs.metric_rows(workdir, "preference")
    assert [row[nonfinite.SKIPPED] for row in rows] == [
        float(row["step"] == 2) for row in rows
    ]
    assert "preference/loss" not in rows[1] and "preference/loss" in rows[2]
    assert (workdir / "preference" / nonfinite.FOLDER / "000002.json").exists()


@pytest.mark.parametrize("rule", nonfinite.RULES)
def test_ppo_stops_or_skips(finished_run, tmp_path, monkeypatch, rule):
    right = learning.minibatches

    def minibatches(frozen, texts, job, step):
        for number, batch in enumerate(right(frozen, texts, job, step)):
            if (step, number) == (2, 1):
                batch["advantages"] = np.full_like(batch["advantages"], np.inf)
            yield batch

    monkeypatch.setattr(learning, "minibatches", minibatches)
    config = runs.tiny_config(policy__nonfinite=rule)
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    path = workdir / "policy" / nonfinite.FOLDER / "000002.json"
    if rule == "stop":
        with pytest.raises(ValueError, match="policy, step 2: not finite"):
            runs.run(config, workdir, "policy")
        note = json.loads(path.read_text())
        assert note["minibatch"] == 1 and len(note["prompts"]) == 8
        return
    summary = runs.run(config, workdir, "policy")["policy"]
    assert summary["skipped_updates"] == 1.0 and path.exists()
    rows = runs.metric_rows(workdir, "policy")
    assert [row[nonfinite.SKIPPED] for row in rows[:3]] == [0.0, 0.25, 0.0][: len(rows)]


def test_the_engine_is_held_against_the_trainer():
    drawn = [(-1.0, -2.0), (-0.5,)]
    read = np.array([[-1.0, -2.1, np.nan], [-0.5, np.nan, np.nan]])
    found = rollout.engine_check(drawn, read, tolerance=0.1)
    assert found["rollout/engine_gap_max"] == pytest.approx(0.1)
    assert found["rollout/engine_gap_mean"] == pytest.approx(0.1 / 3)
    with pytest.raises(ValueError, match="differ by 0.0333 nats a token in the mean"):
        rollout.engine_check(drawn, read, tolerance=0.01)
    with pytest.raises(ValueError, match="differ by nan"):
        rollout.engine_check([(np.nan,)], read[:1], tolerance=1.0)
    assert rollout.engine_check([()], read[:1], tolerance=0.1) == dict.fromkeys(
        found, 0
    )


def test_a_run_writes_how_far_the_engine_is_from_the_trainer(finished_run):
    rows = runs.metric_rows(finished_run, "policy")
    assert rows and all(0 <= row["rollout/engine_gap_mean"] < 1e-3 for row in rows)
