"""Tests of rlcd_jax.preference: what the model reads, the same wherever it reads."""

import dataclasses

import numpy as np
import pytest
import runs
import tiny_tokenizers
from made_run import QUESTIONS

from rlcd_jax import record_files, records, tasks
from rlcd_jax.job import setup
from rlcd_jax.pairs import length_counts
from rlcd_jax.paper import label_accuracy
from rlcd_jax.ppo import acting, encoded_prompts
from rlcd_jax.preference import agreement, data, model, pair_ids, rewards
from rlcd_jax.scoring import rewards as scorers

PROMPT = "Human: hello\n\nAssistant:"
REPLIES = ("hello world.", "I  am\n\nglad!", "", "é 🙂", " \n blanks outside\n")


def load(name="bytes", **fields):
    """Return inputs of a tiny model with one of the small tokenizers."""
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config(policy__dev_prompts=0, **fields))
    one = tiny_tokenizers.TOKENIZERS[name]()
    cfg = dataclasses.replace(job.cfg, vocab_size=max(264, one.vocab_size))
    return dataclasses.replace(job, text_tokenizer=one, cfg=cfg)


def human_pair(number, one, two, prompt=PROMPT):
    return records.HumanPair(f"h{number}", f"h{number}", prompt, one, two, 1.0)


def read_by_policy(job, monkeypatch, prompt, replies):
    """Return the ids whose rewards PPO asks for, of replies as a policy spells them."""
    seen = []
    with runs.devices_by_mesh():
        actor = acting.Actor(job)
    monkeypatch.setattr(actor, "_rewards", seen.extend)
    one = job.text_tokenizer
    start = tuple(one.encode(prompt))
    for reply in replies:
        whole = one.encode(f"{prompt} {reply}\n\nHuman: and more")
        sampled = type("Reply", (), {"tokens": tuple(whole[len(start) :])})
        dialogue = encoded_prompts.EncodedPrompt("p", prompt, start)
        actor.all_rewards([acting.Sampled(dialogue, sampled)])
    return seen


def read_by_judge(job, monkeypatch, prompt, replies):
    """Return the ids whose rewards evaluation asks for."""
    seen = []

    def note(params, rows):
        seen.extend(rows)
        return np.zeros(len(rows))

    monkeypatch.setattr(model, "restore", lambda *_: {})
    monkeypatch.setattr(scorers, "reward_scorer", lambda *_: note)
    rewards.preference_judge(job, "nowhere")([(prompt, reply) for reply in replies])
    return seen


@pytest.mark.parametrize(  # in lower case no stop string would ever be seen
    "name", [name for name in tiny_tokenizers.TOKENIZERS if name != "lower case"]
)
def test_equal_texts_have_equal_ids_in_training_rollout_and_evaluation(
    name, monkeypatch
):
    found = load(name)
    rows = [human_pair(n, reply, "other") for n, reply in enumerate(REPLIES)]
    trained = [list(pair.ids_1) for pair in pair_ids.to_tokens(found, rows)]
    assert read_by_policy(found, monkeypatch, PROMPT, REPLIES) == trained
    assert read_by_judge(found, monkeypatch, PROMPT, REPLIES) == trained
    whole = [f"{PROMPT} {reply.strip()}\n\nHuman:" for reply in REPLIES]
    assert [found.text_tokenizer.encode(text) for text in whole] == trained


def test_equal_chats_have_equal_ids_in_training_rollout_and_evaluation(monkeypatch):
    job = load("byte level")
    job = dataclasses.replace(job, task=tasks.with_format(job.task, "chat"))
    prompt = job.text_tokenizer.chat([records.Turn("human", "Hi")])
    rows = [human_pair(n, reply, "other", prompt) for n, reply in enumerate(REPLIES)]
    trained = [list(pair.ids_1) for pair in pair_ids.to_tokens(job, rows)]
    assert read_by_judge(job, monkeypatch, prompt, REPLIES) == trained
    seen = []
    actor = acting.Actor.__new__(acting.Actor)
    actor.job = actor.rewarder = job
    actor._rewards, actor._others = seen.extend, {}
    one = job.text_tokenizer
    start = tuple(one.encode(prompt))
    for reply in REPLIES:
        drawn = one.encode(f"{prompt}{reply}<eot>junk")[len(start) :]
        sampled = type("Reply", (), {"tokens": tuple(drawn)})
        dialogue = encoded_prompts.EncodedPrompt("p", prompt, start)
        actor.all_rewards([acting.Sampled(dialogue, sampled)])
    assert seen == trained


def test_the_reward_of_a_reply_does_not_depend_on_its_spelling(monkeypatch):
    found = load("space in front")
    seen = []
    actor = acting.Actor.__new__(acting.Actor)
    actor.job = actor.rewarder = found
    actor._rewards, actor._others = seen.extend, {}
    one = found.text_tokenizer
    dialogue = encoded_prompts.EncodedPrompt("p", PROMPT, tuple(one.encode(PROMPT)))
    letters = [one.encode(x, bos=False)[-1] for x in "hello"]
    space = one.encode(" ", bos=False)[-1]
    for tokens in ([space, *letters], one.encode("hello", bos=False)):
        sampled = type("Reply", (), {"tokens": tuple(tokens)})
        actor.all_rewards([acting.Sampled(dialogue, sampled)])
    assert seen[0] == seen[1] == one.encode(f"{PROMPT} hello\n\nHuman:")


def long_pairs():
    early = "".join(f"Human: {q}\n\nAssistant: Yes!\n\n" for q in QUESTIONS[:4])
    return [
        human_pair(0, "fine", "good"),
        human_pair(1, "fine", "good", early + PROMPT),
        human_pair(2, "fine", "fine", early + PROMPT),
        human_pair(3, "fine " * 30, "good"),
    ]


def test_long_pairs_are_dropped_and_counted():
    found = load(preference__lengths=(48, 64))
    tokens = pair_ids.to_tokens(found, long_pairs())
    assert [row.id for row in tokens.rows] == ["h0"] and len(tokens) == 1
    assert tokens.too_long == length_counts.counts(4, dropped=3)


def test_long_pairs_are_shortened_by_whole_turns_and_counted():
    found = load(preference__lengths=(64,), preference__too_long="shorten_prompt")
    tokens = pair_ids.to_tokens(found, long_pairs())
    assert [row.id for row in tokens.rows] == ["h0", "h1"]
    assert tokens[0] == tokens[1]  # the last turn alone, BOS and all
    found_out = {"of": 4, "dropped": 1, "shortened": 1, "identical": 1}
    assert tokens.too_long == found_out
    for pair in tokens:
        assert pair.ids_1.count(found.text_tokenizer.bos_id) == 1
        assert pair.ids_1 != pair.ids_2


def test_pairs_of_two_equal_texts_are_left_out_and_counted():
    """They teach nothing, and a tie of the held-out ones would count as an error."""
    found = load(preference__lengths=(64,))
    rows = [human_pair(0, "fine", "good"), human_pair(1, "fine", " fine\n")]
    tokens = pair_ids.to_tokens(found, rows)
    assert [row.id for row in tokens.rows] == ["h0"]
    assert tokens.too_long == length_counts.counts(2, dropped=0, identical=1)


def test_an_unknown_rule_for_long_texts_is_refused():
    found = load(preference__too_long="cut")
    with pytest.raises(ValueError, match="preference.too_long='cut'; accepted: drop"):
        pair_ids.to_tokens(found, [])


def test_agreement_and_accuracy_count_what_they_leave_out(monkeypatch, tmp_path):
    found = load(preference__lengths=(64,), preference__human_pairs=4)
    monkeypatch.setattr(data, "human_pairs", lambda *_: long_pairs())
    monkeypatch.setattr(
        rewards, "pair_scorer", lambda _: lambda _, rows: np.eye(2)[[1] * len(rows)]
    )
    with pytest.raises(ValueError, match="of 4 pairs 1 fit preference.lengths"):
        agreement.human_tokens(found)
    twice = [*long_pairs(), human_pair(9, "no", "yes")]
    monkeypatch.setattr(data, "human_pairs", lambda *_: twice)
    tokens = agreement.human_tokens(found)
    said = agreement.human_agreement(found, {}, tokens)
    assert said["pairs"] == 2
    assert tokens.too_long == length_counts.counts(5, dropped=3)
    assert said["accuracy"]["value"] == 1.0
    monkeypatch.setattr(data, "human_pairs", lambda *_: long_pairs())
    monkeypatch.setattr(setup, "load_job", lambda _, **__: found)
    monkeypatch.setattr(model, "restore", lambda *_: {})
    said = label_accuracy.reward_pairs(found.config, tmp_path, human=True)
    counts = length_counts.counts(4, dropped=3)
    assert said == {"pairs": 1, "too_long": {"pairs": counts}}
    kept = record_files.read_jsonl(
        tmp_path / label_accuracy.FILE, label_accuracy.PairRewards
    )
    assert [row.id for row in kept] == ["h0"]


def test_the_judge_reads_replies_beyond_the_lengths_of_training(monkeypatch):
    job = load(preference__lengths=(48,))
    rows = read_by_judge(job, monkeypatch, PROMPT, ["long " * 90])
    assert len(rows[0]) > 450 and rows[0][0] == job.text_tokenizer.bos_id
    job = dataclasses.replace(job, cfg=dataclasses.replace(job.cfg, max_positions=400))
    with pytest.raises(ValueError, match="the model reads 400 at most"):
        read_by_judge(job, monkeypatch, PROMPT, ["long " * 90])


def test_the_reward_scorer_reads_rows_of_any_length_whole():
    found = load(preference__lengths=(16,))
    params = model.start_params(found)
    text = [list(range(1, 40))]
    with runs.devices_by_mesh():
        short = scorers.reward_scorer(found, (16,))(params, text)
        wide = scorers.reward_scorer(found, (64,))(params, text)
    np.testing.assert_allclose(short, wide, rtol=2e-5)  # float32 sums
