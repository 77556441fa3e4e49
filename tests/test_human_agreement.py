"""human.agreement: alpha against its definition and a package, checks, judges."""

import numpy as np
import pytest
from human_study import judged, make_study, verdict

from rlcd_jax.human import agreement
from rlcd_jax.statistics import estimates

SYSTEMS = ("sunny-v1", "pale-v2")


# Krippendorff (2011), the example of four observers and twelve units.
PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def matrix(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return np.array([[np.nan if v == "." else float(v) for v in row] for row in rows])


def alpha_of(ratings, metric, **settings):
    return agreement.krippendorff_alpha(ratings, metric=metric, seed=0, **settings)


def slow_alpha(ratings, metric):
    """Return alpha by its definition, over all pairs of pairable values."""
    units = [[v for v in unit if not np.isnan(v)] for unit in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]

    def distance(c, k):
        if metric == "ordinal":
            low, high = min(c, k), max(c, k)
            between = sum(low <= v <= high for v in values)
            return (between - (values.count(c) + values.count(k)) / 2) ** 2
        return float(c != k) if metric == "nominal" else (c - k) ** 2

    observed = sum(
        distance(unit[i], unit[j]) / (len(unit) - 1)
        for unit in units
        for i in range(len(unit))
        for j in range(len(unit))
        if i != j
    )
    expected = sum(distance(c, k) for c in values for k in values)
    return 1 - (len(values) - 1) * observed / expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)],
)
def test_krippendorff_alpha_matches_the_published_example(metric, expected):
    found = alpha_of(matrix(PUBLISHED), metric)
    assert round(found.value, 3) == expected
    assert found.low < expected < found.high and found.num == 11


@pytest.mark.parametrize("metric", agreement.METRICS)
def test_krippendorff_alpha_matches_definition(metric):
    rng = np.random.default_rng(3)
    for num in (2, 3, 5):
        rated = np.clip(rng.integers(1, 9, 10) + rng.integers(-2, 3, (num, 10)), 1, 8.0)
        rated[rng.random(rated.shape) < 0.2] = np.nan
        found = alpha_of(rated, metric, resamples=10)
        assert found.value == pytest.approx(slow_alpha(rated, metric), abs=1e-12)


@pytest.mark.parametrize("metric", agreement.METRICS)
def test_krippendorff_alpha_matches_package(metric):
    package = pytest.importorskip("krippendorff")
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rated = rng.integers(1, 9, (4, 30)).astype(float)
        rated[rng.random(rated.shape) < 0.3] = np.nan
        found = alpha_of(rated, metric, resamples=10)
        theirs = package.alpha(rated, level_of_measurement=metric)
        assert found.value == pytest.approx(theirs, abs=1e-12)


def test_krippendorff_alpha_interval_is_a_ratio_of_variances():
    rng = np.random.default_rng(0)
    rated = rng.integers(1, 9, 40) + rng.integers(-1, 2, (3, 40))
    within = rated.var(axis=0, ddof=1).mean()
    found = alpha_of(rated, "interval", resamples=10)
    assert found.value == pytest.approx(1 - within / rated.var(ddof=1), abs=1e-12)


def test_krippendorff_alpha_bootstrap_matches_recomputing():
    rated = np.random.default_rng(1).integers(1, 5, (3, 12)).astype(float)
    found = alpha_of(rated, "ordinal", resamples=4000)
    rng = np.random.default_rng(2)
    drawn = [
        alpha_of(rated[:, rng.integers(0, 12, 12)], "ordinal", resamples=1).value
        for _ in range(1000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.05)
    assert found.high == pytest.approx(high, abs=0.05)


def test_krippendorff_alpha_extremes():
    same = np.tile(np.arange(1.0, 9.0), (3, 1))
    assert alpha_of(same, "ordinal").value == 1.0
    assert alpha_of(np.array([[1, 8] * 9, [8, 1] * 9]), "interval").value < -0.9
    noise = np.random.default_rng(0).integers(1, 9, (3, 500))
    assert abs(alpha_of(noise, "ordinal", resamples=10).value) < 0.1


def test_krippendorff_alpha_says_what_is_missing():
    assert (
        alpha_of(np.full((3, 5), 4.0), "ordinal").reason == "all ratings are the same"
    )
    one = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 3.0]])
    assert "0 pairs were rated by two" in alpha_of(one, "ordinal").reason
    with pytest.raises(ValueError, match="metric is 'ratio'"):
        alpha_of(one, "ratio")
    with pytest.raises(ValueError, match="shape"):
        alpha_of(np.zeros(3), "ordinal")


def test_self_consistency_by_hand():
    first = judged([2, 7, 4, 5])
    again = judged([1, 8, 5, 5], kind="repeat", repeat_of=[j.item for j in first])
    rate, apart = agreement.self_consistency(first + again)
    assert (rate.value, rate.num) == (0.75, 4)
    assert apart == (1 + 1 + 1 + 0) / 4
    rate, apart = agreement.self_consistency(first)
    assert isinstance(rate, estimates.Missing) and isinstance(apart, estimates.Missing)


def test_gold_rate_by_hand():
    found = agreement.gold_rate(judged([8, 5, 4, 7], kind="gold") + judged([1]))
    assert (found.value, found.num) == (0.75, 4)
    assert isinstance(agreement.gold_rate(judged([8])), estimates.Missing)


def test_rating_matrix_places_scores_of_pairs():
    found = judged([1, 2]) + judged([8], annotator="b") + judged([5], kind="gold")
    np.testing.assert_array_equal(
        agreement.rating_matrix(found), [[1.0, 2.0], [8.0, np.nan]]
    )


def test_judge_agreement_by_hand():
    made, _ = make_study()
    scores_2 = {"p0": 2.0, "p1": 7.0, "p2": 4.5, "p3": 1.0, "p4": 8.0, "p5": 3.0}
    by_judge = [verdict("p0", "1"), verdict("p1", "1"), verdict("p2", "1")]
    by_judge += [verdict("p3", "tie"), verdict("p4", "1", swapped=True)]
    by_judge += [verdict("p5", "none"), verdict("p9", "1")]
    by_judge += [verdict("p0", "2", judge="other")]
    found = agreement.judge_agreement(made, scores_2, by_judge, judge="lexicon")
    assert (found.num, found.value) == (3, pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="judges in the file: lexicon, other"):
        agreement.judge_agreement(made, scores_2, by_judge, judge="x")
