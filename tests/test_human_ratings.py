"""human.ratings: rates by hand and against scipy, leans undone."""

import dataclasses

import numpy as np
import pytest
from human_study import judged, rate
from scipy import stats

from rlcd_jax.human import ratings, reading

SYSTEMS = ("sunny-v1", "pale-v2")


def test_rate_by_hand():
    one = judged([1, 2, 6])
    two = judged([3, 4, 8], annotator="annotator-2")
    checked = judged([1], kind="gold") + judged([8], kind="repeat", repeat_of=["x"])
    found = rate(one + two + checked)
    assert found.scores_2 == {"p0": 2.0, "p1": 3.0, "p2": 7.0}
    assert found.second.value == pytest.approx(4.0)
    assert found.first.value == pytest.approx(5.0)
    assert found.first.low + found.second.high == pytest.approx(9.0)
    assert (found.first.num, found.num_judgments) == (3, 6)
    assert found.prefer_first.value == pytest.approx(2 / 3)


def test_rate_matches_scipy():
    scores = np.random.default_rng(4).integers(1, 9, 40)
    found = rate(judged(scores.tolist()), resamples=10_000)
    ones = 9 - scores
    interval = stats.bootstrap(
        (ones,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.first.low == pytest.approx(interval.low, abs=0.06)
    assert found.first.high == pytest.approx(interval.high, abs=0.06)
    test = stats.permutation_test(
        (ones - scores,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        rng=np.random.default_rng(2),
    )
    assert found.first.p_value == pytest.approx(test.pvalue, abs=0.03)


def test_rate_counts_prompts_and_not_answers():
    scores = [2, 7, 3, 6, 1, 5]
    once = rate(judged(scores))
    thrice = rate([j for n in "abc" for j in judged(scores, annotator=n)])
    assert (thrice.first.low, thrice.first.high) == (once.first.low, once.first.high)
    assert thrice.num_judgments == 18


def test_rate_says_what_is_missing():
    assert rate([]).first.reason == "0 rated prompts"
    assert rate(judged([3])).prefer_first.reason == "1 rated prompts"


def test_rate_leaves_out_annotators_who_fail_checks():
    careful = judged([2, 2]) + judged([8, 8], kind="gold")
    careless = judged([8, 8], annotator="b") + judged(
        [1, 8], annotator="b", kind="gold"
    )
    found = rate(careful + careless, min_gold=0.6)
    assert found.excluded == ("b",) and found.second.value == 2.0
    assert rate(careful + careless, min_gold=0.5).second.value == 5.0
    with pytest.raises(ValueError, match="min_gold is 2"):
        rate(careful, min_gold=2)


def lean(scores, sides, right):
    """Return judgments of one who adds `right` to every rating as shown."""
    out = []
    for judgment in judged(scores, sides=sides):
        rating = judgment.rating + right
        score = reading.unblind(rating, judgment.side_2)
        out.append(dataclasses.replace(judgment, rating=rating, score_2=score))
    return out


def test_shifted_scores_side_undoes_a_lean():
    scores = [3, 4, 5, 6, 3, 4, 5, 6]  # mean 4.5 on either side
    plain = judged(scores, sides="AAAABBBB")
    found = ratings.shifted_scores(lean(scores, "AAAABBBB", 2), "side")
    assert [s for _, s in found] == pytest.approx([j.score_2 for j in plain])
    leaning = lean(scores, "AAAABBBB", 2)
    assert ratings.side_lean(leaning) == pytest.approx(2.0)
    assert rate(leaning, shift="side").first.value == pytest.approx(
        rate(leaning).first.value
    )


def test_shifted_scores_mean_makes_annotators_equal():
    both = judged([1, 2, 3]) + judged([5, 6, 7], annotator="b")
    found = ratings.shifted_scores(both, "mean")
    assert [s for _, s in found] == [3, 4, 5, 3, 4, 5]
    assert rate(both, shift="mean").second.value == rate(both).second.value
    with pytest.raises(ValueError, match="shift is 'x'"):
        ratings.shifted_scores(both, "x")
