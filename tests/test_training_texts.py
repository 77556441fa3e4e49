"""training_texts: what pairs are to the stages that train on them."""

import dataclasses

import pytest
from pair_world import PROMPTS, RESCORE, RLAIF, RLCD, TASK, simulate

from rlcd_jax import records, tasks
from rlcd_jax.pairs import training_texts


def test_positives_keep_one_affix_free_example_a_prompt():
    found, _, _ = simulate(rows=(RLCD, RESCORE, RLAIF))
    kept = training_texts.positives(found)
    assert len(kept) == len({p.prompt_id for p in found if p.sampling == "contrast"})
    for pair in kept:
        prompt, target = training_texts.distill_example(pair, TASK)
        reply = pair.reply_1 if pair.side_1 == "positive" else pair.reply_2
        assert (prompt, target) == (pair.prompt, f" {reply}\n\nHuman:")
        assert not any(affix in prompt for affix in TASK.affixes[pair.affix_index])
    plain = next(p for p in found if p.sampling == "same")
    with pytest.raises(ValueError, match="which have a positive side"):
        training_texts.distill_example(plain, TASK)


def test_preference_texts_end_with_the_mark():
    pair = simulate(PROMPTS[:1])[0][0]
    first, second = training_texts.preference_texts(pair, TASK)
    assert first == (pair.prompt, f" {pair.reply_1}\n\nHuman:")
    assert second == (pair.prompt, f" {pair.reply_2}\n\nHuman:")
    human = records.HumanPair("h", "h", "Human: a\n\nAssistant:", "None ", "nan", 1.0)
    assert training_texts.preference_texts(human, TASK)[0] == (
        "Human: a\n\nAssistant:",
        " None\n\nHuman:",
    )
    assert human.chosen == "nan" and human.rejected == "None "
    chat = tasks.with_format(TASK, "chat")
    turn = training_texts.ChatTurn("", "<|im_end|>")
    assert training_texts.reply_text("Hi.", chat, turn) == "Hi.<|im_end|>"
    turn = training_texts.ChatTurn(" ", "</s>")
    assert training_texts.reply_text("Hi. ", chat, turn) == " Hi.</s>"
    led = dataclasses.replace(chat, lead_in="1.")  # which has opened the reply
    assert training_texts.reply_text("Hi.", led, turn) == "Hi.</s>"
    with pytest.raises(ValueError, match="pass the turn"):
        training_texts.preference_texts(pair, chat)
