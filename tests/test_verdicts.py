"""verdicts: contests in order, seen from either side, at equal length."""

import dataclasses

import numpy as np
import pytest
from judged import samples

from rlcd_jax import record_files
from rlcd_jax.judging import verdicts
from rlcd_jax.statistics import win_rates

# --- verdicts and tables ----------------------------------------------------


def test_contests_are_all_pairs_in_order():
    found = verdicts.contests(samples(2, ("c", "a", "b")))
    assert [(one.system, two.system, one.prompt_id) for one, two in found] == [
        (*pair, prompt)
        for pair in (("c", "a"), ("c", "b"), ("a", "b"))
        for prompt in ("p0", "p1")
    ]


@pytest.mark.parametrize(
    "broken, match",
    [
        (samples()[:-1], "'rlaif' has no reply to prompt 'p2'"),
        (samples() + samples()[:1], "'rlcd' has two replies to prompt 'p0'"),
        (
            samples() + [verdicts.JudgedReply("p0", "x", "other text", "r")],
            "'p0' is shown to system 'x'",
        ),
    ],
)
def test_contests_name_what_does_not_fit(broken, match):
    with pytest.raises(ValueError, match=match):
        verdicts.contests(broken)


def verdict(winner, **fields):
    fields = {"length_1": 3, "length_2": 3, **fields}
    return verdicts.Verdict("p", "j", "rlcd", "rlaif", winner, **fields)


def test_verdicts_survive_a_file(tmp_path):
    rows = [
        verdict("1", score_1=0.5, answers=("(A)", "(B)")),
        dataclasses.replace(verdict("none", unparsed=2), prompt_id="q"),
    ]
    record_files.write_jsonl(tmp_path / "verdicts.jsonl", rows)
    assert (
        record_files.read_jsonl(tmp_path / "verdicts.jsonl", verdicts.Verdict) == rows
    )
    with pytest.raises(ValueError, match="winner"):
        verdict("3")


def test_seen_from_puts_a_system_first():
    given = verdict("1", length_1=3, length_2=8, score_1=0.5, score_2=0.1)
    assert verdicts.seen_from(given, "rlcd") is given
    turned = verdicts.seen_from(given, "rlaif")
    assert (turned.system_1, turned.system_2, turned.winner) == ("rlaif", "rlcd", "2")
    assert (turned.length_1, turned.length_2) == (8, 3)
    assert (turned.score_1, turned.score_2) == (0.1, 0.5)
    assert verdicts.seen_from(turned, "rlcd") == given
    assert verdicts.seen_from(verdict("tie"), "rlaif").winner == "tie"
    with pytest.raises(ValueError, match="'rlcd' and 'rlaif', not 'base'"):
        verdicts.seen_from(given, "base")


def test_equal_length_rate_makes_the_draws_of_a_prompt_one_cluster():
    rng = np.random.default_rng(0)
    points = rng.choice(["1", "2", "tie"], 60)
    lengths = rng.integers(1, 30, (60, 2))
    names = [f"p{i % 20}" for i in range(60)]
    given = [
        dataclasses.replace(
            verdict(str(point), length_1=int(one), length_2=int(two)),
            prompt_id=name,
            draw=i // 20,
        )
        for i, (point, (one, two), name) in enumerate(
            zip(points, lengths, names, strict=True)
        )
    ]
    found = verdicts.equal_length_rate(given, level=0.9)
    worth = [{"1": 1.0, "2": 0.0, "tie": 0.5}[name] for name in points]
    expected = win_rates.length_controlled_win_rate(
        worth,
        lengths[:, 0],
        lengths[:, 1],
        prompts=[f"p{i % 20}" for i in range(60)],
        level=0.9,
    )
    assert found == expected and found.num == 20 and found.level == 0.9


def test_equal_length_rate_refuses_verdicts_on_other_systems():
    turned = verdicts.seen_from(verdict("1"), "rlaif")
    with pytest.raises(ValueError, match="one judge, one first and one second system"):
        verdicts.equal_length_rate([verdict("1"), turned])
    assert verdicts.equal_length_rate([]).reason.startswith("0 prompts")


# --- secrets --------------------------------------------------------------------------


def test_contests_are_of_draws_and_of_ids_with_any_characters():
    ids = [(f"issue#{n}", None) for n in range(3)] + [("issue", n) for n in range(3)]
    made = [
        verdicts.JudgedReply(name, system, "hi", f"{system} {n}", draw)
        for system in ("base", "rlcd")
        for n, (name, draw) in enumerate(ids)
    ]
    found = verdicts.contests(made)
    assert [(one.prompt_id, one.draw) for one, _ in found] == ids
    with pytest.raises(ValueError, match="two replies to prompt 'issue#1'.*'draw'"):
        verdicts.contests([*made, made[4]])
