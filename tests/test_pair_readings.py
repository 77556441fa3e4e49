"""pair_readings: what is read off a pair, from its positive side."""

import dataclasses
import math

import numpy as np
import pytest
from read_pairs import pair, rescored
from scipy import stats

from rlcd_jax import tasks
from rlcd_jax.diagnosis import pair_readings
from rlcd_jax.pairs import training_texts

TASK = tasks.load_task("harmless")


@pytest.mark.parametrize("number", [0, 1])
def test_measure_reads_from_the_positive_side(number):
    (found,) = pair_readings.measure([pair(number, "So very kind", "No")], TASK)
    assert found.first.text == "So very kind" and found.second.text == "No"
    assert (found.first.tokens, found.second.tokens) == (3, 1)
    assert found.first.leaked == ("kind", "very") and found.second.leaked == ()
    assert found.first.distinct_2 == 1.0 and found.second.distinct_2 is None
    assert found.label == 1.0 and found.overlap == 0.0 and found.scored is None
    assert found.first.margin is None and found.outside == {}
    assert [name for name, _ in found.sides] == ["positive", "negative"]
    assert (found.first.tries, found.second.tries) == (1, 1 + number)


def test_measure_asks_for_each_reply_under_both_prompts():
    asked = []

    def logprob(texts):
        asked.extend(texts)
        return [-float(len(prompt) + 2 * len(reply)) for prompt, reply in texts]

    pairs = [pair(0), pair(1)]
    same = dataclasses.replace(
        rescored(pair(2), 0.3),
        sampling="same",
        side_1="plain",
        side_2="plain",
        affix_index=None,
    )
    one, two, third = pair_readings.measure([*pairs, same], TASK, logprob=logprob)
    assert len(asked) == 8 and third.first.own is None
    positive, negative = (f"Assistant ({a}):" for a in TASK.affixes[12])
    for start in (0, 4):
        sources, replies = zip(*asked[start : start + 4], strict=True)
        assert [positive in s for s in sources] == [True, False, False, True]
        assert [negative in s for s in sources] == [False, True, True, False]
        assert replies == (" Please be kind.",) * 2 + (" Go away!",) * 2
    gap = len(TASK.affixes[12][1]) - len(TASK.affixes[12][0])
    assert one.first.margin == two.first.margin == gap
    assert one.second.margin == two.second.margin == -gap


def test_measure_opens_replies_as_the_chat_template_does():
    asked = []

    def logprob(texts):
        asked.extend(texts)
        return [0.0] * len(texts)

    chat = tasks.with_format(TASK, "chat")
    turn = training_texts.ChatTurn(" ", "</s>")
    pair_readings.measure([pair()], chat, logprob=logprob, turn=turn)
    assert {reply for _, reply in asked} == {" Please be kind.", " Go away!"}
    with pytest.raises(ValueError, match="pass the turn"):
        pair_readings.measure([pair()], chat, logprob=logprob)


def test_measure_margins_estimate_the_divergence():
    replies = ["yes", "no", "well"]
    ours, theirs = np.array([0.6, 0.1, 0.3]), np.array([0.2, 0.5, 0.3])
    rng = np.random.default_rng(0)
    draw = [rng.choice(3, 20_000, p=p) for p in (ours, theirs)]
    pairs = [
        pair(i, replies[a], replies[b])
        for i, (a, b) in enumerate(zip(*draw, strict=True))
    ]
    table = {
        (side, " " + reply): math.log(p)
        for side, probs in (("kind", ours), ("evil", theirs))
        for reply, p in zip(replies, probs, strict=True)
    }

    def logprob(texts):
        return [table["kind" if "kind" in p else "evil", r] for p, r in texts]

    found = pair_readings.measure(pairs[:4000], TASK, logprob=logprob)
    for side, p, q in (("first", ours, theirs), ("second", theirs, ours)):
        margins = [getattr(r, side).margin for r in found]
        error = np.std(margins) / math.sqrt(len(margins))
        assert abs(np.mean(margins) - stats.entropy(p, q)) < 4 * error


def test_measure_lends_scores_of_the_same_replies():
    pairs = [pair(0), pair(1), pair(2)]
    flips = {"logit_a": 1.0, "logit_b": 0.0}
    scored = [
        rescored(pairs[0], 0.2, **flips, swapped_logit_a=2.0, swapped_logit_b=0.0),
        rescored(pairs[1], 0.7, **flips, swapped_logit_a=0.0, swapped_logit_b=3.0),
        rescored(pair(2, positive="Other words"), 0.9),
    ]
    one, two, three = pair_readings.measure(pairs, TASK, scored=scored)
    assert one.scored == pytest.approx(0.8) and one.flipped is True
    assert two.scored == 0.7 and two.flipped is False  # the positive side is second
    assert three.scored is None
    (own,) = pair_readings.measure([scored[1]], TASK)
    assert own.scored == own.label == 0.7


def test_measure_same_prompt_pairs_by_their_label():
    plain = {"sampling": "same", "side_1": "plain", "side_2": "plain"}
    one = dataclasses.replace(rescored(pair(0), 0.8), **plain, affix_index=None)
    (found,) = pair_readings.measure(
        [one], TASK, outside={"length": lambda texts: [len(r) for _, r in texts]}
    )
    assert found.first.text == one.reply_2 and found.label == found.scored == 0.8
    assert found.outside == {"length": len(one.reply_2) - len(one.reply_1)}
    assert found.first.leaked == () and not found.first.quotes
    assert [name for name, _ in found.sides] == ["preferred", "other"]


def test_measure_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="'harmless', got task 'helpful'"):
        pair_readings.measure([pair()], tasks.load_task("helpful"))
    with pytest.raises(ValueError, match="logprob gave 3 answers to 4"):
        pair_readings.measure([pair()], TASK, logprob=lambda t: [0.0] * 3)
    with pytest.raises(ValueError, match="score 'x' .* 2 of them not finite"):
        pair_readings.measure([pair()], TASK, outside={"x": lambda t: [math.nan] * 2})
    with pytest.raises(ValueError, match="affix index 40; .* 0 to 15"):
        pair_readings.contrast_texts(TASK, 40)


def test_lexicon_scores_the_reply():
    good, bad = pair_readings.lexicon([("awful", "I love it"), ("", "I hate it")])
    assert good > 0.5 and bad < -0.5
