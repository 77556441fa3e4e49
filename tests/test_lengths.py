"""Tests of rlcd_jax.job.lengths, and of how many long texts are read at once."""

import dataclasses

import hypothesis
import pytest
import runs
from hypothesis import strategies as st

from rlcd_jax import records
from rlcd_jax.job import generation, lengths, setup
from rlcd_jax.ppo import acting
from rlcd_jax.scoring import reading
from rlcd_jax.stages import (
    distill_context,
    evaluate_policy,
    simulate_pairs,
    train_preference,
)


def load(max_positions=2048, name="quickstart", **fields):
    """Return inputs of a tiny model that reads so many positions."""
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config(name, **fields))
    cfg = dataclasses.replace(job.cfg, max_positions=max_positions)
    return dataclasses.replace(job, cfg=cfg)


STAGES = {  # what is named, and the fields that make it one token too many
    "simulate": "pairs.prompt_tokens=256 \\+ pairs.reply_tokens=12: 268 tokens",
    "preference": "preference.lengths\\[-1\\]=320: 320 tokens",
    "distill": "distill.lengths\\[-1\\]=320: 320 tokens",
    "policy": "policy.prompt_tokens=256 .* a mark of 8: 276 tokens",
    "evaluate": "the longest prompt of 99 \\+ evaluate.reply_tokens=12: 111 tokens",
}


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_over_the_models_positions_is_refused_by_its_fields(stage):
    needed = int(STAGES[stage].rpartition(": ")[2].split()[0])
    fields = {"evaluate__judges": ("lexicon",)}
    lengths.check(load(needed, **fields), stage, 99)
    with pytest.raises(ValueError, match=STAGES[stage]) as caught:
        lengths.check(load(needed - 1, **fields), stage, 99)
    assert f"reads {needed - 1} at most (max_position_embeddings)" in str(caught.value)


def test_questions_about_two_replies_count_where_they_are_asked():
    found = load(300, "rlaif")  # a prompt and one reply fit
    with pytest.raises(ValueError, match=r"a question of .* 2 \* pairs.reply_tokens"):
        lengths.check(found, "simulate")
    with pytest.raises(ValueError, match=r"a question of .* 2 \* evaluate.reply_tok"):
        lengths.check(load(300, evaluate__judges=("log_odds",)), "evaluate", 100)
    lengths.check(load(300, evaluate__judges=("lexicon",)), "evaluate", 100)


@pytest.mark.parametrize("stage", ["preference", "distill"])
def test_a_rule_for_long_texts_is_checked_with_the_lengths(stage):
    with pytest.raises(ValueError, match=f"{stage}.too_long='cut'; accepted: drop"):
        lengths.check(load(**{f"{stage}__too_long": "cut"}), stage)


@pytest.mark.parametrize(
    ("stage", "run"),
    [
        ("simulate", simulate_pairs.simulate_pairs),
        ("preference", train_preference.train_preference),
        ("distill", distill_context.distill_context),
        ("policy", lambda config, _: acting.Actor(setup.load_job(config))),
        ("evaluate", evaluate_policy.evaluate_policy),
    ],
)
def test_every_stage_looks_before_it_makes_anything(stage, run, tmp_path, monkeypatch):
    job = load(16, evaluate__systems=("base",))

    def refuse():
        raise AssertionError("the weights were read")

    job = dataclasses.replace(job, load_base=refuse)
    monkeypatch.setattr(setup, "load_job", lambda *_, **__: job)
    with pytest.raises(ValueError, match="reads 16 at most"):
        run(job.config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_long_prompt_makes_slots_fewer():
    found = load(8192, engine__slots_per_device=8)
    assert generation.make_engine(found, 500, 12).num_slots == 8
    many = generation.make_engine(found, 500, 12, cache_tokens=8 * 1024)
    few = generation.make_engine(found, 4000, 12, cache_tokens=8 * 1024)
    one = generation.make_engine(found, 8000, 12, cache_tokens=1024)
    assert (many.num_slots, few.num_slots, one.num_slots) == (8, 2, 1)


def test_slots_that_no_request_would_fill_are_not_there():
    found = load(8192, engine__slots_per_device=8, policy__rollouts=4)
    few = generation.make_engine(found, 40, 12, most=3)
    many = generation.make_engine(found, 40, 12, most=100)
    assert (few.num_slots, many.num_slots) == (3, 8)
    section = found.config.policy
    with found.config.unlocked():
        section.dev_prompts = 6
    assert acting.most_requests(section) == 6
    section = found.config.evaluate
    with found.config.unlocked():
        section.systems, section.best_of = ("base", "best_of_n"), 4
    assert evaluate_policy.most_requests(section, 5) == 20


def test_prompts_of_an_evaluation_are_looked_at():
    found = load(64, evaluate__judges=("lexicon",))
    short = records.Prompt("short", (records.Turn("human", "Hi"),))
    evaluate_policy.check_lengths(found, [short])
    long = records.Prompt("long", (records.Turn("human", "Hi" * 40),))
    with pytest.raises(ValueError, match="the longest prompt of 10"):
        evaluate_policy.check_lengths(found, [short, long])


FOUND = load()
WHOLE = load(model__attention_block=0)  # all scores of a text at once


@hypothesis.given(st.integers(1, 100_000))
def test_a_batch_of_long_texts_takes_no_more_than_one_of_short_ones(length):
    for found, power in ((FOUND, 1), (WHOLE, 2)):
        rows = reading.rows_at(found)(length)
        assert 1 <= rows <= reading.ROWS
        if rows > 1:
            most = reading.ROWS * reading.FULL_LENGTH**power
            assert rows * length**power <= most
        assert rows == reading.ROWS or length > reading.FULL_LENGTH


@hypothesis.given(st.integers(1, 9000), st.integers(1, 40))
def test_a_batch_of_few_texts_has_few_rows(length, left):
    rows_at = reading.rows_at(FOUND)
    whole, rows = rows_at(length), rows_at(length, left)
    assert min(left, whole) <= rows <= whole
    assert rows == 1 or reading.STEP * left > rows  # a smaller one would not do
    if whole == reading.ROWS:
        assert rows in (1, 4, 16)
