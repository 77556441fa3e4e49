"""win_rates: ties, control for length, how often it covers, agreement."""

import warnings

import numpy as np
import pytest
from scipy import special, stats

from rlcd_jax.statistics import estimates, win_rates


def test_win_rate_counts_a_tie_as_half():
    found = win_rates.win_rate([1, 1, 1, 0.5, 0, 0.5])
    assert found.value == pytest.approx(4 / 6) and found.num == 6
    assert found.p_value == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert win_rates.win_rate([0.5, 0.5]).p_value == 1.0
    assert win_rates.win_rate([]) == estimates.Missing("no verdicts")


def test_length_controlled_win_rate_matches_two_groups():
    """With two length differences the model is saturated: the logits are on a line."""
    groups = ((10, 30, 40), (-5, 12, 40))  # difference, wins, verdicts
    points, gaps = [], []
    for gap, wins, num in groups:
        points += [1.0] * wins + [0.0] * (num - wins)
        gaps += [gap] * num
    (g1, w1, n1), (g2, w2, n2) = groups
    logit_1, logit_2 = special.logit(w1 / n1), special.logit(w2 / n2)
    expected = special.expit(logit_1 - g1 * (logit_2 - logit_1) / (g2 - g1))
    found = win_rates.length_controlled_win_rate(points, np.array(gaps) + 50, [50] * 80)
    assert found.value == pytest.approx(expected, abs=1e-7)
    assert found.low < expected < found.high


def test_length_controlled_win_rate_matches_statsmodels():
    """A GLM with ties as half a win and two verdicts a prompt, prompts as clusters."""
    models = pytest.importorskip("statsmodels.genmod.generalized_linear_model")
    families = pytest.importorskip("statsmodels.genmod.families")
    rng = np.random.default_rng(4)
    points = rng.choice([0, 0.5, 1.0], 120, p=[0.3, 0.1, 0.6])
    gap, prompts = rng.integers(-20, 30, 120), np.arange(120) // 2
    design = np.stack([np.ones(120), gap / gap.std()], axis=1)
    told = {"groups": prompts, "use_correction": False}
    with warnings.catch_warnings():  # a tie is no count of wins, which it remarks on
        warnings.simplefilter("ignore")
        fit = models.GLM(points, design, family=families.Binomial()).fit(
            cov_type="cluster", cov_kwds=told, tol=1e-12
        )
    half = stats.t.ppf(0.95, 58) * np.sqrt(fit.cov_params()[0, 0] * 60 / 59)
    expected = special.expit(fit.params[0] + np.array([-half, 0, half]))
    found = win_rates.length_controlled_win_rate(
        points, gap, np.zeros(120), prompts=prompts.astype(str).tolist(), level=0.9
    )
    assert (found.low, found.value, found.high) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("wins", "losses"), [(3, 9), (10, 10), (0, 4), (40, 61)])
def test_win_rate_has_the_p_value_of_mcnemar(wins, losses):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    found = win_rates.win_rate([1.0] * wins + [0.0] * losses + [0.5] * 3)
    theirs = tables.mcnemar([[5, wins], [losses, 7]], exact=True)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


def test_length_controlled_win_rate_removes_a_love_of_length():
    rng = np.random.default_rng(0)
    one, two = rng.normal(120, 30, 4_000), rng.normal(90, 30, 4_000)
    points = (rng.random(4_000) < special.expit(0.05 * (one - two))).astype(float)
    assert win_rates.win_rate(points).value > 0.7
    found = win_rates.length_controlled_win_rate(points, one, two)
    assert found.low < 0.5 < found.high


def test_length_controlled_win_rate_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth, hits = 0.6, 0
    for _ in range(200):
        gap = rng.normal(5, 10, 150)
        share = special.expit(special.logit(truth) + 0.05 * gap)
        found = win_rates.length_controlled_win_rate(
            (rng.random(150) < share).astype(float), gap, np.zeros(150)
        )
        hits += found.low <= truth <= found.high
    assert 180 <= hits <= 199  # binomial(200, 0.95): 4.5 standard errors below, 3 above


def test_length_controlled_win_rate_is_not_fooled_by_copies():
    """A verdict that stands there four times says what it says once."""
    rng = np.random.default_rng(2)
    points, gap = rng.choice([0, 0.5, 1.0], 40), rng.normal(0, 9, 40)
    names = [f"p{i}" for i in range(40)]
    zeros = np.zeros(40)
    once = win_rates.length_controlled_win_rate(points, gap, zeros)
    four = win_rates.length_controlled_win_rate(
        np.tile(points, 4), np.tile(gap, 4), np.zeros(160), prompts=names * 4
    )
    assert four.num == once.num == 40
    for field in ("value", "low", "high"):
        assert getattr(four, field) == pytest.approx(getattr(once, field), abs=1e-6)
    ignored = win_rates.length_controlled_win_rate(
        np.tile(points, 4), np.tile(gap, 4), np.zeros(160)
    )
    assert ignored.high - ignored.low < 0.6 * (once.high - once.low)


def test_length_controlled_win_rate_at_equal_lengths_is_the_mean():
    points = np.array([1.0, 1.0, 0.0, 0.5] * 12)
    names = [f"p{i // 2}" for i in range(48)]
    found = win_rates.length_controlled_win_rate(
        points, np.ones(48), np.ones(48), prompts=names
    )
    assert found.value == pytest.approx(0.625) and found.num == 24
    # By hand: the sums of a prompt are 2 - 1.25 and 0.5 - 1.25, by turns.
    width = np.sqrt(24 / 23 * 24 * 0.75**2) / (48 * 0.625 * 0.375)
    width *= special.stdtrit(23, 0.975)
    expected = special.expit(special.logit(0.625) + np.array([-width, width]))
    assert (found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("draws", [1, 4])
def test_length_controlled_win_rate_covers_with_draws_that_are_alike(draws):
    """Prompts differ in how often the first system wins; the intervals know it."""
    rng = np.random.default_rng(3)
    names = np.repeat([f"p{i}" for i in range(60)], draws)
    truth = np.mean(special.expit(1.5 * rng.normal(size=1_000_000) + 0.3))
    hits = 0
    for _ in range(200):
        own = np.repeat(1.5 * rng.normal(size=60) + 0.3, draws)
        gap = rng.normal(0, 10, own.size)
        points = (rng.random(own.size) < special.expit(own)).astype(float)
        found = win_rates.length_controlled_win_rate(
            points, gap, np.zeros(own.size), prompts=list(names)
        )
        hits += found.low <= truth <= found.high
    assert 180 <= hits <= 199


def test_length_controlled_win_rate_says_why_there_is_none():
    up = np.arange(20.0)
    control = win_rates.length_controlled_win_rate
    cases = [
        (control([1.0] * 5, up[:5], up[:5]), "too few"),
        (control([1.0] * 20, up, up[::-1]), "decides every verdict"),
        (
            control([0.0] * 10 + [1.0] * 10, up, np.full(20, 9.5)),
            "decides every verdict",
        ),
        (control([0.0, 1.0] * 10, up + 3, up), "same on every prompt"),
    ]
    for found, why in cases:
        assert isinstance(found, estimates.Missing) and why in found.reason
    assert control([1.0, 0.0] * 10, up, up) == win_rates.win_rate([1.0, 0.0] * 10)


def test_agreement_rate_leaves_ties_out():
    found = win_rates.agreement_rate([1, 0, 1, 0.5, 1], [1, 1, 1, 1, 0.5])
    assert found.value == pytest.approx(2 / 3) and found.num == 3
    assert isinstance(win_rates.agreement_rate([0.5], [1]), estimates.Missing)


def test_human_agreement_counts_equal_rewards_as_wrong():
    accuracy, probability = win_rates.human_agreement(
        [1, 2, 0, 3], [0, 2, 1, 1], seed=0
    )
    assert accuracy.value == 0.5 and accuracy.num == 4
    expected = special.expit([1.0, 0.0, -1.0, 2.0]).mean()
    assert probability.value == pytest.approx(expected)
    assert probability.low < expected < probability.high
    with pytest.raises(ValueError, match="2 chosen but 3"):
        win_rates.human_agreement([1, 2], [1, 2, 3], seed=0)
