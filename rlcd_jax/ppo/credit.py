"""What each token of a reply earned: shaped rewards, advantages and value targets.

Pure functions of arrays; the conventions of the response axis are in `rollout`.
"""

import jax
import jax.numpy as jnp

from rlcd_jax.training import masked


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
