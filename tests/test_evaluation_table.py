"""evaluation_table: win rates over the base model, plain and at equal length."""

import dataclasses

import numpy as np
import pytest

from rlcd_jax.judging import evaluation_table, verdicts
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.statistics import estimates, tables, win_rates

NUM = 40
RNG = np.random.default_rng(1)
LENGTHS = {name: RNG.integers(5, 30, NUM) for name in ("base", "rlcd", "other")}
NOISE = RNG.normal(0, 4, NUM)


def judged(draws=1):
    """Return answers and verdicts of a judge that loves length; base comes first."""
    samples = [
        verdicts.JudgedReply(f"p{i}", name, f"prompt {i}", " ".join(["a"] * count), n)
        for n in range(draws)
        for name, counts in LENGTHS.items()
        for i, count in enumerate(counts + 5 * n)
    ]
    answers = [
        evaluate_policy.Answer(
            s.prompt_id, s.system, s.prompt, s.reply, "eos", 3, 0.1, s.draw
        )
        for s in samples
    ]
    given = []
    for one, two in verdicts.contests(samples):
        place = int(one.prompt_id[1:])
        margin = len(one.reply.split()) - len(two.reply.split()) + NOISE[place]
        winner = "tie" if abs(margin) < 1 else "1" if margin > 0 else "2"
        given.append(verdicts.make_verdict("long", one, two, winner))
    return answers, given


def make_table(answers, given):
    return evaluation_table.comparison_table(
        answers,
        [],
        given,
        caption="c",
        preference=None,
        seed=0,
        level=0.9,
        resamples=200,
    )


def cells(table):
    return {row["name"]: row["cells"] for row in tables.as_json(table)["rows"]}


@pytest.mark.parametrize("draws", [1, 2])
def test_comparison_table_controls_for_length_beside_the_win_rate(draws):
    answers, given = judged(draws)
    table = make_table(answers, given)
    names = [column.name for column in table.columns]
    place = names.index("long win rate")
    assert names[place + 1] == "long at equal length"
    row = cells(table)["rlcd"]
    own = [v for v in given if (v.system_1, v.system_2) == ("base", "rlcd")]
    assert len(own) == NUM * draws
    expected = win_rates.length_controlled_win_rate(
        [1 - v.points for v in own],
        [v.length_2 for v in own],
        [v.length_1 for v in own],
        prompts=[v.prompt_id for v in own],
        level=0.9,
    )
    found = row["long at equal length"]
    assert found["num"] == NUM and found["level"] == 0.9
    assert found["value"] == pytest.approx(expected.value, rel=1e-5)
    assert found["low"] == pytest.approx(expected.low, rel=1e-5)
    base = cells(table)["base"]
    for name in ("long win rate", "long at equal length"):
        assert base[name] == {"missing": evaluation_table.NO_BASE}
    (note,) = [note for note in table.notes if note.startswith("At equal length")]
    assert "90% sandwich interval" in note


def test_figures_are_named_alike_in_all_runs():
    table = make_table(*judged())
    own = evaluation_table.figures(table, "rlcd")
    cell = dict(table.rows)["rlcd"][0]
    path = "evaluate/policy/long_win_rate"
    assert [own[path], own[f"{path}_low"], own[f"{path}_high"], own[f"{path}_num"]] == [
        cell.value,
        cell.low,
        cell.high,
        NUM,
    ]
    assert "evaluate/base/KL_nats_a_reply" not in own, "it is missing"
    assert {name.split("/")[1] for name in own} == {"base", "policy", "other"}
    both = tables.Table("c", "system", table.columns[:1], (("policy", (1.0,)),
                        ("rlcd", (2.0,))))  # fmt: skip
    own = evaluation_table.figures(both, "rlcd")
    assert own == {"evaluate/policy/long_win_rate": 1.0,
                   "evaluate/rlcd/long_win_rate": 2.0}  # fmt: skip


def test_comparison_table_takes_an_unread_verdict_for_half_a_win_and_says_so():
    answers, given = judged()
    lost = [
        verdicts.make_verdict(
            "long",
            verdicts.JudgedReply("more", "base", "p", "a"),
            verdicts.JudgedReply("more", name, "p", "a b"),
            "none",
        )
        for name in ("rlcd", "other")
    ]
    ties = [dataclasses.replace(one, winner="tie") for one in lost]
    table = make_table(answers, given + lost)
    assert cells(table) == cells(make_table(answers, given + ties))
    assert cells(table) != cells(make_table(answers, given))
    (note,) = [note for note in table.notes if "could not be read" in note]
    assert note.startswith(f"long: 2 of {len(given) + 2} comparisons")


def test_comparison_table_without_verdicts_says_nothing_of_length():
    answers, _ = judged()
    table = make_table(answers, [])
    assert not [name for name in map(str, table.columns) if "length" in name]
    assert not [note for note in table.notes if "length" in note]


def test_comparison_table_says_why_there_is_no_control():
    answers, given = judged()
    kept = [v for v in given if int(v.prompt_id[1:]) < 5]
    table = make_table(answers, kept)
    cell = dict(table.rows)["rlcd"][1]
    assert cell == estimates.Missing("5 prompts are too few for a length control")


def test_comparison_table_shows_what_is_read_off_the_replies():
    # By hand: three replies of each system to two prompts.
    answers = [
        evaluate_policy.Answer("p0", "base", "hi", "a a", "eos", 3, 0.0, 0),
        evaluate_policy.Answer("p0", "base", "hi", "a a", "length", 5, 0.0, 1),
        evaluate_policy.Answer("p1", "base", "ho", "a a", "stop", 8, 0.0),
        evaluate_policy.Answer("p0", "rlcd", "hi", "a b c", "length", 4, 1.0, 0),
        evaluate_policy.Answer("p0", "rlcd", "hi", "b c d", "length", 4, 2.0, 1),
        evaluate_policy.Answer("p1", "rlcd", "ho", "d e f", "eos", 6, 3.5),
    ]
    found = cells(make_table(answers, []))
    base, other = found["base"], found["rlcd"]
    assert base["KL, nats a reply"] == {"missing": evaluation_table.NO_BASE}
    assert other["KL, nats a reply"]["value"] == pytest.approx((1.5 + 3.5) / 2)
    for row, tokens, finished in ((base, (4 + 8) / 2, 0.75), (other, 5.0, 0.5)):
        assert row["tokens"]["value"] == pytest.approx(tokens)
        assert row["finished"]["value"] == pytest.approx(finished)
    assert base["distinct-2"] == pytest.approx(1 / 3)
    assert other["distinct-2"] == pytest.approx(5 / 6)
