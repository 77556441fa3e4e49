"""ppo.learning and ppo.acting: draws that repeat, batches that are whole, guards."""

import jax
import numpy as np
import pytest
import runs

from rlcd_jax import checkpoint
from rlcd_jax.job import setup
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import acting, learning, reply_rows


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

    def tampered(*given):
        for batch in batches(*given):
            yield {**batch, "logprobs": batch["logprobs"] + 0.1}

    monkeypatch.setattr(learning, "minibatches", tampered)
    with pytest.raises(RuntimeError, match="ratio_max_deviation = 0.09"):
        runs.run(runs.tiny_config(), workdir, "policy")
    assert checkpoint.latest_step(workdir / "policy/checkpoints") is None


def test_minibatches_take_each_row_once_an_epoch_with_its_tokens():
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
    section = job.config.policy
    rows, width = section.rollouts, section.reply_tokens
    texts = [reply_rows.text(job, [1, 2], [3 + row] * (row + 1)) for row in range(rows)]
    mask = np.arange(width) < np.arange(1, rows + 1)[:, None]
    number = np.arange(rows, dtype=np.float32)[:, None] * np.ones(width, np.float32)
    frozen = learning.rollout.Rollout(mask, *[number] * 6, scores=np.zeros(rows))
    taken, sizes = [], set()
    for batch in learning.minibatches(frozen, texts, job, 1):
        sizes.add(batch["tokens"].shape)
        states = np.take_along_axis(batch["tokens"], batch["states"] + 1, axis=1)
        for place, row in enumerate(batch["values"][:, 0].astype(int)):
            counted = batch["response_mask"][place]
            assert counted.sum() == row + 1
            read = states.reshape(-1)[batch["at"][place]][counted]
            assert read.tolist() == [3 + row] * (row + 1)
            taken.append(row)
    assert len(sizes) == 1
    assert len(taken) == section.epochs * rows
    for epoch in range(section.epochs):
        assert sorted(taken[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_a_prompt_without_a_token_is_refused():
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
    with pytest.raises(ValueError, match="a prompt has no token"):
        reply_rows.text(job, [], [1])


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
