"""credit: shaped rewards and GAE by hand, against a float64 oracle, golden values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import CLOSE, make_case, spoil

from rlcd_jax.ppo import credit
from rlcd_jax.training import masked

pytestmark = pytest.mark.filterwarnings("error")


# --- shaped_rewards -----------------------------------------------------------------


def test_shaped_rewards_by_hand():
    kl = np.array([[1.0, 2.0, 9.0], [1.0, 1.0, 1.0], [9.0, 9.0, 9.0]])
    mask = np.array([[True, True, False], [True, True, True], [False, False, False]])
    scores = np.array([0.9, -1.7, 5.0])
    rewards = credit.shaped_rewards(kl, scores, mask, kl_coef=0.1)
    expected = [[-0.1, 0.7, 0], [-0.1, -0.1, -1.8], [0, 0, 0]]
    np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-7)


def test_shaped_rewards_keep_fractions_of_integer_arrays():
    kl, mask = np.zeros((2, 3), np.int32), np.ones((2, 3), bool)
    rewards = credit.shaped_rewards(kl, np.array([0.9, -1.7]), mask, kl_coef=0.5)
    assert rewards.dtype == jnp.float32
    np.testing.assert_allclose(rewards[:, -1], [0.9, -1.7], rtol=1e-6)
    advantages, returns = credit.gae(rewards, kl, mask, gamma=1.0, lam=1.0)
    assert advantages.dtype == returns.dtype == jnp.float32
    np.testing.assert_allclose(returns[:, 0], [0.9, -1.7], rtol=1e-6)


def test_shaped_rewards_refuse_scores_of_another_length():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        credit.shaped_rewards(
            np.zeros((2, 4)), np.zeros(3), np.ones((2, 4), bool), kl_coef=0.1
        )


# --- gae --------------------------------------------------------------------------


def _gae_oracle(rewards, values, mask, gamma, lam):
    """Return A by its definition: a discounted sum of deltas over counted tokens."""
    advantages = np.zeros(rewards.shape)
    for row in range(len(rewards)):
        places = np.flatnonzero(mask[row])
        r, v = rewards[row][places].astype(float), values[row][places].astype(float)
        delta = r + gamma * np.append(v[1:], 0) - v
        for i, place in enumerate(places):
            weights = (gamma * lam) ** np.arange(len(places) - i)
            advantages[row, place] = weights @ delta[i:]
    return advantages


@pytest.mark.parametrize("gamma, lam", [(1.0, 1.0), (0.9, 0.95), (1.0, 0.0)])
@pytest.mark.parametrize("ragged", [True, False])
def test_gae_matches_definition(gamma, lam, ragged):
    case = make_case(13)
    mask = case["mask"]
    if not ragged:  # any pattern of counted tokens, holes included
        mask = np.random.default_rng(13).random(mask.shape) < 0.6
    case = spoil(case | {"mask": mask}, "rewards", "values")
    advantages, returns = credit.gae(
        case["rewards"], case["values"], mask, gamma=gamma, lam=lam
    )
    oracle = _gae_oracle(case["rewards"], case["values"], mask, gamma, lam)
    np.testing.assert_allclose(advantages, oracle, **CLOSE)
    values = np.where(mask, case["values"], 0)
    np.testing.assert_allclose(returns, oracle + values, **CLOSE)


GOLDEN_REWARDS = np.array([[0, -0.1, 0, 1], [0, 0, -0.2, 0.5]])
GOLDEN_VALUES = np.array([[0.1, 0.2, 0.3, 0.4], [0, 0.1, 0, -0.1]])


def test_gae_golden_values():
    """Five decimals measured in NumPy with AlpacaFarm's formulas, no mask."""
    five_decimals = dict(rtol=0, atol=6e-6)
    whitened = masked.whiten(GOLDEN_REWARDS, None, shift_mean=False)
    expected = [
        [-0.25089, -0.51815, -0.25089, 2.42172],
        [-0.25089, -0.25089, -0.78541, 1.08541],
    ]
    np.testing.assert_allclose(whitened, expected, **five_decimals)
    advantages, returns = credit.gae(whitened, GOLDEN_VALUES, None, gamma=1.0, lam=1.0)
    expected = [
        [1.40178, 1.65268, 2.17083, 2.42172],
        [-0.20178, 0.04911, 0.3, 1.08541],
    ]
    np.testing.assert_allclose(returns, expected, **five_decimals)
    expected = [
        [1.30178, 1.45268, 1.87083, 2.02172],
        [-0.20178, -0.05089, 0.3, 1.18541],
    ]
    np.testing.assert_allclose(advantages, expected, **five_decimals)
    expected = [
        [0.39412, 0.58183, 1.10201, 1.28972],
        [-1.47632, -1.28861, -0.85210, 0.24936],
    ]
    white = masked.whiten(advantages, None, shift_mean=True)
    np.testing.assert_allclose(white, expected, **five_decimals)


def test_gae_golden_values_with_lambda():
    advantages, _ = credit.gae(GOLDEN_REWARDS, GOLDEN_VALUES, None, gamma=1.0, lam=0.95)
    expected = [[0.70467, 0.63650, 0.67, 0.6], [0.24867, 0.15650, 0.27, 0.6]]
    np.testing.assert_allclose(advantages, expected, rtol=0, atol=6e-6)


def test_gae_with_full_mask_equals_no_mask():
    full = np.ones(GOLDEN_REWARDS.shape, bool)
    with_mask = credit.gae(GOLDEN_REWARDS, GOLDEN_VALUES, full, gamma=0.9, lam=0.8)
    without = credit.gae(GOLDEN_REWARDS, GOLDEN_VALUES, None, gamma=0.9, lam=0.8)
    jax.tree.map(np.testing.assert_array_equal, with_mask, without)
