"""weighted_rewards: one reward of several preference models; by hand and in a run."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from test_checks import config_of

from rlcd_jax import record_files
from rlcd_jax.checks import rules, supplies
from rlcd_jax.job import contents, roles, setup
from rlcd_jax.ppo import acting, choosing, step_notes, weighted_rewards
from rlcd_jax.preference import model

RAW = {
    "own": np.array([1.0, 3.0], np.float32),
    "kind": np.array([50.0, 10.0], np.float32),
}


def test_rewards_by_hand():
    scales = weighted_rewards.measure(RAW)
    assert scales == {"own": (1.0, -2.0), "kind": (1 / 20, -1.5)}
    apart = weighted_rewards.normalised(RAW, scales)
    np.testing.assert_allclose(apart["own"], [-1, 1])
    np.testing.assert_allclose(apart["kind"], [1, -1])
    got = weighted_rewards.weighted(apart, {"own": 0.25, "kind": 0.5})
    np.testing.assert_allclose(got, [0.25, -0.25])
    # Later replies are in the unit of the first ones.
    later = {"own": np.array([5.0]), "kind": np.array([30.0])}
    apart = weighted_rewards.normalised(later, scales)
    assert weighted_rewards.metrics(apart) == {"reward/own": 3.0, "reward/kind": 0.0}
    with pytest.raises(ValueError, match="the reward 'kind': 2 scores with"):
        weighted_rewards.measure(RAW | {"kind": np.ones(2)})


def test_the_scale_of_a_model_does_not_matter():
    weights = {"own": 0.3, "kind": 0.7}

    def total(raw):
        scales = weighted_rewards.measure(raw)
        apart = weighted_rewards.normalised(raw, scales)
        return weighted_rewards.weighted(apart, weights)

    other = RAW | {"kind": 1000 * RAW["kind"] - 7}
    np.testing.assert_allclose(total(other), total(RAW), rtol=1e-5)


def test_notes_keep_the_first_scales_and_say_nothing_of_one_model():
    section = config_of().policy
    notes = step_notes.Notes.from_meta({}, section)
    assert set(notes.as_meta()) == {"kl_coef", "gain", "bias"}
    one = notes.measured({"own": RAW["own"]})
    assert (one.gain, one.bias, dict(one.scales)) == (1.0, -2.0, {})
    assert set(one.as_meta()) == {"kl_coef", "gain", "bias"}
    both = notes.measured(RAW)
    assert both.measured({"own": RAW["kind"], "kind": RAW["own"]}) is both
    again = step_notes.Notes.from_meta(json.loads(json.dumps(both.as_meta())), section)
    for name, values in both.normalised(RAW).items():
        np.testing.assert_array_equal(again.normalised(RAW)[name], values)


def test_entries_are_read_with_paths_of_any_kind():
    entry = weighted_rewards.Entry
    assert weighted_rewards.read(["a=/x:y/z:0.5", "b.c-d=runs/b=c:2"]) == [
        entry("a", "/x:y/z", 0.5),
        entry("b.c-d", "runs/b=c", 2.0),
    ]
    for text in ("a=x", "a=x:0", "a=x:0.0", "a=x:-1", "=x:1", "a b=x:1", "a=:1"):
        with pytest.raises(ValueError, match="accepted: 'NAME=RUN:WEIGHT'"):
            weighted_rewards.read([text])
    for texts in (["own=x:1"], ["a=x:1", "a=y:1"]):
        with pytest.raises(ValueError, match="give each a name of its own"):
            weighted_rewards.read(texts)


@pytest.mark.parametrize(
    "own, words",
    [
        ({"rewards": ("own=x:1",)}, "two rewards called 'own'"),
        ({"rewards": ("a=x:1",), "normalise_reward": False}, "rewards of one unit"),
        ({"reward_weight": 0.5}, "against those of policy.rewards, which is empty"),
    ],
)
def test_rules_of_several_rewards(own, words):
    config = config_of(**{f"policy__{name}": value for name, value in own.items()})
    assert any(words in line for line in rules.problems(config, ("policy",)))


# --- in a run -------------------------------------------------------------------------


def with_rewards(run, **more):
    return runs.tiny_config(
        policy__rewards=(f"turned={run}:0.25",),
        policy__reward_weight=0.75,
        policy__steps=2,
        policy__checkpoint_every=1,
        policy__dev_prompts=2,
        **more,
    )


def test_a_policy_has_the_sum_of_two_models_and_each_is_told_apart(
    finished_run, tmp_path, monkeypatch
):
    """The second model is the first with its head turned round."""
    other = shutil.copytree(finished_run, tmp_path / "other")
    restore = model.restore

    def turned(job, workdir):
        params = restore(job, workdir)
        if str(workdir) != str(other):
            return params
        return {**params, "head": jax.tree.map(jnp.negative, params["head"])}

    monkeypatch.setattr(model, "restore", turned)
    config = with_rewards(other)
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    summary = runs.run(config, workdir, "policy")["policy"]
    rows = runs.metric_rows(workdir, "policy")
    assert len(rows) == 2
    assert rows[0]["reward/own"] == pytest.approx(0, abs=1e-5)  # its own unit
    for row in rows:
        assert row["reward/turned"] == pytest.approx(-row["reward/own"], abs=1e-5)
        assert row["rollout/reward_mean"] == pytest.approx(
            0.5 * row["reward/own"], abs=1e-5
        )
    assert rows[0]["rollout/score_std"] == pytest.approx(0.5, abs=1e-3)
    assert summary["dev/reward_mean"] == pytest.approx(
        0.5 * summary["dev/reward/own"], abs=1e-5
    )
    saved = sorted((workdir / "policy" / "samples").glob("*.jsonl"))[-1]
    replies = [json.loads(line) for line in saved.read_text().splitlines()]
    assert len(replies) == 2
    for row in replies:
        assert row["score"] == pytest.approx(0.5 * row["rewards"]["own"], abs=1e-5)
    inputs = contents.inputs(config, workdir, "policy")
    assert inputs[f"policy.rewards, {config.policy.rewards[0]}"].startswith("step ")
    # A run that is stopped after its first step ends with the same weights: the scales
    # are those of the first rollouts.
    again = runs.copy_run(finished_run, tmp_path / "again", "pairs", "preference")
    shutil.copytree(workdir / "policy", again / "policy")
    shutil.copy(workdir / "metrics.jsonl", again)
    (again / "policy" / "DONE").unlink()
    shutil.rmtree(again / "policy" / "checkpoints" / "2")
    runs.run(config, again, "policy")
    one, two = (
        runs.saved_arrays(run / "policy" / "checkpoints", 2) for run in (workdir, again)
    )
    np.testing.assert_equal(two, one)


def look_at(config, workdir):
    with runs.devices_by_mesh():
        job = setup.load_job(config)
    jobs = {role: job.of(role) for role in roles.ROLES}
    return supplies.Look(config, jobs, workdir, ("policy",), ("policy",))


def test_models_that_cannot_be_part_of_a_reward_are_told_first(finished_run, tmp_path):
    def told(run, **more):
        return list(supplies.sources(look_at(with_rewards(run, **more), finished_run)))

    assert told(finished_run) == []
    (line,) = told(tmp_path / "nowhere")
    assert "holds no finished preference model" in line
    other = runs.copy_run(finished_run, tmp_path / "other", "preference")
    config = json.loads((other / "config.json").read_text())
    record_files.write_json(other / "config.json", config | {"task_format": "chat"})
    (line,) = told(other)
    assert "its dialogues have format 'chat', and those of this run 'dialogue'" in line
    (other / "preference" / "DONE").unlink()
    assert "accepted: the workdir of a run whose stage" in told(other)[0]


def test_dev_replies_have_the_reward_of_one_model_as_it_said_it(monkeypatch):
    """Numbers of before: no scale is asked for where there is one model."""
    actor = acting.Actor.__new__(acting.Actor)
    monkeypatch.setattr(actor, "all_rewards", lambda _: {"own": RAW["own"]})
    notes = step_notes.Notes(kl_coef=0.0, gain=None, bias=0.0)
    reward, apart = actor.shown_rewards([], notes)
    assert reward is RAW["own"] and apart == {}
    assert choosing.answer_dev.__defaults__ == (None,)
