"""Losses and gradients that are not finite: the run stops or leaves the update out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs

from rlcd_jax import checkpoint, leaving, metrics
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

    same, shown = update([1.0, np.nan, 1.0])
    assert shown[train_state.SKIPPED] == 1.0
    assert jax.tree.all(jax.tree.map(np.array_equal, same, state))
    other, shown = update([1.0, 2.0, 1.0])
    assert shown[train_state.SKIPPED] == 0.0 and other.updates == 1
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
    with monkeypatch.context() as patch:
        poison(patch, 2)
        yield patch


def poison(patch, *steps):
    """Make a label of the batches of these steps NaN."""
    right = packed_batches.Batches.arrays

    def arrays(self, index):
        batch = dict(right(self, index))
        if index + 1 in steps:
            batch["prob_2"] = np.full_like(batch["prob_2"], np.nan)
        return batch

    patch.setattr(packed_batches.Batches, "arrays", arrays)


def poison_ppo(patch, step):
    """Make the advantages of the second minibatch of a step of PPO infinite."""
    right = learning.minibatches

    def minibatches(frozen, texts, job, number):
        for place, batch in enumerate(right(frozen, texts, job, number)):
            if (number, place) == (step, 1):
                batch["advantages"] = np.full_like(batch["advantages"], np.inf)
            yield batch

    patch.setattr(learning, "minibatches", minibatches)


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


@pytest.mark.parametrize("rule", ["stop", "skip"])
def test_ppo_stops_or_skips(finished_run, tmp_path, monkeypatch, rule):
    poison_ppo(monkeypatch, 2)
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


def test_a_step_goes_back_to_the_last_regular_checkpoint_or_rollback():
    one = nonfinite.Rollbacks().one_more(7, every=5)
    assert one.spans == ((6, 7),)
    assert 5 not in one and 6 in one and 7 in one and 8 not in one
    assert one.one_more(9, every=5).spans[-1] == (8, 9)  # not 6 and 7 once more
    assert one.one_more(13, every=5).spans[-1] == (11, 13)
    assert nonfinite.Rollbacks().one_more(5, every=5).spans == ((1, 5),)
    assert nonfinite.Rollbacks.from_meta(json.loads(json.dumps(one.as_meta()))) == one


class Killed(BaseException):
    """As a signal that nobody handles."""


def kill_at(patch, stage, step):
    """Let the metrics of a step be the last thing that happens."""
    right = metrics.MetricWriter.write

    def write(self, number, values):
        out = right(self, number, values)
        if (self.stage, number) == (stage, step):
            raise Killed
        return out

    patch.setattr(metrics.MetricWriter, "write", write)


ROLLED = {"preference__nonfinite": "rollback", "preference__checkpoint_every": 2}


def test_a_run_goes_back_and_ends_the_same_if_it_is_killed(
    finished_run, tmp_path, monkeypatch
):
    config = runs.tiny_config(preference__epochs=4, **ROLLED)

    def workdir(name):
        return runs.copy_run(finished_run, tmp_path / name, "pairs")

    with monkeypatch.context() as patch:
        poison(patch, 4)
        whole = workdir("whole")
        summary = runs.run(config, whole, "preference")["preference"]
    assert summary["rollbacks"] == 1 and summary["left_out_steps"] == [3, 4]
    assert summary["skipped_updates"] == 2.0
    rows = runs.metric_rows(whole, "preference")
    assert [row["step"] for row in rows] == [*range(1, len(rows) + 1)]
    assert [row.get(nonfinite.ROLLED_BACK, 0.0) for row in rows[:6]] == [
        *[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    ]
    note = json.loads((whole / "preference/nonfinite/000004.json").read_text())
    assert note["goes_on_from"] == 2 and note["left_out"] == [3, 4]
    folder = whole / "preference" / "checkpoints"
    last = checkpoint.latest_step(folder)
    _, meta = checkpoint.restore(folder, last, {})
    assert meta[nonfinite.META] == [[3, 4]]

    killed = workdir("killed")
    with monkeypatch.context() as patch:
        poison(patch, 4)
        kill_at(patch, "preference", 5)
        with pytest.raises(Killed):
            runs.run(config, killed, "preference")
    # The batch is whole now, as a fault of the machine would be: still left out.
    again = runs.run(config, killed, "preference")["preference"]
    assert runs.without_clocks(again) == runs.without_clocks(summary)
    assert runs.metric_rows(killed, "preference") == rows
    arrays = [
        runs.saved_arrays(one / "preference" / "checkpoints", last)
        for one in (whole, killed)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    assert all(np.array_equal(arrays[0][k], arrays[1][k]) for k in arrays[0])


def test_a_run_that_left_amid_goes_back_as_far(finished_run, tmp_path, monkeypatch):
    config = runs.tiny_config(preference__epochs=4, **ROLLED)
    poison(monkeypatch, 4)
    workdirs = [
        runs.copy_run(finished_run, tmp_path / name, "pairs") for name in ("a", "b")
    ]
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: True)
        for _ in range(3):  # saved at 1, 2 and 3: the last is no regular one
            with pytest.raises(leaving.Left):
                runs.run(config, workdirs[0], "preference")
    for workdir in workdirs:
        runs.run(config, workdir, "preference")
    first, second = (runs.metric_rows(one, "preference") for one in workdirs)
    assert first == second and first[2][nonfinite.ROLLED_BACK] == 1.0


def test_rollbacks_are_bounded_and_then_the_run_stops(
    finished_run, tmp_path, monkeypatch
):
    config = runs.tiny_config(preference__epochs=4, **ROLLED)
    poison(monkeypatch, 2, 3, 4, 6)
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    told = "step 6: not finite: .* after 3 rollbacks, the most .* from step 5 and"
    for _ in range(2):  # the same command comes to the same
        with pytest.raises(ValueError, match=told):
            runs.run(config, workdir, "preference")
    _, meta = checkpoint.restore(workdir / "preference" / "checkpoints", 5, {})
    assert meta[nonfinite.META] == [[1, 2], [3, 3], [4, 4]]
    rows = runs.metric_rows(workdir, "preference")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]


def test_ppo_goes_back_and_ends_the_same_if_it_is_killed(
    finished_run, tmp_path, monkeypatch
):
    config = runs.tiny_config(
        policy__nonfinite="rollback", policy__steps=6, policy__checkpoint_every=2
    )
    workdirs = [
        runs.copy_run(finished_run, tmp_path / name, "pairs", "preference")
        for name in ("whole", "killed")
    ]
    with monkeypatch.context() as patch:
        poison_ppo(patch, 4)
        whole = runs.run(config, workdirs[0], "policy")["policy"]
        kill_at(patch, "policy", 5)
        with pytest.raises(Killed):
            runs.run(config, workdirs[1], "policy")
    killed = runs.run(config, workdirs[1], "policy")["policy"]
    assert runs.without_clocks(killed) == runs.without_clocks(whole)
    assert whole["left_out_steps"] == [3, 4] and whole["rollbacks"] == 1
    assert whole["skipped_updates"] == 8.0  # of two steps, four each
    rows = [runs.metric_rows(one, "policy") for one in workdirs]
    assert rows[0] == rows[1]
    assert [row.get(nonfinite.ROLLED_BACK, 0.0) for row in rows[0]] == [
        *[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    ]
    samples = [
        (one / "policy" / "samples" / "000004.jsonl").read_text() for one in workdirs
    ]
    before = (workdirs[0] / "policy" / "samples" / "000002.jsonl").read_text()
    assert samples == [before] * 2  # the policy of step 4 is that of step 2


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
