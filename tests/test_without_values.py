"""The policy stage without a value model: none is made, saved, or planned."""

import numpy as np
import pytest
import runs

from rlcd_jax import leaving, metrics, record_files
from rlcd_jax.ppo import acting, learning
from rlcd_jax.stages import evaluate_policy

FIELDS = {
    "policy__kl_target": 0.0,
    "policy__rollouts": 8,
    "policy__samples_per_prompt": 4,
    "evaluate__judges": ("lexicon",),
}


@pytest.fixture(scope="module")
def grpo_run(finished_run, tmp_path_factory):
    """Return the workdir of GRPO on the shared preference model, and its draws."""
    workdir = tmp_path_factory.mktemp("grpo") / "run"
    runs.copy_run(finished_run, workdir, "pairs", "preference")
    drawn = []
    draw = acting.Actor.draw_prompts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            acting.Actor,
            "draw_prompts",
            lambda self, step: drawn.append(draw(self, step)) or drawn[-1],
        )
        runs.run(runs.tiny_config("grpo", **FIELDS), workdir, "policy", "evaluate")
    return workdir, drawn


def test_a_run_trains_the_policy_alone(grpo_run):
    workdir, drawn = grpo_run
    rows = metrics.read_metrics(workdir, "policy")
    assert [row["step"] for row in rows] == [1, 2]
    for row, prompts in zip(rows, drawn, strict=True):
        assert not [name for name in row if "value" in name or "return" in name]
        assert row["rollout/group_reward_std"] > 0
        assert 0 <= row["rollout/flat_groups"] <= 1
        ids = [prompt.id for prompt in prompts]
        assert ids == [one for one in ids[::4] for _ in range(4)]
    # The first minibatch of a step sees the policy of the step: its KL is that of the
    # rollout, and at the first step 0.
    assert rows[0]["rollout/k1_sum_mean"] == pytest.approx(0.0, abs=1e-4)
    assert rows[1]["policy/kl_loss"] > 0
    saved = runs.saved_arrays(workdir / "policy/checkpoints", 2)
    assert saved and not [name for name in saved if name.startswith("value")]
    answers = record_files.read_jsonl(
        workdir / "evaluate/samples.jsonl", evaluate_policy.Answer
    )
    assert {one.system for one in answers} == {"base", "grpo"}


def test_resumed_equals_uninterrupted(grpo_run, tmp_path, monkeypatch):
    whole, _ = grpo_run
    workdir = runs.copy_run(whole, tmp_path / "run", "pairs", "preference")
    config = runs.tiny_config("grpo", **FIELDS)
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: True)
        with pytest.raises(leaving.Left):
            runs.run(config, workdir, "policy")
    runs.run(config, workdir, "policy")
    assert runs.metric_rows(workdir, "policy") == runs.metric_rows(whole, "policy")
    one, two = (
        runs.saved_arrays(w / "policy/checkpoints", 2) for w in (whole, workdir)
    )
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_rloo_pays_kl_in_the_reward(finished_run, tmp_path, monkeypatch):
    """Each reply is paid its score less KL, over the mean of the other three."""
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    config = runs.tiny_config("rloo", **FIELDS, policy__kl_coef=0.5, stages=("policy",))
    seen = []
    batches = learning.minibatches

    def watched(frozen, *given):
        seen.append(frozen)
        yield from batches(frozen, *given)

    monkeypatch.setattr(learning, "minibatches", watched)
    runs.run(config, workdir, "policy")
    frozen = seen[-1]
    kl = np.where(frozen.mask, frozen.logprobs - frozen.ref_logprobs, 0).sum(axis=1)
    assert np.abs(kl).max() > 1e-3
    paid = (np.asarray(frozen.scores) - 0.5 * kl).reshape(-1, 4)
    others = (paid.sum(axis=1, keepdims=True) - paid) / 3
    np.testing.assert_allclose(
        np.asarray(frozen.advantages)[:, 0],
        (paid - others).reshape(-1),
        rtol=1e-4,
        atol=1e-4,
    )
