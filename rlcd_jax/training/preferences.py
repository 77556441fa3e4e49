"""Losses of replies that are compared: in pairs, with ties, among many.

Pure functions of arrays, no model inside. Each loss returns `(scalar, metrics)`,
metrics being scalars by path; a loss is a mean over counted comparisons, in nats.
Everything is float32, whatever comes in.

Letters: B comparisons, K replies of one. d is reward_2 - reward_1 of a pair, y the
probability that its second reply is the better.
"""

import math

import jax
import jax.numpy as jnp

from rlcd_jax.training import masked

Metrics = dict[str, jax.Array]
RANKED = "plackett_luce"  # is of rankings, the others of pairs
REWARDED = ("bradley_terry", "margin", "ties", RANKED)
DIRECT = ("dpo", "ipo", "kto")


def bradley_terry(
    reward_1: jax.Array,
    reward_2: jax.Array,
    prob_2: jax.Array,
    mask: jax.Array | None = None,
    *,
    margin: jax.Array | None = None,
) -> tuple[jax.Array, Metrics]:
    """Return the preference loss with hard or soft labels.

    Per pair, the mean over what the label may be of how far the better reply is ahead,
    less a margin m:

        y softplus(m - d) + (1 - y) softplus(m + d)

    which without a margin is BCE(sigmoid(d), y) = softplus(d) - y d. A margin asks for
    more distance, where the replies are known to be far apart.

    `accuracy` is against the likelier reply, over pairs with y != 1/2; a tie of the
    rewards is wrong. (The release compares the decision with the soft y itself: they
    are never equal.) `soft_accuracy` is the chance that a verdict drawn from y agrees
    (a tie: 1/2). Without a margin no model has a loss below `label_entropy`.

    Args:
      reward_1: [B] reward of the first reply.
      reward_2: [B] reward of the second reply.
      prob_2: [B] in [0, 1], probability that the second reply is the better.
      mask: [B] bool, True = counts; None: all pairs count.
      margin: [B] >= 0, units of reward; None: 0.

    Returns:
      Scalar float32 mean over pairs in nats, and metrics under `preference/`.

    Source: RLCD paper, section 3; AlpacaFarm patch of the release (`loss_choice`);
    Touvron et al. 2023 (Llama 2), section 3.2.2, on the margin.
    """
    masked.check_shapes(
        reward_1=reward_1, reward_2=reward_2, prob_2=prob_2, mask=mask, margin=margin
    )
    reward_1, reward_2, prob_2 = masked.float32(reward_1, reward_2, prob_2)
    ahead = reward_2 - reward_1
    if margin is None:
        losses = jax.nn.softplus(ahead) - prob_2 * ahead
    else:
        (margin,) = masked.float32(margin)
        losses = prob_2 * jax.nn.softplus(margin - ahead)
        losses += (1.0 - prob_2) * jax.nn.softplus(margin + ahead)
    loss = masked.mean(losses, mask)
    return loss, {
        "preference/loss": loss,
        **_of_pairs(reward_1, reward_2, prob_2, prob_2 != 0.5, mask),
    }


def ties(
    reward_1: jax.Array,
    reward_2: jax.Array,
    prob_2: jax.Array,
    mask: jax.Array | None = None,
    *,
    width: float,
    band: float,
) -> tuple[jax.Array, Metrics]:
    """Return the preference loss of a model that may call two replies equally good.

    With the width t of a tie, the model says

        P(second) = sigmoid(d - t)        P(first) = sigmoid(-d - t)
        P(tie) = 1 - P(second) - P(first)
               = (1 - exp(-2 t)) sigmoid(t + d) sigmoid(t - d)

    A pair whose label is within the band of 1/2 is a tie and costs -log P(tie). Any
    other costs -y log P(second) - (1 - y) log P(first), which at t = 0 is
    `bradley_terry`, and is that with a margin t always. The product is what the
    difference comes to when it is multiplied out: its logarithm loses no digit, however
    large d is.

    Args:
      reward_1: [B] reward of the first reply.
      reward_2: [B] reward of the second reply.
      prob_2: [B] in [0, 1], probability that the second reply is the better.
      mask: [B] bool, True = counts; None: all pairs count.
      width: t > 0, units of reward: rewards nearer to each other are a tie, about.
      band: in [0, 1/2): how far from 1/2 the label of a tie may be.

    Returns:
      Scalar float32 mean over pairs in nats, and metrics under `preference/`: those of
      `bradley_terry`, ties being the undecided pairs, with the share of pairs of which
      the model says that a tie is likelier than either order.

    Raises:
      ValueError: the width is not positive, or the band not in [0, 1/2).

    Source: Rao and Kupper 1967, equations 2.1 to 2.3, with theta = exp(t).
    """
    if not width > 0.0:
        raise ValueError(f"width is {width}; it must be > 0 (0: use bradley_terry)")
    if not 0.0 <= band < 0.5:
        raise ValueError(f"band is {band}; it must be from 0 to below 1/2")
    masked.check_shapes(reward_1=reward_1, reward_2=reward_2, prob_2=prob_2, mask=mask)
    reward_1, reward_2, prob_2 = masked.float32(reward_1, reward_2, prob_2)
    ahead = reward_2 - reward_1
    tied = jnp.abs(prob_2 - 0.5) <= band
    second, first = (jax.nn.softplus(width - x) for x in (ahead, -ahead))
    either = prob_2 * second + (1.0 - prob_2) * first
    # log sigmoid(t + d) + log sigmoid(t - d)
    both = -jax.nn.softplus(-width - ahead) - jax.nn.softplus(-width + ahead)
    log_tie = math.log(-math.expm1(-2.0 * width)) + both
    loss = masked.mean(jnp.where(tied, -log_tie, either), mask)
    return loss, {
        "preference/loss": loss,
        **_of_pairs(reward_1, reward_2, prob_2, ~tied, mask),
        "preference/predicted_tie_rate": masked.mean(
            log_tie > -jnp.minimum(second, first), mask
        ),
    }


def plackett_luce(
    rewards: jax.Array, grades: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Return the loss of rankings: the best is chosen of all, the next of the rest.

    With r the rewards of a row and g its grades, higher is better, per row

        sum over its replies i of  log sum over {j: g_j <= g_i} exp(r_j) - r_i

    which of two replies is `bradley_terry` with a hard label. Replies of one grade are
    each chosen from all that are not better (Breslow's rule): two that are tied cost
    softplus(d) + softplus(-d), least where their rewards are equal. Adding a number to
    all rewards of a row changes nothing.

    Args:
      rewards: [B, K].
      grades: [B, K], of which only the order counts; no gradient flows into them.
      mask: [B, K] bool, True = is a reply; rows with fewer than two do not count.

    Returns:
      Scalar float32 mean over rankings in nats, and metrics under `preference/`: those
      of the pairs of a ranking whose grades differ, and `best_rate`, how often a reply
      of the best grade has the highest reward of all.

    Source: Plackett 1975; Luce 1959; Breslow 1974 on ties.
    """
    masked.check_shapes(rewards=rewards, grades=grades, mask=mask)
    rewards, grades = (masked.keep(x, mask) for x in (rewards, grades))
    counted = mask.sum(axis=1) >= 2  # [B]
    both = mask[:, :, None] & mask[:, None, :]  # [B, K, K]: i, j
    own = jnp.eye(mask.shape[1], dtype=bool)  # so that no sum is empty
    rest = (both & (grades[:, None, :] <= grades[:, :, None])) | own
    sums = jax.nn.logsumexp(jnp.where(rest, rewards[:, None, :], -jnp.inf), axis=2)
    loss = masked.mean(masked.sum(sums - rewards, mask, axis=1), counted)
    ahead = rewards[:, :, None] - rewards[:, None, :]
    decided = both & (grades[:, :, None] > grades[:, None, :])
    pairs = jnp.maximum(masked.sum(both & ~own, None) / 2.0, 1.0)
    highest = _highest(rewards, mask) & _highest(grades, mask)  # [B, K]
    return loss, {
        "preference/loss": loss,
        "preference/accuracy": masked.mean(ahead > 0, decided),
        "preference/best_rate": masked.mean(jnp.any(highest, axis=1), counted),
        "preference/decided_rate": masked.sum(decided, None) / pairs,
        "preference/margin_mean": masked.mean(ahead, decided),
        "preference/reward_mean": masked.mean(rewards, mask),
        "preference/replies": masked.mean(masked.count(mask, mask, axis=1), counted),
    }


def _highest(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Return [B, K] bool, True at the replies that have the highest value of a row."""
    seen = jnp.where(mask, values, -jnp.inf)
    return mask & (seen == jnp.max(seen, axis=1, keepdims=True))


def _of_pairs(
    reward_1: jax.Array,
    reward_2: jax.Array,
    prob_2: jax.Array,
    decided: jax.Array,
    mask: jax.Array | None,
) -> Metrics:
    """Return the metrics of pairs, [B] each; those not decided have no better reply."""
    ahead, some = reward_2 - reward_1, decided if mask is None else decided & mask
    lean = 2.0 * prob_2 - 1.0  # > 0: the second reply is labelled the better
    entropy = jax.scipy.special.entr(prob_2) + jax.scipy.special.entr(1.0 - prob_2)
    return {
        "preference/accuracy": masked.mean(ahead * jnp.sign(lean) > 0, some),
        "preference/soft_accuracy": masked.mean(
            0.5 + 0.5 * jnp.sign(ahead) * lean, mask
        ),
        "preference/decided_rate": masked.mean(decided, mask),
        "preference/label_2_rate": masked.mean(prob_2 > 0.5, some),
        "preference/predicted_2_rate": masked.mean(ahead > 0, some),
        "preference/label_entropy": masked.mean(entropy, mask),
        "preference/margin_mean": masked.mean(ahead * jnp.sign(lean), some),
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
      log_ratio_1: [B] nats, summed over the tokens of the first reply, or their mean.
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
