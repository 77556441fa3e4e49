"""What each token of a reply earned: shaped rewards, advantages and value targets.

Pure functions of arrays; the conventions of the response axis are in `rollout`.
"""

import jax
import jax.numpy as jnp

from rlcd_jax.training import masked

GAE, RLOO, GRPO = ADVANTAGES = "gae", "rloo", "grpo"
GROUPED = (RLOO, GRPO)  # the other replies to a prompt stand for a value model
SPREAD_FLOOR = 1e-4  # is added to a group's deviation; TRL's GRPOTrainer


def shaped_rewards(
    kl: jax.Array, scores: jax.Array, mask: jax.Array, *, kl_coef: float | jax.Array
) -> jax.Array:
    """Return the reward of each token: the penalty, and the score at the end.

    -kl_coef kl[r] at counted tokens, plus the score at the last counted one: found
    by the mask, so a pad id equal to the end-of-sequence id can not move it. A row
    without a counted token receives nothing.

    Args:
      kl: [B, R] penalty per token, in nats.
      scores: [B] reward of the whole reply.
      mask: [B, R] bool, True = counts.
      kl_coef: weight of the penalty, in units of reward a nat.

    Returns:
      [B, R] float32 whatever the inputs are; 0 where a token does not count.

    Raises:
      ValueError: the scores are not one a row.

    Source: AlpacaFarm b68d7cf `rl/ppo_trainer.py` `_shape_reward`.
    """
    if jnp.shape(scores) != jnp.shape(mask)[:1]:
        raise ValueError(
            f"scores has shape {jnp.shape(scores)}, must be {jnp.shape(mask)[:1]}: one "
            "number for each row of the mask."
        )
    seen = jnp.cumsum(mask, axis=1)  # [B, R] counted tokens up to and with this one
    is_last = mask & (seen == seen[:, -1:])
    scores = jnp.asarray(scores, jnp.float32)[:, None]
    return -kl_coef * masked.keep(kl, mask) + jnp.where(is_last, scores, 0.0)


def gae(
    rewards: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    *,
    gamma: float,
    lam: float,
) -> tuple[jax.Array, jax.Array]:
    """Return generalised advantage estimates and value targets.

    From right to left, with V = A = 0 beyond the last counted token:

        delta[r] = rewards[r] + gamma V[r+1] - V[r]
        A[r] = delta[r] + gamma lam A[r+1]
        returns[r] = A[r] + V[r]

    where r+1 is the next token that counts: others neither contribute nor receive.

    Args:
      rewards: [B, R] shaped rewards.
      values: [B, R] value of the state before token r.
      mask: [B, R] bool, True = counts; None: every entry is a token (as released,
        where padding carries whitened rewards and values).
      gamma: discount per token.
      lam: in [0, 1], trade of bias (0) against variance (1).

    Returns:
      (advantages, returns): both [B, R] float32, 0 where a token does not count.

    Source: Schulman et al. 2016, equation 16; AlpacaFarm b68d7cf
    `_estimate_advantage`.
    """
    masked.check_shapes(rewards=rewards, values=values, mask=mask)
    rewards, values = masked.keep(rewards, mask), masked.keep(values, mask)
    counts = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask)

    def step(carry: tuple, column: tuple) -> tuple[tuple, jax.Array]:
        next_value, next_advantage = carry  # [B], [B]
        reward, value, counted = column  # each [B]
        delta = reward + gamma * next_value - value
        advantage = delta + gamma * lam * next_advantage
        carry = (
            jnp.where(counted, value, next_value),
            jnp.where(counted, advantage, next_advantage),
        )
        return carry, jnp.where(counted, advantage, 0.0)

    zeros = jnp.zeros(rewards.shape[0], jnp.float32)
    columns = (rewards.T, values.T, counts.T)  # each [R, B]
    _, advantages = jax.lax.scan(step, (zeros, zeros), columns, reverse=True)
    return advantages.T, advantages.T + values


def leave_one_out(rewards: jax.Array, *, group: int) -> jax.Array:
    """Return how much better each reply is than the others to its prompt.

        A_i = R_i - mean over j != i of R_j = k / (k - 1) (R_i - mean of all R_j)

    with k replies a prompt. The baseline of a reply does not depend on it, so the
    policy gradient stays unbiased without a value model.

    Args:
      rewards: [B] of whole replies; those to one prompt stand together.
      group: k, replies to each prompt, at least 2; divides B.

    Returns:
      [B] float32; they sum to 0 in each group.

    Raises:
      ValueError: the replies are not of groups of at least 2.

    Source: Ahmadian et al. 2024 (arXiv 2402.14740), section 3.2 (RLOO); Kool et al.
    2019.
    """
    centred = _centred(rewards, group)
    return (centred * (group / (group - 1))).reshape(-1)


def group_relative(rewards: jax.Array, *, group: int, divide: bool) -> jax.Array:
    """Return how much better each reply is than the mean reply to its prompt.

        A_i = (R_i - mean) / (s + 1e-4)

    with the sample standard deviation s of the group (of k - 1 degrees), or without
    the division. Divided, each prompt weighs alike, those that hardly tell replies
    apart too. A group without spread has zeros.

    Args:
      rewards: [B] of whole replies; those to one prompt stand together.
      group: k, replies to each prompt, at least 2; divides B.
      divide: False leaves the deviation out.

    Returns:
      [B] float32; they sum to 0 in each group.

    Raises:
      ValueError: the replies are not of groups of at least 2.

    Source: Shao et al. 2024 (arXiv 2402.03300), section 4.1.2 (GRPO, supervised by
    outcome); which deviation it is, and the floor, are TRL's. Without the division:
    Liu et al. 2025 (arXiv 2503.20783, Dr. GRPO).
    """
    centred = _centred(rewards, group)
    if divide:
        variance = jnp.sum(centred**2, axis=1, keepdims=True) / (group - 1)
        centred = centred / (jnp.sqrt(variance) + SPREAD_FLOOR)
    return centred.reshape(-1)


def _centred(rewards: jax.Array, group: int) -> jax.Array:
    """Return [B / k, k] rewards less the mean of their group."""
    if group < 2 or jnp.ndim(rewards) != 1 or jnp.shape(rewards)[0] % group:
        raise ValueError(
            f"rewards of shape {jnp.shape(rewards)} in groups of {group}; accepted: "
            "[B] with at least 2 replies a group, which divide B: one reply alone has "
            "nothing to be compared with"
        )
    rows = jnp.asarray(rewards, jnp.float32).reshape(-1, group)
    rows = rows - rows[:, :1]  # equal rewards are exactly 0, whatever they are
    return rows - jnp.mean(rows, axis=1, keepdims=True)
