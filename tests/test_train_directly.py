"""The policy on pairs: what it reads, what it learns, and that it goes on exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
import runs

from rlcd_jax import leaving, metrics, record_files, records
from rlcd_jax.job import setup, supervised
from rlcd_jax.preference import data, pair_ids
from rlcd_jax.stages import train_directly

FIELDS = {
    "direct__learning_rate": 1e-3,
    "direct__batch_size": 2,
    "direct__epochs": 3,
    "direct__checkpoint_every": 4,
    "direct__eval_every": 2,
    "stages": ("simulate", "direct", "evaluate"),
    "evaluate__systems": ("base", "direct"),
}


@pytest.fixture(scope="module")
def direct_run(finished_run, tmp_path_factory):
    """Return the workdir of a run on the pairs of the shared one, to its table."""
    workdir = tmp_path_factory.mktemp("direct") / "run"
    runs.copy_run(finished_run, workdir, "pairs")
    summaries = runs.run(runs.tiny_config(**FIELDS), workdir, "direct", "evaluate")
    return workdir, summaries


@pytest.fixture(scope="module")
def job():
    with runs.devices_by_mesh():
        return setup.load_job(runs.tiny_config(**FIELDS))


def test_a_run_ends_with_a_row_of_the_table(direct_run):
    workdir, summaries = direct_run
    names = [row["name"] for row in summaries["evaluate"]["table"]["rows"]]
    assert names == ["base", "direct"]
    told = summaries["direct"]
    assert (told["train_pairs"], told["held_out_pairs"], told["updates"]) == (6, 2, 9)
    accuracy = told["held_out_accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    read = record_files.read_jsonl(
        workdir / "direct" / records.HELD_OUT, records.HeldOutPair
    )
    right = [(one.reward_2 - one.reward_1) * (one.prob_2 - 0.5) > 0 for one in read]
    assert (len(read), sum(right) / 2) == (2, accuracy["value"])
    none = {"dropped": 0, "shortened": 0, "identical": 0}
    assert told["too_long"] == {
        "prompts": {"of": 8} | none,
        "training pairs": {"of": 6} | none,
        "held-out pairs": {"of": 2} | none,
    }
    rows = metrics.read_metrics(workdir, "direct")
    assert [row["step"] for row in rows] == list(range(1, 10))
    # It begins at the reference and learns its few pairs by heart.
    assert rows[0]["direct/loss"] == pytest.approx(np.log(2.0), rel=1e-4)
    assert rows[-1]["direct/loss"] < 0.9 * np.log(2.0)
    assert rows[-1]["direct/accuracy"] == 1.0
    looks = [row["step"] for row in rows if "direct/held_out_loss" in row]
    assert looks == [2, 4, 6, 8, 9]
    assert "direct" in (workdir / "evaluate/table.md").read_text()


def log_prob(job, params, ids, start):
    """Return log P of the tokens from a start on, a whole text at once, by numpy."""
    tokens = jnp.array([ids])
    logprobs = padded.text_logprobs(
        params, job.cfg, tokens, jnp.ones_like(tokens, bool), chunk_tokens=64
    )
    return float(np.asarray(logprobs, np.float64)[0, start:].sum())


def test_the_reference_is_the_base_model_on_the_reply_and_its_end(
    finished_run, tmp_path, job
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    rows, _ = data.load_pairs(job.config, workdir, job)
    read = train_directly.training_rows(job.config, workdir, job)
    base = job.load_base()
    for row, one in zip(rows, read, strict=True):
        pair = one.pair
        texts = zip((row.reply_1, row.reply_2), (pair.ids_1, pair.ids_2), strict=True)
        for k, (reply, ids) in enumerate(texts):
            start = pair.starts[k]
            assert ids[-1] == job.text_tokenizer.eos_id
            written = job.text_tokenizer.decode(ids[start:-1])
            assert written.startswith(f" {reply.strip()}")
            assert written.endswith(job.task.human_marker)
            assert one.reference[k] == pytest.approx(
                log_prob(job, base, ids, start), rel=1e-4
            )


def test_what_is_held_out_is_held_out_of_the_preference_model_too(
    finished_run, tmp_path, job
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    sides = data.load_pairs(job.config, workdir, job)
    ours, theirs = (
        [
            [row.id for row in pair_ids.to_tokens(job, rows, stage).rows]
            for rows in sides
        ]
        for stage in ("direct", "preference")
    )
    assert ours == theirs


@pytest.mark.parametrize("loss", ["ipo", "kto"])
def test_other_losses_begin_where_their_formula_says(finished_run, tmp_path, loss):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config(**FIELDS, direct__loss=loss)
    with config.unlocked():
        config.direct.epochs = 1
    runs.run(config, workdir, "direct")
    first = metrics.read_metrics(workdir, "direct")[0]["direct/loss"]
    assert first == pytest.approx({"ipo": 25.0, "kto": 0.5}[loss], rel=1e-3)


def test_resumed_equals_uninterrupted(direct_run, tmp_path, monkeypatch):
    whole, _ = direct_run
    workdir = runs.copy_run(whole, tmp_path / "run", "pairs")
    config = runs.tiny_config(**FIELDS)
    left = iter([False] * 5 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: next(left))
        with pytest.raises(leaving.Left):
            runs.run(config, workdir, "direct")
    runs.run(config, workdir, "direct")
    assert runs.metric_rows(workdir, "direct") == runs.metric_rows(whole, "direct")
    one, two = (
        runs.saved_arrays(w / "direct/checkpoints", 9) for w in (whole, workdir)
    )
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_an_update_of_a_run_can_be_made_again(direct_run, job):
    """What replaying asks of a stage's file."""
    workdir, _ = direct_run
    rows = train_directly.training_rows(job.config, workdir, job)
    batches = supervised.make_batches(
        job.config, "direct", rows, train_directly.collate(job)
    )
    program = train_directly.make_trainer(job, batches.total)
    state = program.create(train_directly.start_params(job))
    _, shown = program.update(state, batches.arrays(0))
    row = metrics.read_metrics(workdir, "direct")[0]
    assert float(shown["direct/loss"]) == pytest.approx(row["direct/loss"], rel=1e-6)


def test_too_few_pairs_are_refused_with_where_they_went(finished_run, tmp_path):
    config = runs.tiny_config(**FIELDS | {"direct__batch_size": 64})
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    with pytest.raises(
        ValueError, match="direct: 6 training rows.*simulate made 8 pairs"
    ):
        runs.run(config, workdir, "direct")


def test_per_token_divides_what_both_models_say_by_the_tokens_of_a_reply(
    finished_run, tmp_path, job
):
    """Two pairs by hand: the score of the reference, the loss, and held-out rewards."""
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config(**FIELDS, direct__per_token=True, direct__loss="ipo")
    own = dataclasses.replace(job, config=config)
    rows = train_directly.training_rows(config, workdir, own)[:2]
    base = job.load_base()
    other = jax.tree.map(lambda leaf: 1.5 * leaf, base)
    ratios, plain = np.zeros((2, 2)), np.zeros((2, 2))
    for n, row in enumerate(rows):
        for k, ids in enumerate((row.pair.ids_1, row.pair.ids_2)):
            start = row.pair.starts[k]
            said = [log_prob(job, one, ids, start) for one in (base, other)]
            count = len(ids) - start
            assert row.reference[k] == pytest.approx(said[0] / count, rel=1e-4)
            plain[n, k] = said[1] - said[0]
            ratios[n, k] = plain[n, k] / count
    assert np.abs(plain / ratios).min() > 2  # replies have several tokens
    labels = np.array([row.prob_2 for row in rows])
    beta = config.direct.beta
    off = ratios[:, 1] - ratios[:, 0] - (2 * labels - 1) / (2 * beta)
    with jax.set_mesh(job.mesh):
        loss, _ = train_directly.direct_loss(own)(
            {"policy": other}, train_directly.collate(own)(rows)
        )
    assert float(loss) == pytest.approx(np.mean(off**2), rel=1e-4)
    pairs, score = [row.pair for row in rows], train_directly.reply_scorer(own)
    rewards = train_directly.implicit_rewards(own, score, rows, other, pairs)
    np.testing.assert_allclose(rewards, beta * ratios, rtol=1e-3, atol=1e-5)
