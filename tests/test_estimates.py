"""estimates: intervals and paired tests against scipy, closed forms and edges."""

import math

import numpy as np
import pytest
from scipy import stats

from rlcd_jax.statistics import estimates, win_rates


def sample(num, seed=0):
    return np.random.default_rng(seed).gamma(2.0, 1.0, num)


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_interval_matches_plain_resampling(statistic, monkeypatch):
    data = sample(60)
    monkeypatch.setattr(estimates, "BLOCK_ENTRIES", 60 * 700)  # several blocks
    ours = estimates.bootstrap_interval(
        data, seed=1, statistic=statistic, resamples=20_000
    )
    rng = np.random.default_rng(1)
    drawn = [statistic(data[rng.integers(0, 60, 60)]) for _ in range(20_000)]
    assert ours.value == pytest.approx(statistic(data))
    assert (ours.low, ours.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert ours.num == 60


def test_bootstrap_interval_of_normal_mean_matches_closed_form():
    data = np.random.default_rng(3).normal(5.0, 2.0, 2_000)
    ours = estimates.bootstrap_interval(data, seed=0, level=0.9, resamples=4_000)
    half = stats.norm.ppf(0.95) * data.std() / math.sqrt(data.size)
    assert ours.low == pytest.approx(data.mean() - half, rel=0, abs=0.1 * half)
    assert ours.high == pytest.approx(data.mean() + half, rel=0, abs=0.1 * half)


def test_bootstrap_interval_is_a_function_of_its_seed():
    one, same, other = (
        estimates.bootstrap_interval(sample(40), seed=s) for s in (1, 1, 2)
    )
    assert one == same and one != other


def test_bootstrap_interval_of_equal_values_is_a_point():
    found = estimates.bootstrap_interval([2.0] * 5, seed=0)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("num", [9, 80])
def test_paired_difference_matches_scipy(num):
    one, two = sample(num), sample(num, 1) - 0.25
    ours = estimates.paired_difference(one, two, seed=0)
    theirs = stats.permutation_test(
        (one, two),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        vectorized=True,
        rng=0,
    )
    assert ours.value == pytest.approx(np.mean(one - two))
    assert ours.low < ours.value < ours.high
    # Exact for 9 prompts; else the standard error of two drawn p-values is below 0.007.
    assert ours.p_value == pytest.approx(
        theirs.pvalue, abs=1e-12 if num == 9 else 0.025
    )


def test_paired_difference_of_equal_systems_is_nothing():
    found = estimates.paired_difference(sample(30), sample(30), seed=0)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_paired_difference_of_a_sure_gain_has_the_least_p_value():
    found = estimates.paired_difference(np.ones(5), np.zeros(5), seed=0)
    assert found.p_value == 2 / 32


@pytest.mark.parametrize("successes, total", [(0, 10), (3, 10), (10, 10), (412, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_proportion_interval_matches_scipy(successes, total, level):
    ours = estimates.proportion_interval(successes, total, level=level)
    theirs = stats.binomtest(successes, total).proportion_ci(level, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("successes, total", [(2.5, 9), (70.5, 102), (0.5, 3)])
def test_proportion_interval_with_halves_matches_statsmodels(successes, total):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    ours = estimates.proportion_interval(successes, total, level=0.9)
    theirs = proportion.proportion_confint(successes, total, 0.1, method="wilson")
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: estimates.bootstrap_interval([1.0], seed=0), "2 or more"),
        (lambda: estimates.bootstrap_interval([1.0, np.nan], seed=0), "1 not finite"),
        (lambda: estimates.bootstrap_interval([1, 2], seed=0, level=95), "level"),
        (lambda: estimates.paired_difference([1, 2], [1], seed=0), "2 and 1"),
        (lambda: estimates.proportion_interval(3, 2), "3 of 2"),
        (lambda: estimates.Estimate(math.nan, 0, 0, 0.95, 1), "finite"),
        (lambda: estimates.Missing(" "), "reason"),
        (lambda: win_rates.win_rate([0.3]), "0.3"),
    ],
)
def test_errors_name_the_value(call, match):
    with pytest.raises(ValueError, match=match):
        call()
