"""Rollouts by hand, against a float64 oracle, and by what must hold at step one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from rlcd_jax.ppo import kl_penalty, rollout, step_notes
from rlcd_jax.training import losses, masked

pytestmark = pytest.mark.filterwarnings("error")

CLOSE = dict(rtol=1e-5, atol=1e-5)  # float32 against float64
RELEASED = rollout.AdvantageRules(
    kl_estimator="k1_clamped",
    gamma=1.0,
    lam=1.0,
    whiten_rewards=True,
    whiten_advantages=True,
    statistics="padded",
)
CORRECTED = dataclasses.replace(RELEASED, kl_estimator="k1", statistics="masked")
PLAIN = dataclasses.replace(CORRECTED, whiten_rewards=False, whiten_advantages=False)
LENGTHS = (4, 2, 1, 3)


def _mask(lengths=LENGTHS, response_length=4):
    return np.arange(response_length) < np.array(lengths)[:, None]


def _arrays(seed=0):
    rng = np.random.default_rng(seed)
    logprobs, ref_logprobs = -rng.random((2, 4, 4)).astype(np.float32) * 2
    values = rng.normal(0, 1, (4, 4)).astype(np.float32)
    return logprobs, ref_logprobs, values, np.array([0.9, -1.7, 0.3, 2.4], np.float32)


# --- terminal_rule ------------------------------------------------------------------


def test_terminal_rule_by_hand():
    scores = np.array([3.0, 2.0, -4.0, 1.0])
    finished = np.array([True, False, True, False])
    empty = np.array([False, False, True, True])
    expected = {
        "replace": (-1.0, [3, -1, -1, -1]),
        "subtract": (0.5, [3, 1.5, -4.5, 0.5]),
        "none": (-1.0, [3, 2, -4, 1]),
    }
    assert set(expected) == set(rollout.TERMINAL_MODES)
    for mode, (value, numbers) in expected.items():
        actual, metrics = rollout.terminal_rule(
            scores, finished, empty, mode=mode, value=value
        )
        np.testing.assert_array_equal(actual, numbers)
        assert actual.dtype == jnp.float32
        assert metrics["rollout/unfinished_rate"] == 0.5
        assert metrics["rollout/empty_rate"] == 0.5
        assert metrics["rollout/raw_score_mean"] == 0.5


def test_terminal_rule_refuses_what_would_reward_unfinished_replies():
    flags = np.ones(1, bool)
    with pytest.raises(ValueError, match="-1.0.*bonus"):
        rollout.terminal_rule(np.ones(1), flags, flags, mode="subtract", value=-1.0)
    with pytest.raises(ValueError, match="'add'.*replace"):
        rollout.terminal_rule(np.ones(1), flags, flags, mode="add", value=-1.0)


# --- assemble -----------------------------------------------------------------------


def test_assemble_by_hand():
    mask = _mask(lengths=(2, 1), response_length=2)
    made, metrics = rollout.assemble(
        mask,
        np.array([[-1.0, -1.0], [-2.0, 0.0]]),
        np.array([[-2.0, -1.5], [-1.0, 0.0]]),
        np.array([[0.5, 0.25], [0.0, 9.0]]),
        np.array([1.0, -0.5]),
        kl_coef=0.1,
        rules=PLAIN,
        entropy=np.array([[1.0, 2.0], [3.0, 99.0]]),
    )
    # k1: 1, 0.5 | -1. The score at the last counted token.
    np.testing.assert_allclose(made.rewards, [[-0.1, 0.95], [-0.4, 0]], rtol=1e-6)
    np.testing.assert_allclose(made.returns, [[0.85, 0.95], [-0.4, 0]], rtol=1e-6)
    np.testing.assert_allclose(made.advantages, [[0.35, 0.7], [-0.4, 0]], rtol=1e-6)
    expected = {
        "rollout/kl_per_token": 0.5 / 3,
        "rollout/kl_sum_mean": 0.25,
        "rollout/k1_sum_mean": 0.25,
        "rollout/kl_coef": 0.1,
        "rollout/score_mean": 0.25,
        "rollout/score_std": 0.75,
        "rollout/shaped_reward_mean": (0.85 - 0.4) / 2,
        "rollout/response_length_mean": 1.5,
        "rollout/response_length_max": 2,
        "rollout/value_mean": 0.25,
        "rollout/return_mean": 1.4 / 3,
        "rollout/entropy": 2.0,
    }
    assert set(metrics) == set(expected)
    for name, number in expected.items():
        np.testing.assert_allclose(metrics[name], number, rtol=1e-5, err_msg=name)
        assert metrics[name].shape == ()


def _oracle(mask, logprobs, ref_logprobs, values, scores, *, kl_coef, rules):
    """Return rewards, advantages, returns of one list of floats after another."""
    counted = mask if rules.statistics == "masked" else np.ones_like(mask)
    rewards = np.zeros(mask.shape)
    for row, r in np.argwhere(mask):
        kl = float(logprobs[row, r]) - float(ref_logprobs[row, r])
        kl = max(kl, 0.0) if rules.kl_estimator == "k1_clamped" else kl
        is_last = r + 1 == LENGTHS[row]
        rewards[row, r] = -kl_coef * kl + (float(scores[row]) if is_last else 0.0)
    mean, std = rewards[counted].mean(), rewards[counted].std()
    rewards = np.where(counted, (rewards - mean) / (std + 1e-8) + mean, 0)
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for row in range(len(mask)):
        places = np.flatnonzero(counted[row])
        for r in places:
            ahead = [s for s in places if s >= r]
            returns[row, r] = rewards[row, ahead].sum()
            advantages[row, r] = returns[row, r] - float(values[row, r])
    mean, std = advantages[counted].mean(), advantages[counted].std()
    return (
        rewards,
        np.where(counted, (advantages - mean) / (std + 1e-8), 0),
        returns,
    )


@pytest.mark.parametrize("rules", [RELEASED, CORRECTED])
def test_assemble_matches_oracle(rules):
    mask, arrays = _mask(), _arrays(1)
    made, _ = rollout.assemble(mask, *arrays, kl_coef=0.02, rules=rules)
    oracle = _oracle(mask, *arrays, kl_coef=0.02, rules=rules)
    for name, expected in zip(
        ("rewards", "advantages", "returns"), oracle, strict=True
    ):
        np.testing.assert_allclose(getattr(made, name), expected, **CLOSE, err_msg=name)


def test_assemble_golden_values():
    """Feed the golden rewards through scores and KL: kl_coef 1, ref = 0."""
    mask = _mask(lengths=(4, 4))
    made, _ = rollout.assemble(
        mask,
        np.array([[0, 0.1, 0, 0], [0, 0, 0.2, 0]]),
        np.zeros((2, 4)),
        np.array([[0.1, 0.2, 0.3, 0.4], [0, 0.1, 0, -0.1]]),
        np.array([1.0, 0.5]),
        kl_coef=1.0,
        rules=RELEASED,
    )
    expected = [
        [0.39412, 0.58183, 1.10201, 1.28972],
        [-1.47632, -1.28861, -0.85210, 0.24936],
    ]
    np.testing.assert_allclose(made.advantages, expected, rtol=0, atol=6e-6)


def test_assemble_ignores_padding():
    logprobs, ref_logprobs, values, scores = _arrays(2)
    mask = _mask()
    junk = [np.where(mask, x, 1e6) for x in (logprobs, ref_logprobs, values)]
    wide = [np.pad(x, ((0, 0), (0, 3))) for x in (logprobs, ref_logprobs, values)]
    make = rollout.assemble
    base = make(
        mask, logprobs, ref_logprobs, values, scores, kl_coef=0.1, rules=CORRECTED
    )
    spoiled = make(mask, *junk, scores, kl_coef=0.1, rules=CORRECTED)
    jax.tree.map(np.testing.assert_array_equal, base, spoiled)
    wider, metrics = make(
        _mask(response_length=7), *wide, scores, kl_coef=0.1, rules=CORRECTED
    )
    np.testing.assert_allclose(wider.advantages[:, :4], base[0].advantages, **CLOSE)
    assert not np.any(wider.advantages[:, 4:])
    for name in metrics:
        np.testing.assert_allclose(metrics[name], base[1][name], **CLOSE)


def test_assemble_pays_the_last_token():
    _, _, values, scores = _arrays(3)
    zeros = np.zeros((4, 4), np.float32)
    made, _ = rollout.assemble(
        _mask(), zeros, zeros, values, scores, kl_coef=0.1, rules=PLAIN
    )
    paid = [np.flatnonzero(row).tolist() for row in np.asarray(made.rewards)]
    assert paid == [[n - 1] for n in LENGTHS]


def test_assemble_keeps_fractions_of_rewards_in_float32():
    zeros = np.zeros((4, 4), np.int32)
    scores = np.array([0.9, -1.7, 0.25, 0.5])
    made, metrics = rollout.assemble(
        _mask(), zeros, zeros, zeros, scores, kl_coef=0.1, rules=PLAIN
    )
    np.testing.assert_allclose(np.sum(made.rewards, axis=1), scores, rtol=1e-6)
    for name in ("rewards", "advantages", "returns", "scores", "values", "logprobs"):
        assert getattr(made, name).dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in metrics.values())


def test_assemble_padded_statistics_differ_and_value_the_padding():
    arrays = _arrays(4)
    padded, _ = rollout.assemble(_mask(), *arrays, kl_coef=0.1, rules=RELEASED)
    mask = np.asarray(padded.mask)
    assert np.all(np.asarray(padded.advantages)[~mask] != 0)
    np.testing.assert_allclose(masked.std(padded.advantages, None), 1, rtol=1e-5)
    corrected, _ = rollout.assemble(_mask(), *arrays, kl_coef=0.1, rules=CORRECTED)
    assert not np.any(np.asarray(corrected.advantages)[~mask])
    np.testing.assert_allclose(masked.std(corrected.advantages, mask), 1, rtol=1e-5)
    np.testing.assert_allclose(masked.mean(corrected.advantages, mask), 0, atol=1e-6)


def test_assemble_passes_no_gradient_and_can_be_traced():
    mask = _mask()
    arrays = _arrays(5)

    def total(logprobs, kl_coef):
        made, _ = rollout.assemble(
            mask, logprobs, *arrays[1:], kl_coef=kl_coef, rules=CORRECTED
        )
        return jnp.sum(made.advantages**2) + jnp.sum(made.returns)

    gradient = jax.jit(jax.grad(total))(arrays[0], 0.1)
    assert not np.any(gradient)


def test_assemble_refuses_arrays_of_another_response_length():
    logprobs, ref_logprobs, values, scores = _arrays()
    with pytest.raises(ValueError, match=r"values \(4, 3\), mask \(4, 4\)"):
        rollout.assemble(
            _mask(),
            logprobs,
            ref_logprobs,
            values[:, 1:],
            scores,
            kl_coef=0.1,
            rules=PLAIN,
        )


# --- step one, end to end ------------------------------------------------------------


@pytest.mark.parametrize("estimator", kl_penalty.KL_ESTIMATORS)
def test_first_step_has_no_kl_unit_ratios_and_the_score_as_return(estimator):
    logprobs, _, _, scores = _arrays(6)
    mask, values = _mask(), np.zeros((4, 4), np.float32)  # the value head is 0
    rules = dataclasses.replace(PLAIN, kl_estimator=estimator)
    made, metrics = rollout.assemble(
        mask, logprobs, logprobs, values, scores, kl_coef=0.1, rules=rules
    )
    assert metrics["rollout/kl_per_token"] == metrics["rollout/kl_sum_mean"] == 0
    for row, length in enumerate(LENGTHS):
        expected = np.zeros(4)
        expected[length - 1] = scores[row]
        np.testing.assert_allclose(made.rewards[row], expected, rtol=1e-6)
    everywhere = np.where(mask, scores[:, None], 0)
    np.testing.assert_allclose(made.returns, everywhere, rtol=1e-6)
    np.testing.assert_allclose(made.advantages, everywhere, rtol=1e-6)

    part = jax.tree.map(lambda array: array[np.array([2, 0])], made)
    _, policy = losses.ppo_policy(
        logprobs[[2, 0]],
        part.logprobs,
        part.advantages,
        part.mask,
        clip=0.2,
        statistics="masked",
    )
    rollout.first_minibatch_check(policy, tolerance=0.0)
    _, value = losses.ppo_value(
        part.values,
        part.values,
        part.returns,
        part.mask,
        clip=0.2,
        statistics="masked",
    )
    np.testing.assert_allclose(value["value/explained_variance"], 0, atol=1e-6)


def test_rollout_is_frozen():
    made, _ = rollout.assemble(_mask(), *_arrays(8), kl_coef=0.1, rules=CORRECTED)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.logprobs = made.ref_logprobs


# --- first_minibatch_check, minibatch_order, controllers ------------------------------


@pytest.mark.parametrize(
    "deviation, kl", [(0.02, 0.0), (0.0, -0.02), (float("nan"), 0.0), (0.0, np.inf)]
)
def test_first_minibatch_check_raises_on_either_number(deviation, kl):
    metrics = {"policy/ratio_max_deviation": deviation, "policy/approx_kl": kl}
    with pytest.raises(RuntimeError, match="ratio_max_deviation = .*accepted is 0.01"):
        rollout.first_minibatch_check(metrics, tolerance=0.01)


def test_first_minibatch_check_accepts_rounding():
    metrics = {"policy/ratio_max_deviation": 0.009, "policy/approx_kl": 0.0}
    rollout.first_minibatch_check(metrics, tolerance=0.01)


def _order(seed=0, step=3, epoch=1):
    return np.asarray(
        rollout.minibatch_order(
            jax.random.key(seed), step=step, epoch=epoch, num_rows=12, minibatch_size=4
        )
    )


def test_minibatch_order_is_a_permutation_fixed_by_seed_step_and_epoch():
    order = _order()
    assert order.shape == (3, 4)
    np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(12))
    np.testing.assert_array_equal(order, _order())
    others = [_order(seed=1), _order(step=4), _order(epoch=2), _order(step=1, epoch=3)]
    assert all(np.any(order != other) for other in others)


def test_minibatch_order_refuses_to_leave_rows_out():
    with pytest.raises(ValueError, match="12 rows.*minibatches of 5"):
        rollout.minibatch_order(
            jax.random.key(0), step=0, epoch=0, num_rows=12, minibatch_size=5
        )


def test_adapt_takes_the_replies_of_a_step_from_the_config():
    section = ConfigDict({"kl_target": 6.0, "kl_horizon": 100, "rollouts": 25})
    notes = step_notes.Notes(kl_coef=0.02, gain=1.0, bias=0.0)
    moved = step_notes.adapt(notes, {"rollout/kl_sum_mean": 600.0}, section)
    assert moved.kl_coef == pytest.approx(0.02 * 1.05)


def test_score_normalisation_gives_mean_zero_and_deviation_one():
    scores = np.random.default_rng(0).normal(-7, 3, 100)
    gain, bias = rollout.score_normalisation(scores)
    assert gain > 0
    np.testing.assert_allclose(np.mean(gain * scores + bias), 0, atol=1e-12)
    np.testing.assert_allclose(np.std(gain * scores + bias), 1, rtol=1e-12)
    assert rollout.score_normalisation(np.array([1.0, 3.0])) == (1.0, -2.0)


@pytest.mark.parametrize("scores", [[], [2.0], [1.0, 1.0], [1.0, float("nan")]])
def test_score_normalisation_refuses_scores_without_a_spread(scores):
    with pytest.raises(ValueError, match="at least two finite scores"):
        rollout.score_normalisation(np.array(scores))
