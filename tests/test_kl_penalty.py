"""kl_penalty: every estimator by hand, its bias, and the coefficient's rule."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.ppo import kl_penalty

pytestmark = pytest.mark.filterwarnings("error")


def test_kl_per_token_by_hand():
    logprobs, ref = np.array([-1.0, -2.0, -1.0]), np.array([-2.0, -1.0, -1.0])
    expected = {
        "k1": [1, -1, 0],
        "k2": [0.5, 0.5, 0],
        "k3": [np.exp(-1), np.e - 2, 0],
        "k1_clamped": [1, 0, 0],
    }
    assert set(expected) == set(kl_penalty.KL_ESTIMATORS)
    for estimator, numbers in expected.items():
        actual = kl_penalty.kl_per_token(logprobs, ref, estimator=estimator)
        np.testing.assert_allclose(actual, numbers, rtol=1e-6)
        assert actual.dtype == jnp.float32


def test_kl_per_token_estimators_have_their_stated_bias():
    # Exact expectations under the policy p, over 5 tokens.
    p = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    q = np.array([0.2, 0.3, 0.25, 0.05, 0.2])
    exact = np.sum(p * np.log(p / q))
    expectation = {
        name: float(p @ kl_penalty.kl_per_token(np.log(p), np.log(q), estimator=name))
        for name in kl_penalty.KL_ESTIMATORS
    }
    np.testing.assert_allclose(expectation["k1"], exact, rtol=1e-5)
    np.testing.assert_allclose(expectation["k3"], exact, rtol=1e-5)
    assert expectation["k1_clamped"] > exact * 1.2


def test_kl_per_token_refuses_an_unknown_estimator():
    with pytest.raises(ValueError, match="'k4'.*k1.*k3"):
        kl_penalty.kl_per_token(np.zeros(2), np.zeros(2), estimator="k4")


def test_adapt_kl_coef_by_hand():
    # A horizon of ten times the replies of a step is AlpacaFarm's factor of 0.1.
    rule = dict(target=6.0, horizon=5120, replies=512)
    for kl, wanted in ((6.0, 0.5), (6.6, 0.505), (60.0, 0.51), (-1.0, 0.49)):
        moved = kl_penalty.adapt_kl_coef(0.5, kl, **rule)
        np.testing.assert_allclose(moved, wanted, rtol=1e-6)
    for name in rule:
        with pytest.raises(ValueError, match=f"{name} 0"):
            kl_penalty.adapt_kl_coef(0.5, 1.0, **(rule | {name: 0}))


def test_adapt_kl_coef_counts_replies_whatever_the_steps():
    """Forty steps of 512 replies at 100 times the target, horizon 10,000."""
    kl_coef = 0.02
    for _ in range(40):
        kl_coef = kl_penalty.adapt_kl_coef(
            kl_coef, 600.0, target=6.0, horizon=10_000, replies=512
        )
    np.testing.assert_allclose(kl_coef, 0.02 * (1 + 0.2 * 0.0512) ** 40, rtol=1e-5)
    np.testing.assert_allclose(kl_coef, 0.0300616, rtol=1e-5)
