"""RLOO and GRPO: advantages among the replies to a prompt, and KL as a loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax.ppo import credit, kl_penalty, rollout
from rlcd_jax.training import losses

CLOSE = dict(rtol=1e-5, atol=1e-5)  # float32 against float64
RULES = rollout.AdvantageRules(
    kl_estimator="k1",
    gamma=1.0,
    lam=1.0,
    whiten_rewards=False,
    whiten_advantages=False,
    statistics="masked",
    advantages="rloo",
    group=2,
)
LENGTHS = (4, 2, 1, 3)
MASK = np.arange(4) < np.array(LENGTHS)[:, None]

groups = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k),
        st.lists(
            st.lists(st.floats(-8, 8, width=16), min_size=k, max_size=k),
            min_size=1,
            max_size=3,
        ),
    )
)


def advantages(rule, rewards, group, divide=True):
    rewards = np.asarray(rewards, np.float32).reshape(-1)
    if rule == "rloo":
        return np.asarray(credit.leave_one_out(rewards, group=group))
    made = credit.group_relative(rewards, group=group, divide=divide)
    return np.asarray(made)


def oracle(rule, rewards, group, divide=True):
    """Return the advantages of one float64 reply after another."""
    rewards = np.asarray(rewards, np.float64).reshape(-1)
    found = []
    for index, reward in enumerate(rewards):
        first = index - index % group
        own = rewards[first : first + group]
        others = [own[j] for j in range(group) if first + j != index]
        if rule == "rloo":
            found.append(reward - sum(others) / len(others))
            continue
        mean = sum(own) / group
        spread = (sum((one - mean) ** 2 for one in own) / (group - 1)) ** 0.5
        found.append((reward - mean) / (spread + 1e-4 if divide else 1.0))
    return found


def test_advantages_by_hand():
    rewards = [1.0, 2.0, 6.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(
        advantages("rloo", rewards, 3), [-3, -1.5, 4.5, 0, 0, 0], rtol=1e-6
    )
    plain = advantages("grpo", rewards, 3, divide=False)
    np.testing.assert_allclose(plain, [-2, -1, 3, 0, 0, 0], rtol=1e-6)
    # Sample deviation of 1, 2, 6: sqrt(14 / 2).
    expected = np.array([-2, -1, 3, 0, 0, 0]) / (np.sqrt(7) + 1e-4)
    np.testing.assert_allclose(advantages("grpo", rewards, 3), expected, rtol=1e-6)


@pytest.mark.parametrize("rule", ["rloo", "grpo", "grpo without deviation"])
@given(case=groups, shift=st.sampled_from([-2.0, 0.5, 64.0]))
@settings(max_examples=40)
def test_advantages_match_oracle_sum_to_zero_and_know_no_constant(rule, case, shift):
    group, rewards = case
    name, divide = rule.split()[0], rule != "grpo without deviation"
    found = advantages(name, rewards, group, divide)
    np.testing.assert_allclose(
        found, oracle(name, rewards, group, divide), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(found.reshape(-1, group).sum(axis=1), 0, atol=1e-4)
    moved = advantages(name, np.asarray(rewards) + shift, group, divide)
    # A sum in float32 rounds; where rewards hardly differ that is divided by 1e-4.
    if np.ptp(np.asarray(rewards), axis=1).min() > 0.01 or not divide:
        np.testing.assert_allclose(moved, found, rtol=1e-2, atol=1e-3)


def test_a_group_without_spread_teaches_nothing():
    """Of equal rewards the mean in float32 is another number: it may not be divided."""
    rewards = np.float32([0.1] * 7 + [1e7 / 3] * 7)
    for rule in ("rloo", "grpo"):
        assert not advantages(rule, rewards, 7).any()


def test_one_reply_alone_is_refused():
    for group, count in ((1, 4), (3, 4)):
        for rule in ("rloo", "grpo"):
            with pytest.raises(ValueError, match=f"groups of {group}.*at least 2"):
                advantages(rule, np.zeros(count), group)


# --- the rollout ----------------------------------------------------------------------


def made_of(rules, seed=0):
    rng = np.random.default_rng(seed)
    logprobs, ref = -rng.random((2, 4, 4)).astype(np.float32) * 2
    scores = np.array([0.9, -1.7, 0.3, 2.4], np.float32)
    found, metrics = rollout.assemble(
        MASK, logprobs, ref, None, scores, kl_coef=0.1, rules=rules
    )
    kl = np.where(MASK, np.float64(logprobs) - ref, 0).sum(axis=1)
    return found, metrics, scores, kl


@pytest.mark.parametrize("kl_in", kl_penalty.PLACES)
@pytest.mark.parametrize("rule", credit.GROUPED)
def test_all_tokens_of_a_reply_have_its_advantage(rule, kl_in):
    rules = dataclasses.replace(RULES, advantages=rule, kl_in=kl_in)
    found, metrics, scores, kl = made_of(rules)
    rewards = scores - 0.1 * kl if kl_in == "reward" else scores
    expected = np.where(MASK, np.array(oracle(rule, rewards, 2))[:, None], 0)
    np.testing.assert_allclose(found.advantages, expected, **CLOSE)
    assert found.values is None and found.returns is None
    assert not any("value" in name or "return" in name for name in metrics)
    spread = np.abs(rewards[::2] - rewards[1::2]) / 2
    np.testing.assert_allclose(
        metrics["rollout/group_reward_std"], spread.mean(), **CLOSE
    )
    assert metrics["rollout/flat_groups"] == 0.0
    # What is measured of KL is the same, wherever it is paid.
    np.testing.assert_allclose(metrics["rollout/k1_sum_mean"], kl.mean(), **CLOSE)


def test_advantages_of_groups_can_be_whitened_over_tokens():
    found, *_ = made_of(dataclasses.replace(RULES, whiten_advantages=True))
    counted = np.asarray(found.advantages)[MASK]
    np.testing.assert_allclose([counted.mean(), counted.std()], [0, 1], atol=1e-5)
    assert not np.asarray(found.advantages)[~MASK].any()


# --- KL as a loss, and replies that weigh alike ---------------------------------------


def test_kl_loss_by_hand():
    logprobs = np.array([[-1.0, -2.0, 7.0], [-1.0, 9.0, 9.0]])
    ref = np.array([[-2.0, -1.0, np.nan], [-1.0, 9.0, 9.0]])
    mask = np.array([[True, True, False], [True, False, False]])
    k3 = [np.exp(-1), np.e - 2, 0.0]
    for per_sequence, expected in (
        (False, sum(k3) / 3),
        (True, (k3[0] + k3[1]) / 4),
    ):
        loss, metrics = kl_penalty.kl_loss(
            logprobs, ref, mask, estimator="k3", per_sequence=per_sequence
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert metrics["policy/kl_loss"] == loss
    far, _ = kl_penalty.kl_loss(
        logprobs * 1e6, ref, mask, estimator="k3", per_sequence=False
    )
    assert np.isfinite(far)
    with pytest.raises(ValueError, match="'k1'.*k2, k3"):
        kl_penalty.kl_loss(logprobs, ref, mask, estimator="k1", per_sequence=False)


def test_the_gradient_of_a_kl_loss_is_that_of_a_kl():
    """In the mean over tokens of the policy, exactly, for a vocabulary of five."""
    logits = jnp.array([0.3, -1.0, 0.7, 0.1, -0.4])
    q = jax.nn.softmax(jnp.array([1.0, 0.2, -0.3, 0.0, 0.5]))
    p = jax.nn.softmax(logits)

    def mean_loss(logits, estimator):
        def of_token(*both):
            both = (one[None, None] for one in both)
            return kl_penalty.kl_loss(
                *both,
                np.ones((1, 1), bool),
                estimator=estimator,
                per_sequence=False,
            )[0]

        each = jax.vmap(of_token)(jax.nn.log_softmax(logits), jnp.log(q))
        return jnp.dot(jax.lax.stop_gradient(p), each)

    def forward(logits):
        p = jax.nn.softmax(logits)
        return jnp.sum(p * jnp.log(p / q))

    def reverse(logits):
        return -jnp.sum(q * jax.nn.log_softmax(logits))

    for estimator, kl in (("k2", forward), ("k3", reverse)):
        ours = jax.grad(mean_loss)(logits, estimator)
        np.testing.assert_allclose(ours, jax.grad(kl)(logits), **CLOSE)


def test_ppo_policy_weighs_replies_alike_where_it_is_asked_to():
    given = np.array([[1.0, 1.0, 1.0, 5.0], [2.0, 9.0, 9.0, 9.0]])
    mask = np.array([[True, True, True, False], [True, False, False, False]])
    zeros = np.zeros((2, 4))
    both = [
        losses.ppo_policy(
            zeros, zeros, given, mask, clip=0.2, statistics="masked", per_sequence=one
        )[0]
        for one in (False, True)
    ]
    np.testing.assert_allclose(both, [-5 / 4, -3 / 2], rtol=1e-6)
