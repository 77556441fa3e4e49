"""The losses of a policy on pairs: by hand, by a float64 oracle, by properties."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.training import preferences

RATIOS = st.floats(-20, 20, width=32)
EASY = st.floats(0, 1, width=32)


def oracle(r_1, r_2, y, loss, beta):
    """Return the mean over pairs, one pair and one label at a time."""
    total = 0.0
    for one, two, soft in zip(r_1, r_2, y, strict=True):
        for label, chance in ((0, 1.0 - soft), (1, soft)):
            better, worse = (two, one) if label else (one, two)
            if loss == "dpo":
                value = -np.log(1.0 / (1.0 + np.exp(-beta * (better - worse))))
            elif loss == "ipo":
                value = (better - worse - 1.0 / (2.0 * beta)) ** 2
            else:
                wins, loses = (
                    1.0 - 1.0 / (1.0 + np.exp(-sign * beta * ratio))
                    for sign, ratio in ((1, better), (-1, worse))
                )
                value = (wins + loses) / 2.0
            total += chance * value
    return total / len(y)


def test_by_hand():
    r_1, r_2, y = np.array([1.0]), np.array([3.0]), np.array([1.0])
    dpo, shown = preferences.direct(r_1, r_2, y, loss="dpo", beta=0.5)
    np.testing.assert_allclose(dpo, np.log1p(np.exp(-1.0)), rtol=1e-6)
    ipo, _ = preferences.direct(r_1, r_2, y, loss="ipo", beta=0.5)
    np.testing.assert_allclose(ipo, (2.0 - 1.0) ** 2, rtol=1e-6)
    kto, _ = preferences.direct(r_1, r_2, y, loss="kto", beta=0.5)
    by_hand = (1 / (1 + np.exp(1.5)) + 1 / (1 + np.exp(-0.5))) / 2
    np.testing.assert_allclose(kto, by_hand, rtol=1e-6)
    assert float(shown["direct/better_log_ratio"]) == 3.0
    assert float(shown["direct/worse_log_ratio"]) == 1.0
    assert float(shown["direct/accuracy"]) == 1.0
    np.testing.assert_allclose(shown["direct/margin_mean"], 1.0)


@pytest.mark.parametrize("loss", preferences.DIRECT)
@given(data=st.data())
def test_equals_the_oracle_for_hard_and_soft_labels(loss, data):
    size = 4
    r_1, r_2 = (data.draw(st.lists(RATIOS, min_size=size, max_size=size)) for _ in "ab")
    y = data.draw(st.lists(EASY, min_size=size, max_size=size))
    beta = data.draw(st.sampled_from([0.05, 0.1, 0.5]))
    value, _ = preferences.direct(*map(np.array, (r_1, r_2, y)), loss=loss, beta=beta)
    np.testing.assert_allclose(value, oracle(r_1, r_2, y, loss, beta), rtol=2e-4)


@pytest.mark.parametrize("loss", preferences.DIRECT)
def test_the_start_is_the_reference_and_the_gradient_parts_the_replies(loss):
    zero, y = np.zeros(3), np.array([1.0, 0.0, 1.0])
    value, shown = preferences.direct(zero, zero, y, loss=loss, beta=0.1)
    start = {"dpo": np.log(2.0), "ipo": 25.0, "kto": 0.5}[loss]
    np.testing.assert_allclose(value, start, rtol=1e-6)
    assert float(shown["direct/accuracy"]) == 0.0  # a tie is wrong

    def of(r_1, r_2):
        return preferences.direct(r_1, r_2, y, loss=loss, beta=0.1)[0]

    slope_1, slope_2 = jax.grad(of, argnums=(0, 1))(zero, zero)
    assert np.all(np.where(y == 1.0, slope_2 < 0, slope_2 > 0))
    np.testing.assert_allclose(slope_1, -slope_2, rtol=1e-6)


@pytest.mark.parametrize("loss", preferences.DIRECT)
def test_swapped_replies_and_masked_pairs_change_nothing(loss):
    rng = np.random.default_rng(0)
    r_1, r_2, y = rng.normal(0, 3, 6), rng.normal(0, 3, 6), rng.uniform(0, 1, 6)
    value, _ = preferences.direct(r_1, r_2, y, loss=loss, beta=0.3)
    swapped, _ = preferences.direct(r_2, r_1, 1.0 - y, loss=loss, beta=0.3)
    np.testing.assert_allclose(value, swapped, rtol=1e-5)
    mask = np.arange(6) < 4
    some, _ = preferences.direct(r_1, r_2, y, mask, loss=loss, beta=0.3)
    alone, _ = preferences.direct(r_1[:4], r_2[:4], y[:4], loss=loss, beta=0.3)
    np.testing.assert_allclose(some, alone, rtol=1e-5)


def test_what_is_refused():
    one = np.ones(1)
    with pytest.raises(ValueError, match="loss is 'orpo'; accepted: dpo, ipo, kto"):
        preferences.direct(one, one, one, loss="orpo", beta=0.1)
    with pytest.raises(ValueError, match="beta is 0.0; it must be > 0"):
        preferences.direct(one, one, one, loss="dpo", beta=0.0)
