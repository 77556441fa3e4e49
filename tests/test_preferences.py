"""preferences: by hand, against slow float64 oracles, and by their properties."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CLOSE

from rlcd_jax.training import preferences

pytestmark = pytest.mark.filterwarnings("error")
HUGE = np.array([300.0, -300.0, 3e4, -3e4, 0.0], np.float32)


# --- bradley_terry ----------------------------------------------------------------


def test_bradley_terry_by_hand():
    reward_1, reward_2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.0])
    prob_2 = np.array([1.0, 0.25, 0.5])
    loss, metrics = preferences.bradley_terry(reward_1, reward_2, prob_2)
    # softplus(1) - 1; softplus(-1) + 1/4; softplus(0)
    expected = (0.313262 + 0.563262 + 0.693147) / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["preference/accuracy"] == 1
    np.testing.assert_allclose(metrics["preference/decided_rate"], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["preference/soft_accuracy"], (1 + 0.75 + 0.5) / 3, rtol=1e-6
    )
    assert metrics["preference/margin_mean"] == 1
    assert metrics["preference/label_2_rate"] == 0.5
    assert metrics["preference/predicted_2_rate"] == 0.5


def _bce_oracle(reward_1, reward_2, prob_2):
    p = 1 / (1 + np.exp(-(reward_2.astype(np.float64) - reward_1)))
    return np.mean(-prob_2 * np.log(p) - (1 - prob_2) * np.log(1 - p))


@pytest.mark.parametrize("hard", [True, False])
def test_bradley_terry_matches_cross_entropy(hard):
    rng = np.random.default_rng(1)
    reward_1, reward_2 = rng.normal(0, 2, (2, 32)).astype(np.float32)
    prob_2 = rng.random(32).astype(np.float32)
    prob_2 = np.round(prob_2) if hard else prob_2
    loss, metrics = preferences.bradley_terry(reward_1, reward_2, prob_2)
    np.testing.assert_allclose(loss, _bce_oracle(reward_1, reward_2, prob_2), **CLOSE)
    if hard:
        assert metrics["preference/label_entropy"] == 0
    else:
        floor = _bce_oracle(np.log(1 - prob_2), np.log(prob_2), prob_2)
        np.testing.assert_allclose(metrics["preference/label_entropy"], floor, **CLOSE)
        assert loss > metrics["preference/label_entropy"]


def test_bradley_terry_hard_labels_give_log_sigmoid():
    reward_1, reward_2 = np.array([0.3, -2.0]), np.array([1.5, 0.5])
    winner_second = preferences.bradley_terry(reward_1, reward_2, np.ones(2))[0]
    winner_first = preferences.bradley_terry(reward_1, reward_2, np.zeros(2))[0]
    expected = -jax.nn.log_sigmoid(reward_2 - reward_1).mean()
    np.testing.assert_allclose(winner_second, expected, rtol=1e-6)
    expected = -jax.nn.log_sigmoid(reward_1 - reward_2).mean()
    np.testing.assert_allclose(winner_first, expected, rtol=1e-6)


def test_bradley_terry_swapping_replies_and_labels_changes_nothing():
    rng = np.random.default_rng(2)
    reward_1, reward_2 = rng.normal(0, 2, (2, 16)).astype(np.float32)
    prob_2 = (rng.integers(0, 9, 16) / 8).astype(np.float32)
    loss, metrics = preferences.bradley_terry(reward_1, reward_2, prob_2)
    swapped, swapped_metrics = preferences.bradley_terry(reward_2, reward_1, 1 - prob_2)
    np.testing.assert_allclose(loss, swapped, rtol=1e-6)
    for name in ("accuracy", "soft_accuracy", "margin_mean", "label_entropy"):
        name = f"preference/{name}"
        np.testing.assert_allclose(metrics[name], swapped_metrics[name], rtol=1e-5)


def test_bradley_terry_accuracy_of_soft_labels_compares_decisions():
    # Soft labels that all lean to the winner: the release would log accuracy 0.
    prob_2 = np.array([0.9, 0.6, 0.2, 0.4])
    margins = np.array([2.0, 1.0, -1.0, 3.0])
    metrics = preferences.bradley_terry(np.zeros(4), margins, prob_2)[1]
    assert metrics["preference/accuracy"] == 0.75
    np.testing.assert_allclose(
        metrics["preference/soft_accuracy"], (0.9 + 0.6 + 0.8 + 0.4) / 4, rtol=1e-6
    )


def test_bradley_terry_ties_are_wrong_and_undecided_labels_left_out():
    margins, prob_2 = np.array([0.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.5])
    metrics = preferences.bradley_terry(np.zeros(3), margins, prob_2)[1]
    assert metrics["preference/accuracy"] == 0.5
    nothing = preferences.bradley_terry(np.zeros(2), np.ones(2), np.full(2, 0.5))[1]
    assert nothing["preference/accuracy"] == 0
    assert nothing["preference/decided_rate"] == 0


def test_bradley_terry_gradient_moves_rewards_towards_the_label():
    for prob_2, sign in ((1.0, -1), (0.0, 1), (0.8, -1), (0.3, 1)):
        slope = jax.grad(
            lambda r, y=prob_2: preferences.bradley_terry(0.0 * r, r, y)[0]
        )
        assert np.sign(slope(0.0)) == sign
    # The soft optimum: sigmoid(d) = y
    at_optimum = jax.grad(lambda d: preferences.bradley_terry(0.0, d, 0.8)[0])(
        np.log(4.0)
    )
    np.testing.assert_allclose(at_optimum, 0, atol=1e-6)


def test_bradley_terry_is_finite_for_extreme_margins_and_ignores_masked_pairs():
    loss, _ = preferences.bradley_terry(
        np.zeros(2), np.array([300.0, -300.0]), np.eye(2)[0]
    )
    np.testing.assert_allclose(loss, 0, atol=1e-6)
    rewards, labels = np.array([0.5, 0.1, 7.0]), np.array([0.0, 1.0, 0.0])
    mask = np.array([True, True, False])
    kept = preferences.bradley_terry(np.zeros(2), rewards[:2], labels[:2])
    with_padding = preferences.bradley_terry(np.zeros(3), rewards, labels, mask)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), kept, with_padding
    )


def test_bradley_terry_with_a_margin_by_hand_and_without_one_as_ever():
    zero, one, label = np.zeros(2), np.array([1.0, 1.0]), np.array([1.0, 0.25])
    margin = np.array([3.0, 2.0])
    loss, metrics = preferences.bradley_terry(zero, one, label, margin=margin)
    # softplus(3 - 1); softplus(2 - 1) / 4 + 3 softplus(2 + 1) / 4
    by_hand = (2.126928 + (1.313262 + 3 * 3.048587) / 4) / 2
    np.testing.assert_allclose(loss, by_hand, rtol=1e-6)
    plain, same = preferences.bradley_terry(zero, one, label)
    none, _ = preferences.bradley_terry(zero, one, label, margin=zero)
    np.testing.assert_allclose(none, plain, rtol=1e-6)
    assert {**metrics, "preference/loss": 0} == {**same, "preference/loss": 0}


def test_bradley_terry_with_a_margin_is_least_where_a_larger_one_is_asked_for():
    """Of a hard label the gradient still pulls at d = m, half as strong as at most."""

    def slope(d, m):
        one = np.ones(1)
        of = lambda x: preferences.bradley_terry(0 * one, x * one, one, margin=m)[0]  # noqa: E731
        return float(jax.grad(of)(d))

    assert slope(2.0, np.array([2.0])) == pytest.approx(-0.5, rel=1e-6)
    assert slope(2.0, np.array([0.0])) == pytest.approx(-0.119203, rel=1e-5)
    with pytest.raises(ValueError, match=r"margin \(2,\)"):
        preferences.bradley_terry(*np.zeros((3, 1)), margin=np.zeros(2))


# --- ties ---------------------------------------------------------------------------


def _rao_kupper(d, y, width, band):
    """Return the loss of one pair, by the model's three chances as they are defined."""
    theta, first, second = math.exp(width), 1.0, math.exp(d)
    p_2 = second / (second + theta * first)
    p_1 = first / (first + theta * second)
    if abs(y - 0.5) <= band:
        return -math.log(1.0 - p_1 - p_2)
    return -y * math.log(p_2) - (1.0 - y) * math.log(p_1)


def test_ties_by_hand():
    """With theta = 2 two equal replies are a tie, or either better, by thirds."""
    width = math.log(2.0)
    for label in (0.0, 0.5, 1.0):
        loss, shown = preferences.ties(
            *np.ones((2, 1)), np.array([label]), width=width, band=0.0
        )
        np.testing.assert_allclose(loss, math.log(3.0), rtol=1e-6)
    # Twice as good: 2 / (2 + 2), 1 / (1 + 4), and the rest.
    labels, expected = np.array([1.0, 0.0, 0.5]), (0.5, 0.2, 0.3)
    loss, shown = preferences.ties(
        np.zeros(3), np.full(3, width), labels, width=width, band=0.1
    )
    np.testing.assert_allclose(loss, -np.log(expected).mean(), rtol=1e-6)
    assert float(shown["preference/accuracy"]) == 0.5  # of the two that are no tie
    np.testing.assert_allclose(shown["preference/decided_rate"], 2 / 3, rtol=1e-6)
    assert float(shown["preference/predicted_tie_rate"]) == 0.0


@pytest.mark.parametrize(("width", "band"), [(0.05, 0.0), (0.7, 0.1), (3.0, 0.25)])
def test_ties_match_their_definition_in_float64(width, band):
    rng = np.random.default_rng(4)
    reward_1, reward_2 = rng.normal(0, 2, (2, 64)).astype(np.float32)
    y = (rng.integers(0, 9, 64) / 8).astype(np.float32)
    loss, shown = preferences.ties(reward_1, reward_2, y, width=width, band=band)
    d = reward_2.astype(np.float64) - reward_1
    each = [_rao_kupper(*one, width, band) for one in zip(d, y, strict=True)]
    np.testing.assert_allclose(loss, np.mean(each), **CLOSE)
    likeliest = [
        min((0.0, 0.5, 1.0), key=lambda z, d=d: _rao_kupper(d, z, width, 0.0))
        for d in d
    ]
    np.testing.assert_allclose(
        shown["preference/predicted_tie_rate"],
        np.mean(np.equal(likeliest, 0.5)),
        rtol=1e-6,
    )


def test_ties_of_no_width_are_bradley_terry_on_what_is_no_tie():
    rng = np.random.default_rng(5)
    reward_1, reward_2 = rng.normal(0, 2, (2, 32)).astype(np.float32)
    y = np.where(rng.random(32) < 0.5, 0.9, 0.2).astype(np.float32)
    narrow, _ = preferences.ties(reward_1, reward_2, y, width=1e-6, band=0.1)
    plain, _ = preferences.bradley_terry(reward_1, reward_2, y)
    np.testing.assert_allclose(narrow, plain, rtol=1e-5)
    wide, _ = preferences.ties(reward_1, reward_2, y, width=1.5, band=0.1)
    ahead, _ = preferences.bradley_terry(reward_1, reward_2, y, margin=np.full(32, 1.5))
    np.testing.assert_allclose(wide, ahead, rtol=1e-6)


@pytest.mark.parametrize("label", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [1e-6, 1.0, 50.0])
def test_ties_are_exact_and_finite_at_extremes(label, width):
    """A tie at |d| = 300 costs 300 - t - log(1 - exp(-2 t)), and pulls with force 1."""
    y = np.full(5, label, np.float32)

    def of(d):
        return preferences.ties(np.zeros(5), d, y, width=width, band=0.0)[0] * 5

    value, slope = jax.value_and_grad(of)(jnp.asarray(HUGE))
    assert np.isfinite(value) and np.all(np.isfinite(slope))
    if label == 0.5:
        np.testing.assert_allclose(slope, np.sign(HUGE), atol=1e-6)
        one = preferences.ties(
            np.zeros(1), np.full(1, 300.0), y[:1], width=width, band=0.0
        )
        log_rest = math.log(-math.expm1(-2 * width))
        np.testing.assert_allclose(one[0], 300.0 - width - log_rest, rtol=1e-5)


def test_ties_ignore_masked_pairs_and_the_order_of_replies():
    rng = np.random.default_rng(6)
    one, two, y = rng.normal(0, 2, (3, 9)).astype(np.float32)
    y = 1 / (1 + np.exp(-y))
    own = {"width": 0.4, "band": 0.2}
    value, _ = preferences.ties(one, two, y, **own)
    np.testing.assert_allclose(
        preferences.ties(two, one, 1 - y, **own)[0], value, rtol=1e-5
    )
    some = preferences.ties(one, two, y, np.arange(9) < 5, **own)
    alone = preferences.ties(one[:5], two[:5], y[:5], **own)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), some, alone)


def test_ties_refuse_numbers_without_a_meaning():
    three = np.zeros((3, 2))
    with pytest.raises(ValueError, match="width is 0.0; it must be > 0"):
        preferences.ties(*three, width=0.0, band=0.1)
    with pytest.raises(ValueError, match="band is 0.5; it must be from 0 to below 1/2"):
        preferences.ties(*three, width=1.0, band=0.5)


# --- plackett_luce ------------------------------------------------------------------


def test_plackett_luce_by_hand():
    """Odds 4 : 2 : 1 in order: 4/7 is chosen first, then 2/3."""
    rewards, mask = np.log([[4.0, 2.0, 1.0]]), np.ones((1, 3), bool)
    loss, shown = preferences.plackett_luce(rewards, np.array([[3.0, 2.0, 1.0]]), mask)
    np.testing.assert_allclose(loss, -np.log(4 / 7 * 2 / 3), rtol=1e-6)
    assert float(shown["preference/accuracy"]) == 1.0
    assert float(shown["preference/best_rate"]) == 1.0
    assert float(shown["preference/decided_rate"]) == 1.0
    # The last two are tied: each is chosen of both.
    loss, shown = preferences.plackett_luce(rewards, np.array([[3.0, 1.0, 1.0]]), mask)
    np.testing.assert_allclose(loss, -np.log(4 / 7 * 2 / 3 * 1 / 3), rtol=1e-6)
    np.testing.assert_allclose(shown["preference/decided_rate"], 2 / 3, rtol=1e-6)
    # The best two are tied: each is chosen of all three.
    loss, shown = preferences.plackett_luce(rewards, np.array([[1.0, 5.0, 5.0]]), mask)
    np.testing.assert_allclose(loss, -np.log(2 / 7 * 1 / 7), rtol=1e-6)
    assert float(shown["preference/accuracy"]) == 0.0
    assert float(shown["preference/best_rate"]) == 0.0
    assert float(shown["preference/replies"]) == 3.0


def _chosen_one_by_one(rewards, grades, mask):
    """Return the mean over rows, float64: Breslow, a grade at a time from the best."""
    values = []
    for r, g, m in zip(rewards.astype(np.float64), grades, mask, strict=True):
        r, g = r[m], g[m]
        if len(r) < 2:
            continue
        total = 0.0
        for grade in sorted(set(g), reverse=True):
            chance = np.exp(r) / np.exp(r[g <= grade]).sum()
            total -= np.log(chance[g == grade]).sum()
        values.append(total)
    return np.mean(values)


@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_plackett_luce_matches_choices_one_by_one(levels):
    rng = np.random.default_rng(levels)
    rewards = rng.normal(0, 2, (12, 6)).astype(np.float32)
    grades = rng.integers(0, levels, (12, 6)).astype(np.float32)
    mask = rng.random((12, 6)) < 0.7
    loss, _ = preferences.plackett_luce(rewards, grades, mask)
    np.testing.assert_allclose(loss, _chosen_one_by_one(rewards, grades, mask), **CLOSE)


def test_plackett_luce_is_a_chance_of_orders():
    """Over all orders of replies without ties the chances add up to one."""
    rewards, mask = np.array([[0.3, -1.0, 2.0, 0.0]]), np.ones((1, 4), bool)
    total = sum(
        math.exp(-preferences.plackett_luce(rewards, np.array([order]), mask)[0])
        for order in itertools.permutations((1.0, 2.0, 3.0, 4.0))
    )
    assert total == pytest.approx(1.0, rel=1e-5)


def test_plackett_luce_of_two_replies_is_bradley_terry():
    rng = np.random.default_rng(7)
    rewards = rng.normal(0, 2, (16, 2)).astype(np.float32)
    grades = rng.permuted(np.tile([0.0, 1.0], (16, 1)), axis=1)
    mask = np.ones((16, 2), bool)
    loss, shown = preferences.plackett_luce(rewards, grades, mask)
    y = grades[:, 1]
    plain, said = preferences.bradley_terry(rewards[:, 0], rewards[:, 1], y)
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    for name in ("accuracy", "margin_mean", "reward_mean", "decided_rate"):
        name = f"preference/{name}"
        np.testing.assert_allclose(shown[name], said[name], rtol=1e-5)
    tied, _ = preferences.plackett_luce(rewards, 0 * grades, mask)
    half, _ = preferences.bradley_terry(rewards[:, 0], rewards[:, 1], np.full(16, 0.5))
    np.testing.assert_allclose(tied, 2 * half, rtol=1e-6)


def test_plackett_luce_ignores_a_shift_of_a_row_and_what_is_no_reply():
    rng = np.random.default_rng(8)
    rewards = rng.normal(0, 2, (5, 4)).astype(np.float32)
    grades = rng.integers(0, 3, (5, 4)).astype(np.float32)
    mask = np.arange(4) < np.array([4, 3, 2, 1, 0])[:, None]  # two rows do not count
    junk = np.where(mask, 0.0, np.array([np.nan, np.inf, 1e30, -7.0]))
    slope = jax.grad(lambda r, g: preferences.plackett_luce(r, g, mask)[0])
    value, shown = preferences.plackett_luce(rewards, grades, mask)
    spoilt, said = preferences.plackett_luce(rewards + junk, grades + junk, mask)
    assert value == spoilt and shown == said
    np.testing.assert_array_equal(
        slope(rewards + junk, grades + junk), slope(rewards, grades)
    )
    moved, _ = preferences.plackett_luce(
        rewards + np.arange(5.0)[:, None], grades, mask
    )
    np.testing.assert_allclose(moved, value, rtol=1e-5)
    np.testing.assert_allclose(slope(rewards, grades).sum(axis=1), 0.0, atol=1e-6)
    assert np.all(np.asarray(slope(rewards, grades))[~mask] == 0.0)
    assert np.all(np.asarray(slope(rewards, grades))[3:] == 0.0)


def test_plackett_luce_gradient_moves_the_best_up_and_the_last_down_even_far_away():
    grades, mask = np.array([[2.0, 1.0, 0.0]]), np.ones((1, 3), bool)
    for scale in (0.0, 1.0, 3e4):
        rewards = scale * np.array([[-1.0, 0.0, 1.0]])
        value, slope = jax.value_and_grad(
            lambda r: preferences.plackett_luce(r, grades, mask)[0]
        )(rewards)
        assert np.isfinite(value)
        assert slope[0, 0] < 0 < slope[0, 2]
    with pytest.raises(ValueError, match=r"grades \(1, 2\)"):
        preferences.plackett_luce(rewards, grades[:, :2], mask)
