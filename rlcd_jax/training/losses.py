"""Losses and returns of the preference model, policies on pairs, and PPO.

Pure functions of arrays, no model inside. Each loss returns `(scalar, metrics)`,
metrics being scalars by path; a loss is a mean over counted tokens (or pairs).
Log-probabilities are in nats; everything is float32, whatever comes in.

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
DIRECT = ("dpo", "ipo", "kto")


def bradley_terry(
    reward_1: jax.Array,
    reward_2: jax.Array,
    prob_2: jax.Array,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """Return the preference loss with hard or soft labels.

    With d = reward_2 - reward_1 and y = prob_2, per pair

        BCE(sigmoid(d), y) = softplus(d) - y d

    `accuracy` is against the likelier reply, over pairs with y != 1/2; a tie of the
    rewards is wrong. (The release compares the decision with the soft y itself: they
    are never equal.) `soft_accuracy` is the chance that a verdict drawn from y agrees
    (a tie: 1/2). No model has a loss below `label_entropy`.

    Args:
      reward_1: [B] reward of the first reply.
      reward_2: [B] reward of the second reply.
      prob_2: [B] in [0, 1], probability that the second reply is the better.
      mask: [B] bool, True = counts; None: all pairs count.

    Returns:
      Scalar float32 mean over pairs in nats, and metrics under `preference/`.

    Source: RLCD paper, section 3; AlpacaFarm patch of the release (`loss_choice`).
    """
    masked.check_shapes(reward_1=reward_1, reward_2=reward_2, prob_2=prob_2, mask=mask)
    reward_1, reward_2, prob_2 = masked.float32(reward_1, reward_2, prob_2)
    margin = reward_2 - reward_1
    loss = masked.mean(jax.nn.softplus(margin) - prob_2 * margin, mask)
    decided = (prob_2 != 0.5) if mask is None else (prob_2 != 0.5) & mask
    lean = 2.0 * prob_2 - 1.0  # > 0: the second reply is labelled the better
    entropy = jax.scipy.special.entr(prob_2) + jax.scipy.special.entr(1.0 - prob_2)
    return loss, {
        "preference/loss": loss,
        "preference/accuracy": masked.mean(margin * jnp.sign(lean) > 0, decided),
        "preference/soft_accuracy": masked.mean(
            0.5 + 0.5 * jnp.sign(margin) * lean, mask
        ),
        "preference/decided_rate": masked.mean(prob_2 != 0.5, mask),
        "preference/label_2_rate": masked.mean(prob_2 > 0.5, decided),
        "preference/predicted_2_rate": masked.mean(margin > 0, decided),
        "preference/label_entropy": masked.mean(entropy, mask),
        "preference/margin_mean": masked.mean(margin * jnp.sign(lean), decided),
        "preference/reward_mean": masked.mean((reward_1 + reward_2) / 2, mask),
    }


def direct(
    log_ratio_1: jax.Array,
    log_ratio_2: jax.Array,
    prob_2: jax.Array,
    mask: jax.Array | None = None,
    *,
    loss: str,
    beta: float,
) -> tuple[jax.Array, Metrics]:
    """Return the loss of a policy on pairs, without a preference model.

    With r_i = log policy / reference of reply i, d = r_2 - r_1 and y = prob_2, per pair

        dpo   softplus(beta d) - y beta d
        ipo   (d - (2 y - 1) / (2 beta))^2 + y (1 - y) / beta^2
        kto   mean over i of  w_i sigmoid(-beta r_i) + (1 - w_i) sigmoid(beta r_i)

    where w_2 = y and w_1 = 1 - y is the chance that a reply is the better of its pair.
    A soft label is the mean over what it may be: of the losses at 0 and at 1. Deviation
    of kto: the reference point is 0, its value at the start, and both kinds weigh 1;
    the source measures a point on other prompts of the batch, which would make an
    example depend on its batch mates.

    Args:
      log_ratio_1: [B] nats, summed over the tokens of the first reply.
      log_ratio_2: [B] of the second.
      prob_2: [B] in [0, 1], probability that the second reply is the better.
      mask: [B] bool, True = counts; None: all pairs count.
      loss: one of the three names.
      beta: > 0, rewards a nat; large: the policy stays near the reference.

    Returns:
      Scalar float32 mean over pairs, and metrics under `direct/`: those of
      `bradley_terry` with the rewards beta r, and the mean of r of the likelier and
      the less likely reply.

    Raises:
      ValueError: there is no such loss, or beta is not positive.

    Source: Rafailov et al. 2023, equation 7 (dpo); Azar et al. 2023, equation 17 (ipo);
    Ethayarajh et al. 2024, equation 7 (kto); Mitchell 2023 on soft labels (cDPO).
    """
    if loss not in DIRECT:
        raise ValueError(f"loss is {loss!r}; accepted: {', '.join(DIRECT)}")
    if not beta > 0.0:
        raise ValueError(f"beta is {beta}; it must be > 0")
    ratios = {"log_ratio_1": log_ratio_1, "log_ratio_2": log_ratio_2}
    masked.check_shapes(**ratios, prob_2=prob_2, mask=mask)
    log_ratio_1, log_ratio_2, prob_2 = masked.float32(log_ratio_1, log_ratio_2, prob_2)
    value, metrics = bradley_terry(beta * log_ratio_1, beta * log_ratio_2, prob_2, mask)
    if loss == "ipo":
        off = log_ratio_2 - log_ratio_1 - (prob_2 - 0.5) / beta
        value = masked.mean(off**2 + prob_2 * (1.0 - prob_2) / beta**2, mask)
    elif loss == "kto":
        low_1, low_2 = (jax.nn.sigmoid(-beta * r) for r in (log_ratio_1, log_ratio_2))
        first = (1.0 - prob_2) * low_1 + prob_2 * (1.0 - low_1)
        second = prob_2 * low_2 + (1.0 - prob_2) * (1.0 - low_2)
        value = masked.mean((first + second) / 2.0, mask)
    decided = (prob_2 != 0.5) if mask is None else (prob_2 != 0.5) & mask
    better = jnp.where(prob_2 > 0.5, log_ratio_2, log_ratio_1)
    worse = jnp.where(prob_2 > 0.5, log_ratio_1, log_ratio_2)
    return value, {
        **{name.replace("preference/", "direct/"): x for name, x in metrics.items()},
        "direct/loss": value,
        "direct/better_log_ratio": masked.mean(better, decided),
        "direct/worse_log_ratio": masked.mean(worse, decided),
    }


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
