"""KL: its estimates from sampled tokens, and the coefficient that weighs it.

Pure functions of arrays. A new estimator is a name in `KL_ESTIMATORS` and a line in
`kl_per_token`; the config accepts what stands there.
"""

import jax
import jax.numpy as jnp

from rlcd_jax.training import masked

KL_ESTIMATORS = ("k1", "k2", "k3", "k1_clamped")


def kl_per_token(
    logprobs: jax.Array, ref_logprobs: jax.Array, *, estimator: str
) -> jax.Array:
    """Return an estimate of KL(policy || reference) from each sampled token.

    With d = logprobs - ref_logprobs:

        k1          d                  unbiased, may be negative
        k2          d^2 / 2            biased, >= 0
        k3          exp(-d) - 1 + d    unbiased, >= 0
        k1_clamped  max(d, 0)          as released; overstates, not comparable to k1

    Args:
      logprobs: [...] of tokens drawn from the policy.
      ref_logprobs: [...] of the same tokens under the reference.
      estimator: one of the four.

    Returns:
      [...] float32, in nats. Padding is not masked here.

    Source: J. Schulman, "Approximating KL divergence" (2020); AlpacaFarm b68d7cf
    `rl/ppo_trainer.py` `_shape_reward` for the clamp.
    """
    if estimator not in KL_ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}, must be in {KL_ESTIMATORS}")
    masked.check_shapes(logprobs=logprobs, ref_logprobs=ref_logprobs)
    logprobs, ref_logprobs = masked.float32(logprobs, ref_logprobs)
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return jnp.expm1(-difference) + difference
    return jnp.maximum(difference, 0.0)


def adapt_kl_coef(
    kl_coef: jax.Array, kl: jax.Array, *, target: float, horizon: float, replies: int
) -> jax.Array:
    """Return the KL coefficient for the next step.

    kl_coef (1 + clip(kl / target - 1, -0.2, 0.2) replies / horizon)

    Args:
      kl_coef: of the step that was measured.
      kl: `rollout/kl_sum_mean` of that step, nats a reply.
      target: > 0, wanted nats a reply.
      horizon: > 0, in replies, as `replies`; the coefficient moves by a fifth of
        itself at most over so many. 10,000 in lm-human-preferences; AlpacaFarm's
        factor of 0.1 a step, where it is on, is ten times the replies of a step.
      replies: of the step that was measured.

    Returns:
      Scalar float32.

    Source: Ziegler et al. 2019, section 2.2, and their code, in which a step moves it
    by its share of the horizon in episodes.
    """
    if not (target > 0 and horizon > 0 and replies > 0):
        raise ValueError(
            f"target {target}, horizon {horizon} and replies {replies} must all be > 0"
        )
    error = jnp.clip(jnp.asarray(kl, jnp.float32) / target - 1.0, -0.2, 0.2)
    return kl_coef * (1.0 + error * (replies / horizon))
