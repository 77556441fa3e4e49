"""ppo.learning and ppo.acting: draws that repeat, batches that are whole, guards."""

import jax
import numpy as np
import pytest
import runs

from rlcd_jax import checkpoint
from rlcd_jax.job import setup
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import acting, learning


def test_two_rollouts_of_one_prompt_differ_and_one_can_be_drawn_again():
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
        actor = acting.Actor(job)
        params = job.load_base()
        dialogue = actor.prompts[0]
        first, twin = actor.generate(params, [dialogue, dialogue], step=1)
        later = actor.generate(params, [dialogue], step=2)[0]
        again = actor.generate(params, [dialogue], step=1)[0]
    assert first.reply.tokens != twin.reply.tokens
    assert later.reply.tokens != first.reply.tokens
    assert again.reply.tokens == first.reply.tokens


def test_policy_stops_when_the_rollout_was_tampered_with(
    finished_run, tmp_path, monkeypatch
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    batches = learning.minibatches

    def tampered(frozen, config, step):
        for batch in batches(frozen, config, step):
            yield {**batch, "logprobs": batch["logprobs"] + 0.1}

    monkeypatch.setattr(learning, "minibatches", tampered)
    with pytest.raises(RuntimeError, match="ratio_max_deviation = 0.09"):
        runs.run(runs.tiny_config(), workdir, "policy")
    assert checkpoint.latest_step(workdir / "policy/checkpoints") is None


def test_minibatches_take_each_row_once_an_epoch(finished_run):
    config = runs.tiny_config()
    rows = config.policy.rollouts
    packed = learning.packing.pack(
        [[1, 2]] * rows,
        [[3] * (index + 1) for index in range(rows)],
        prompt_length=3,
        response_length=rows,
        pad_id=0,
    )
    zeros = np.zeros((rows, rows), np.float32)
    frozen = learning.rollout.Rollout(packed, *[zeros] * 6, scores=np.zeros(rows))
    lengths = [
        batch["response_mask"].sum(axis=1).tolist()
        for batch in learning.minibatches(frozen, config, step=1)
    ]
    per_epoch = rows // config.policy.update_batch
    epochs = [
        sum(lengths[start : start + per_epoch], [])
        for start in range(0, len(lengths), per_epoch)
    ]
    assert len(epochs) == config.policy.epochs
    for epoch in epochs:
        assert sorted(epoch) == list(range(1, rows + 1))


def test_value_model_starts_at_zero_and_policy_at_the_base(finished_run):
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
    base = job.load_base()
    value = heads.value_from_preference(
        heads.scalar_from_trunk(job.cfg, base, jax.random.key(0))
    )
    tokens = np.arange(8, dtype=np.int32)[None]
    values = heads.scalar_per_token(value, job.cfg, tokens, np.ones((1, 8), bool))
    np.testing.assert_array_equal(values, 0.0)
    assert llama.param_specs(job.cfg).keys() == base.keys()
