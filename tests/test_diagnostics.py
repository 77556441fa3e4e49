"""pair_readings and reading_tables: readings of pairs and their tables."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from rlcd_jax import records, seeds, tasks
from rlcd_jax.diagnosis import pair_readings, reading_tables
from rlcd_jax.statistics import estimates, tables

TASK = tasks.load_task("harmless")
HOW = reading_tables.Intervals(seed=0, resamples=500, level=0.95)


def pair(number=0, positive="Please be kind.", negative="Go away!", **changes):
    """A contrast pair, the positive side second for odd numbers."""
    index = changes.pop("affix_index", 12)
    first, second = ("positive", "negative")[:: -1 if number % 2 else 1]
    texts = {"positive": positive, "negative": negative}
    contrast = dict(zip(("positive", "negative"), TASK.affixes[index], strict=True))
    fields = {
        "id": f"p{number}/contrast-construction",
        "task": "harmless",
        "prompt_id": f"p{number}",
        "prompt": f"Human: Hi {number}\n\nAssistant:",
        "reply_1": texts[first],
        "reply_2": texts[second],
        "prob_2": float(second == "positive"),
        "side_1": first,
        "side_2": second,
        "source_prompt_1": f"Human: Hi {number}\n\nAssistant ({contrast[first]}):",
        "source_prompt_2": f"Human: Hi {number}\n\nAssistant ({contrast[second]}):",
        "raw_1": texts[first],
        "raw_2": texts[second],
        "tries_1": 1 + number % 2,
        "tries_2": 1,
        "finish_1": "eos",
        "finish_2": "stop",
        "num_tokens_1": len(texts[first].split()),
        "num_tokens_2": len(texts[second].split()),
        "affix_index": index,
        "sampling": "contrast",
        "labels": "construction",
        "scoring": None,
        "generator": "fake",
        "seed": 7,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "alpha": 1.0,
    }
    return records.Pair(**{**fields, **changes})


def rescored(one, prob_2, **scoring):
    return dataclasses.replace(
        one,
        id=one.prompt_id + "/contrast-scoring",
        labels="scoring",
        prob_2=prob_2,
        scoring={"instruction_index": 0, "prob_2": prob_2, **scoring},
    )


# --- readings -------------------------------------------------------------------------


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


# --- tables ---------------------------------------------------------------------------


def cell(table, row, column):
    names = [c.name for c in table.columns]
    (cells,) = [cells for name, cells in table.rows if name.startswith(row)]
    return cells[names.index(column)]


def test_by_prompt_averages_draws_of_one_prompt():
    entries = [("a", 1.0), ("a", 3.0), ("b", 5.0), ("c", None)]
    assert list(estimates.mean_by_prompt(entries).values()) == [2.0, 5.0]


def test_intervals_match_scipy():
    rng = np.random.default_rng(1)
    values = rng.normal(2.0, 1.0, 400)
    mean = HOW.mean((str(i), v) for i, v in enumerate(values))
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert mean.value == pytest.approx(values.mean())
    assert mean.low == pytest.approx(low, abs=0.02)
    assert mean.high == pytest.approx(high, abs=0.02)
    share = HOW.share((str(i), float(i < 3)) for i in range(17))
    wilson = stats.binomtest(3, 17).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == pytest.approx((wilson.low, wilson.high))


def test_pairs_table_by_hand():
    asked = {" Please be kind.": 1.0, " Go away!": -2.0}

    def logprob(texts):
        return [asked[r] if "kind" in p else 0.0 for p, r in texts]

    pairs = [pair(i) for i in range(6)]
    scored = [
        rescored(p, abs(p.prob_2 - (0.4 if i else 0.7))) for i, p in enumerate(pairs)
    ]
    found = pair_readings.measure(
        pairs,
        TASK,
        scored=scored,
        logprob=logprob,
        outside={"length": lambda t: [float(len(r)) for _, r in t]},
    )
    table = reading_tables.pairs_table(found, HOW)
    row = "contrast-construction"
    assert cell(table, row, "pairs") == 6
    assert cell(table, row, "length gap, tokens").value == 1.0
    assert cell(table, row, "margin of first, nats").value == 1.0
    assert cell(table, row, "margin of second, nats").value == 2.0
    assert cell(table, row, "told apart, %").value == 1.0
    better = cell(table, row, "scored: first is better, %")
    assert (better.value, better.num) == (5 / 6, 6)
    assert cell(table, row, "scored: probability").value == pytest.approx(3.3 / 6)
    flips = cell(table, row, "scored: order flips it, %")
    assert flips == estimates.Missing("asked in one order only")
    assert cell(table, row, "length agrees with label, %").value == 1.0
    assert cell(table, row, "length difference").value == 7.0
    assert tables.as_json(table)["rows"][0]["cells"]["pairs"] == 6


def test_tables_name_what_is_missing():
    found = pair_readings.measure([pair(i) for i in range(3)], TASK)
    table = reading_tables.pairs_table(found, HOW)
    row = "contrast-construction"
    assert cell(table, row, "told apart, %") == reading_tables.NO_LIKELIHOOD
    assert cell(table, row, "scored: probability") == reading_tables.NO_SCORES
    assert "outside score: missing" in tables.markdown(table)
    by_affix = reading_tables.affixes_table(found, None, TASK, HOW)
    assert "not known" in cell(by_affix, "12:", "dropped +, %").reason
    assert cell(by_affix, "3:", "overlap") == reading_tables.NO_PAIR
    assert len(by_affix.rows) == 16


def test_sides_table_counts_each_side():
    pairs = [
        pair(i, "I can't do that", "kind kind kind kind kind kind") for i in range(4)
    ]
    table = reading_tables.sides_table(pair_readings.measure(pairs, TASK), HOW)
    ours, theirs = "contrast-construction, positive", "contrast-construction, negative"
    assert cell(table, ours, "refusals, %").value == 1.0
    assert cell(table, theirs, "refusals, %").value == 0.0
    assert cell(table, ours, "tokens").value == 4.0
    assert cell(table, theirs, "distinct-1") == 1 / 16  # the first 16 of 24 words
    assert cell(table, ours, "distinct-1") == 4 / 16
    assert cell(table, theirs, "distinct-2 in a reply").value == pytest.approx(1 / 5)
    assert cell(table, theirs, "words of its affix, %").value == 0.0


def dropped(prompt_id, side, reason="no_end"):
    tries = 0 if reason == "prompt_too_long" else 2
    texts = ("x",) * tries
    return records.Dropped(
        prompt_id, "harmless", "contrast", side, reason, tries, texts, texts
    )


def test_drops_table_counts_prompts_by_side():
    found = pair_readings.measure([pair(i) for i in range(6)], TASK)
    lost = [
        dropped("p6", "negative"),
        dropped("p7", "negative"),
        dropped("p7", "positive"),
        dropped("p8", "positive", "prompt_too_long"),
    ]
    table = reading_tables.drops_table(found, lost, HOW)
    for side, share in (("positive", 1 / 8), ("negative", 2 / 8)):
        row = f"contrast, {side}"
        assert cell(table, row, "dropped for it, %").value == share
        assert cell(table, row, "prompts too long") == 1
    # Odd pairs have their negative side first, and that one took two tries.
    assert cell(table, "contrast, negative", "tries of the kept").value == 1.5
    assert cell(table, "contrast, positive", "tries of the kept").value == 1.0


def test_dropped_by_affix_draws_the_affix_again():
    def index(prompt_id):
        return seeds.seed_choice(16, 7, "affix", prompt_id)

    pairs = [pair(i, affix_index=index(f"p{i}")) for i in range(5)]
    lost = [dropped("p8", "negative"), dropped("p9", "positive")]
    found = reading_tables.dropped_by_affix(pairs, lost, TASK)
    expected = {}
    for one in lost:
        expected.setdefault(index(one.prompt_id), []).append(one)
    assert found == expected
    table = reading_tables.affixes_table(
        pair_readings.measure(pairs, TASK), found, TASK, HOW
    )
    assert cell(table, f"{index('p8')}:", "dropped -, %").value > 0
    other = [dataclasses.replace(pairs[0], affix_index=(index("p0") + 1) % 16)]
    assert reading_tables.dropped_by_affix(other, lost, TASK) is None


def test_one_each_prefers_scored_readings():
    one, two = pair(0), rescored(pair(1), 0.6)
    found = pair_readings.measure([one, two, pair(1)], TASK)
    kept = pair_readings.one_each([found[0], found[2], found[1]])
    assert [r.prompt_id for r in kept] == ["p0", "p1"]
    assert kept[1].scored == pytest.approx(0.6)
