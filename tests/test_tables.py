"""Tests of rlcd_jax.estimates, rlcd_jax.win_rates and rlcd_jax.tables."""

import json
import math

import numpy as np
import pytest
from scipy import special, stats

from rlcd_jax.statistics import diversity, estimates, tables, win_rates


def sample(num, seed=0):
    return np.random.default_rng(seed).gamma(2.0, 1.0, num)


# --- estimates --------------------------------------------------------------


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_interval_matches_scipy(method, statistic):
    data = sample(60)
    ours = estimates.bootstrap_interval(
        data, seed=1, statistic=statistic, method=method, resamples=20_000
    )
    theirs = stats.bootstrap(
        (data,), statistic, n_resamples=20_000, method=method, rng=2
    ).confidence_interval
    # Two independent draws: the standard error of a bootstrap quantile is near 0.01 here.
    assert ours.value == pytest.approx(statistic(data))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.04)
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


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_interval_of_equal_values_is_a_point(method):
    found = estimates.bootstrap_interval([2.0] * 5, seed=0, method=method)
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


def test_distinct_n_by_hand():
    texts = ["a b a b".split(), "a b c".split(), ["a"]]
    assert diversity.distinct_n(texts, 1) == 3 / 8
    assert diversity.distinct_n(texts, 2) == 3 / 5  # ab ba bc of ab ba ab ab bc
    assert diversity.distinct_n(texts, 5) == estimates.Missing(
        "no text of 5 words or more"
    )


def test_length_stats_by_hand():
    found = estimates.length_stats([1, 2, 3, 4, 10])
    assert (found.mean, found.median, found.num) == (4.0, 3.0, 5)
    assert found.sd == pytest.approx(math.sqrt(50 / 4))
    assert isinstance(estimates.length_stats([1]), estimates.Missing)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: estimates.bootstrap_interval([1.0], seed=0), "2 or more"),
        (lambda: estimates.bootstrap_interval([1.0, np.nan], seed=0), "1 not finite"),
        (lambda: estimates.bootstrap_interval([1, 2], seed=0, level=95), "level"),
        (lambda: estimates.bootstrap_interval([1, 2], seed=0, method="t"), "'t'"),
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


# --- win rates --------------------------------------------------------------


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


# --- tables -----------------------------------------------------------------


def table(num=200):
    rate = estimates.Estimate(0.71, 0.643, 0.769, 0.95, num)
    return tables.Table(
        caption="RLCD against others",
        row_header="Comparison",
        columns=(
            tables.Column("Win rate", digits=1, percent=True),
            tables.Column("Mean"),
            tables.Column("Judge"),
            tables.Column("Flips"),
        ),
        rows=(
            ("rlcd | rlaif", (rate, 1.23456, "lexicon", 3)),
            (
                "rlcd | rescore",
                (estimates.Missing("no\nreplies"), math.nan, "x", np.int64(4)),
            ),
        ),
        notes=("Seed 0.",),
    )


def test_markdown_is_aligned_and_complete():
    text = tables.markdown(table())
    assert text == (
        "**RLCD against others**\n\n"
        "| Comparison      |            Win rate |                      Mean |   Judge | Flips |\n"
        "| --------------- | ------------------: | ------------------------: | ------: | ----: |\n"
        "| rlcd \\| rlaif   |   71.0 [64.3, 76.9] |                      1.23 | lexicon |     3 |\n"
        "| rlcd \\| rescore | missing: no replies | missing: the value is nan |       x |     4 |\n\n"
        "- Brackets: 95 % intervals.\n- n = 200 in every cell.\n- Seed 0.\n"
    )


def test_markdown_gives_each_cell_its_n_when_they_differ():
    one, two = table(200), table(150)
    both = tables.Table("c", "Comparison", one.columns, one.rows + two.rows)
    text = tables.markdown(both)
    assert "[64.3, 76.9] n=200" in text and "n=150" in text and "every cell" not in text


def test_write_table_leaves_markdown_and_json(tmp_path):
    tables.write_table(table(), tmp_path / "evaluate")
    assert (tmp_path / "evaluate/table.md").read_text() == tables.markdown(table())
    data = json.loads((tmp_path / "evaluate/table.json").read_text())
    first, second = (row["cells"] for row in data["rows"])
    assert first["Win rate"] == {
        "value": 0.71, "low": 0.643, "high": 0.769, "level": 0.95, "num": 200, "p_value": None
    }  # fmt: skip
    assert second["Win rate"] == {"missing": "no\nreplies"}
    assert second["Mean"] == {"missing": "the value is nan"} and second["Flips"] == 4


def test_table_refuses_a_row_of_another_width():
    with pytest.raises(ValueError, match="'r' .* 1 cells for 2 columns"):
        tables.Table("c", "h", (tables.Column("a"), tables.Column("b")), (("r", (1,)),))
