"""reading_tables: readings of pairs, by side, by prompt and by drop."""

import dataclasses

import numpy as np
import pytest
from read_pairs import pair, rescored
from scipy import stats

from rlcd_jax import records, seeds, tasks
from rlcd_jax.diagnosis import pair_readings, reading_tables
from rlcd_jax.statistics import estimates, tables

TASK = tasks.load_task("harmless")
HOW = reading_tables.Intervals(seed=0, resamples=500, level=0.95)


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
