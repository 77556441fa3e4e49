"""Losses of tokens: of a policy that imitates, and of PPO.

Pure functions of arrays, no model inside. Each loss returns `(scalar, metrics)`,
metrics being scalars by path; a loss is a mean over counted tokens. Log-probabilities
are in nats; everything is float32, whatever comes in. Losses of replies that are
compared are in `preferences`.

Letters: B batch, T positions, R response. Masks are bool, True = counts. The
conventions of the response axis are stated in `rollout`.

`statistics` names what a mean over tokens runs over: "masked" leaves padding out
(corrected), "padded" includes it (as AlpacaFarm and the RLCD release do).

To accumulate k micro-batches, weigh each by its share of the counted tokens,
`masked.sum(mask_i, None) / masked.sum(mask, None)` ("padded": 1/k). A plain mean
would give more weight to tokens that share a micro-batch with few others.
"""

import jax
import jax.numpy as jnp

from rlcd_jax.training import masked

Metrics = dict[str, jax.Array]
LOG_RATIO_LIMIT = 20.0


def next_token(
    logprobs: jax.Array, mask: jax.Array, *, per_sequence: bool
) -> tuple[jax.Array, Metrics]:
    """Return the negative log-likelihood of the target tokens.

    -mean over counted tokens, or with `per_sequence` the mean of each row's own mean
    over the rows that have a counted token: long and short replies weigh the same.

    Args:
      logprobs: [B, T] log-probability of each target token.
      mask: [B, T] bool, True where a token is a target.
      per_sequence: False: tokens weigh the same; True: sequences do.

    Returns:
      Scalar float32 in nats a token (0 if there is no target), and metrics under
      `distill/`.

    Source: AlpacaFarm b68d7cf `scripts/sft.sh`: one sequence a device and step, so
    in the release sequences weigh the same.
    """
    losses = -masked.keep(logprobs, mask)  # [B, T]
    token_loss = masked.mean(losses, mask)
    row_has_target = jnp.any(mask, axis=1)  # [B]
    row_loss = masked.row_mean(losses, mask)
    loss = row_loss if per_sequence else token_loss
    return loss, {
        "distill/loss": loss,
        "distill/token_loss": token_loss,
        "distill/sequence_loss": row_loss,
        "distill/perplexity": jnp.exp(token_loss),
        "distill/empty_rows": masked.sum(~row_has_target, None),
    }


def ppo_policy(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    *,
    clip: float,
    statistics: str,
    per_sequence: bool = False,
) -> tuple[jax.Array, Metrics]:
    """Return the clipped policy loss.

    With ratio = exp(logprobs - old_logprobs), per token

        max(-advantage ratio, -advantage clip(ratio, 1 - clip, 1 + clip))

    Padding has ratio 1 whatever its log-probabilities, hence no gradient; under
    "padded" it still enters the mean. Metrics run over counted tokens always.
    `policy/approx_kl` is the k2 estimate, mean((log ratio)^2) / 2. Deviation from
    the source: log ratios are limited to +-20, so that nothing overflows.

    Args:
      logprobs: [B, R] of the response tokens under the current policy.
      old_logprobs: [B, R] under the policy that made the rollout.
      advantages: [B, R]; no gradient flows into them.
      mask: [B, R] bool, True = counts.
      clip: > 0, half-width of the trusted interval of the ratio.
      statistics: "masked" or "padded".
      per_sequence: the mean of each reply's own mean, over counted tokens: replies
        weigh alike, as in GRPO (Shao et al. 2024, equation 3), and not tokens.

    Returns:
      Scalar float32, and metrics under `policy/`.

    Source: Schulman et al. 2017, equation 7; AlpacaFarm b68d7cf `compute_loss`.
    """
    masked.check_shapes(
        logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask
    )
    _check_clip(clip)
    logprobs, old_logprobs, advantages = masked.float32(
        logprobs, old_logprobs, advantages
    )
    log_ratio = masked.keep(logprobs - jax.lax.stop_gradient(old_logprobs), mask)
    log_ratio = jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = jnp.exp(log_ratio)  # [B, R]
    advantages = jax.lax.stop_gradient(advantages)
    plain = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    worse = jnp.maximum(plain, clipped)
    if per_sequence:
        loss = masked.row_mean(worse, mask)
    else:
        loss = masked.mean(worse, masked.select(mask, statistics=statistics))
    return loss, {
        "policy/loss": loss,
        "policy/clip_fraction": masked.mean(clipped > plain, mask),
        "policy/approx_kl": masked.mean(0.5 * log_ratio**2, mask),
        "policy/ratio_mean": masked.mean(ratio, mask),
        "policy/ratio_max_deviation": masked.maximum(jnp.abs(ratio - 1.0), mask),
    }


def ppo_value(
    values: jax.Array,
    old_values: jax.Array,
    returns: jax.Array,
    mask: jax.Array,
    *,
    clip: float,
    statistics: str,
) -> tuple[jax.Array, Metrics]:
    """Return the clipped value loss.

    With clipped = clip(values, old_values - clip, old_values + clip), per token

        max((values - returns)^2, (clipped - returns)^2) / 2

    `value/explained_variance` is 1 - var(returns - values) / var(returns), and 0
    where the returns do not vary. Metrics run over counted tokens always.

    Args:
      values: [B, R] of the current value model.
      old_values: [B, R] of the value model that made the rollout.
      returns: [B, R] targets; no gradient flows into them.
      mask: [B, R] bool, True = counts.
      clip: > 0, how far a value may move from the old one, in units of reward.
      statistics: "masked" or "padded" (the value at padding is trained too).

    Returns:
      Scalar float32, and metrics under `value/`.

    Source: AlpacaFarm b68d7cf `rl/ppo_trainer.py` `compute_loss`.
    """
    masked.check_shapes(values=values, old=old_values, returns=returns, mask=mask)
    _check_clip(clip)
    counted = masked.select(mask, statistics=statistics)
    values = masked.keep(values, counted)
    old_values = jax.lax.stop_gradient(masked.keep(old_values, counted))
    returns = jax.lax.stop_gradient(masked.keep(returns, counted))
    plain = (values - returns) ** 2
    clipped = (jnp.clip(values, old_values - clip, old_values + clip) - returns) ** 2
    loss = 0.5 * masked.mean(jnp.maximum(plain, clipped), counted)
    spread = masked.variance(returns, mask)
    unexplained = masked.variance(returns - values, mask)
    varies = spread > 0.0
    explained = jnp.where(varies, 1.0 - unexplained / jnp.where(varies, spread, 1.0), 0)
    return loss, {
        "value/loss": loss,
        "value/clip_fraction": masked.mean(clipped > plain, mask),
        "value/explained_variance": explained,
        "value/error": masked.mean(plain, mask),
        "value/mean": masked.mean(values, mask),
        "value/return_mean": masked.mean(returns, mask),
        "value/return_std": jnp.sqrt(spread),
    }


def _check_clip(clip: float) -> None:
    if not clip > 0.0:
        raise ValueError(f"clip is {clip}; it must be > 0 (large: no clipping).")
