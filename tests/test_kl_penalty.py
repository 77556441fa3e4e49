"""kl_penalty: every estimator by hand, and its bias."""

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
