"""KL: its estimates from sampled tokens, and the coefficient that weighs it.

Pure functions of arrays. A new estimator is a row of `KL_ESTIMATORS`; the config
accepts what stands there.
"""

import jax
import jax.numpy as jnp

from rlcd_jax.training import losses, masked

REWARD, LOSS = PLACES = "reward", "loss"  # where the penalty is counted
# From d = log policy - log reference of each sampled token to nats.
KL_ESTIMATORS = {
    "k1": lambda d: d,  # unbiased, may be negative
    "k2": lambda d: 0.5 * d**2,  # biased, >= 0
    "k3": lambda d: jnp.expm1(-d) + d,  # unbiased, >= 0
    # As released; overstates, and is not comparable to k1.
    "k1_clamped": lambda d: jnp.maximum(d, 0.0),
}
# Whose own gradient, over tokens of the policy, is in the mean that of the KL or of its
# reverse. That of k1 is the mean score, 0: as a loss it would hold nothing back.
AS_LOSS = ("k2", "k3")


def kl_per_token(
    logprobs: jax.Array, ref_logprobs: jax.Array, *, estimator: str
) -> jax.Array:
    """Return an estimate of KL(policy || reference) from each sampled token.

    With d = logprobs - ref_logprobs: k1 is d, k2 is d^2 / 2, k3 is exp(-d) - 1 + d,
    and k1_clamped is max(d, 0).

    Args:
      logprobs: [...] of tokens drawn from the policy.
      ref_logprobs: [...] of the same tokens under the reference.
      estimator: a name in `KL_ESTIMATORS`.

    Returns:
      [...] float32, in nats. Padding is not masked here.

    Raises:
      ValueError: there is no such estimator.

    Source: J. Schulman, "Approximating KL divergence" (2020); AlpacaFarm b68d7cf
    `rl/ppo_trainer.py` `_shape_reward` for the clamp.
    """
    if estimator not in KL_ESTIMATORS:
        accepted = ", ".join(KL_ESTIMATORS)
        raise ValueError(f"estimator is {estimator!r}; accepted: {accepted}")
    masked.check_shapes(logprobs=logprobs, ref_logprobs=ref_logprobs)
    logprobs, ref_logprobs = masked.float32(logprobs, ref_logprobs)
    return KL_ESTIMATORS[estimator](logprobs - ref_logprobs)


def kl_loss(
    logprobs: jax.Array,
    ref_logprobs: jax.Array,
    mask: jax.Array,
    *,
    estimator: str,
    per_sequence: bool,
) -> tuple[jax.Array, losses.Metrics]:
    """Return the KL penalty as a term of the loss: the mean estimate of a token.

    The gradient goes through the estimate itself. Over tokens of the policy that of k2
    is in the mean the gradient of KL(policy || reference), that of k3 the gradient of
    KL(reference || policy). Deviation from the source: log ratios are limited to +-20,
    so that nothing overflows.

    Args:
      logprobs: [B, R] of the response tokens under the current policy.
      ref_logprobs: [B, R] under the reference; no gradient flows into them.
      mask: [B, R] bool, True = counts.
      estimator: one of `AS_LOSS`.
      per_sequence: the mean of each reply's own mean, else over all tokens.

    Returns:
      Scalar float32, nats a token, and metrics under `policy/`.

    Raises:
      ValueError: the estimator has no gradient to learn from.

    Source: Shao et al. 2024 (arXiv 2402.03300), equations 3 and 4, with k3.
    """
    if estimator not in AS_LOSS:
        accepted = ", ".join(AS_LOSS)
        raise ValueError(f"estimator of a loss is {estimator!r}; accepted: {accepted}")
    masked.check_shapes(logprobs=logprobs, ref_logprobs=ref_logprobs, mask=mask)
    gap = masked.keep(logprobs - jax.lax.stop_gradient(ref_logprobs), mask)
    gap = jnp.clip(gap, -losses.LOG_RATIO_LIMIT, losses.LOG_RATIO_LIMIT)
    kl = kl_per_token(gap, jnp.zeros_like(gap), estimator=estimator)
    mean = masked.row_mean if per_sequence else masked.mean
    loss = mean(kl, mask)
    return loss, {"policy/kl_loss": loss}


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

    Raises:
      ValueError: target, horizon or replies are not above 0.

    Source: Ziegler et al. 2019, section 2.2, and their code, in which a step moves it
    by its share of the horizon in episodes.
    """
    if not (target > 0 and horizon > 0 and replies > 0):
        raise ValueError(
            f"target {target}, horizon {horizon} and replies {replies} must all be > 0"
        )
    error = jnp.clip(jnp.asarray(kl, jnp.float32) / target - 1.0, -0.2, 0.2)
    return kl_coef * (1.0 + error * (replies / horizon))
