"""The rollout: what a policy wrote and what it earned, frozen for the updates.

The convention of the response axis, stated here once:

* Entry [b, r] is of response token r of reply b, padded right to R. Where the model
  reads that token is another matter: see `training.packing`.
* `logprobs[:, r]` is of response token r. It comes from the hidden state before that
  token: for the first one, the last of the prompt.
* `values[:, r]` is the value of the state before response token r.
* The score of a reply is paid at its last counted token.
* Masks are bool, True = counts, and come from lengths, never from token ids: the
  pad id may equal the end-of-sequence id.

Letters: B rows, R response. `score_normalisation` and
`first_minibatch_check` are host code; the rest may be traced.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax.ppo import credit, kl_penalty
from rlcd_jax.training import masked

TERMINAL_MODES = ("replace", "subtract", "none")
# When a reply is whole: it ended in any way but by the limit of its length, or the mark
# of the next turn is in it. As released, the end token alone is not enough.
ENDED, BY_MARK = FINISHED = "ended", "mark"

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class Rollout:
    """Everything that stays fixed while a policy is updated; made by `assemble`.

    Attributes:
      mask: [B, R] which entries are a token of a reply.
      logprobs: [B, R] under the policy that wrote the replies ("old").
      ref_logprobs: [B, R] under the reference.
      values: [B, R] of the value model before the update ("old"); None: there is none.
      rewards: [B, R] shaped, whitened if the rules say so.
      advantages: [B, R] whitened if the rules say so.
      returns: [B, R] targets of the value model, never whitened again; or None.
      scores: [B] after the terminal rule.
    """

    mask: jax.Array
    logprobs: jax.Array
    ref_logprobs: jax.Array
    values: jax.Array | None
    rewards: jax.Array
    advantages: jax.Array
    returns: jax.Array | None
    scores: jax.Array


@dataclasses.dataclass(frozen=True)
class AdvantageRules:
    """How rewards become advantages.

    Attributes:
      kl_estimator: one of `kl_penalty.KL_ESTIMATORS`; "k1_clamped" as released.
      gamma: discount per token; 1.0 as released.
      lam: GAE's lambda; 1.0 as released.
      whiten_rewards: scale the shaped rewards to standard deviation 1 and put
        the mean back; True as released.
      whiten_advantages: bring the advantages to mean 0, standard deviation 1;
        True as released.
      statistics: "masked": padding is nowhere counted (corrected); "padded": it
        is in both statistics and in GAE (as released).
      whiten_rows: replies, one after another, that are whitened together; 0 or as many
        as there are: all (corrected); 64 as released, those of one of 8 processes.
      advantages: one of `credit.ADVANTAGES`.
      group: replies to each prompt, which stand together.
      group_deviation: GRPO divides by the deviation of a group.
      kl_in: one of `kl_penalty.PLACES`; as a loss it is no part of the rewards.
    """

    kl_estimator: str
    gamma: float
    lam: float
    whiten_rewards: bool
    whiten_advantages: bool
    statistics: str
    whiten_rows: int = 0
    advantages: str = credit.GAE
    group: int = 1
    group_deviation: bool = True
    kl_in: str = kl_penalty.REWARD


def terminal_rule(
    scores: jax.Array, finished: jax.Array, empty: jax.Array, *, mode: str, value: float
) -> tuple[jax.Array, Metrics]:
    """Return the scores after the rule for unfinished or empty replies.

        replace   score = value          as released, with value -1
        subtract  score = score - value  value >= 0
        none      score

    "replace" is a penalty only if ordinary scores lie above `value`: rewards have
    no fixed zero, so use it with `score_normalisation`.

    Args:
      scores: [B] of the preference model.
      finished: [B] bool, the reply ended by itself.
      empty: [B] bool, nothing but white space was written.
      mode: one of the three names.
      value: see above, in units of reward.

    Returns:
      [B] float32, and metrics under `rollout/`.

    Raises:
      ValueError: there is no such mode, or it would reward unfinished replies.

    Source: AlpacaFarm patch of the release, `ppo_trainer.py` (replace); TRL's
    `missing_eos_penalty` (subtract).
    """
    if mode not in TERMINAL_MODES:
        raise ValueError(f"terminal mode is {mode!r}, must be in {TERMINAL_MODES}")
    if mode == "subtract" and value < 0:
        raise ValueError(
            f"terminal value is {value}; to subtract it must be >= 0, otherwise "
            'unfinished replies earn a bonus. Give its size, or use mode "replace".'
        )
    masked.check_shapes(scores=scores, finished=finished, empty=empty)
    scores = jnp.asarray(scores, jnp.float32)
    failed = jnp.logical_or(jnp.logical_not(finished), empty)
    penalised = {"replace": value, "subtract": scores - value, "none": scores}[mode]
    return jnp.where(failed, penalised, scores), {
        "rollout/raw_score_mean": jnp.mean(scores),
        "rollout/unfinished_rate": masked.mean(jnp.logical_not(finished), None),
        "rollout/empty_rate": masked.mean(empty, None),
    }


def assemble(
    mask: jax.Array,
    logprobs: jax.Array,
    ref_logprobs: jax.Array,
    values: jax.Array | None,
    scores: jax.Array,
    *,
    kl_coef: float | jax.Array,
    rules: AdvantageRules,
    entropy: jax.Array | None = None,
) -> tuple[Rollout, Metrics]:
    """Return the frozen rollout: KL penalty, shaped rewards, advantages, returns.

    rewards = whiten(-kl_coef kl + score at the last counted token), mean kept
    advantages, returns = gae(rewards, values); advantages = whiten(advantages)

    Without a value model the reward of a reply is the sum of its tokens', compared with
    the other replies to its prompt, and all its tokens have that advantage.

    Statistics are over the rows given, or groups of `rules.whiten_rows`: give all rows
    of one PPO step at once.

    Args:
      mask: [B, R] which entries are a token of a reply.
      logprobs: [B, R] under the policy, recomputed as the update will.
      ref_logprobs: [B, R] under the reference.
      values: [B, R] before each response token; None where `rules.advantages` is one
        of `credit.GROUPED`.
      scores: [B] after `terminal_rule`.
      kl_coef: weight of the KL penalty, in units of reward a nat.
      rules: what is whitened, over what, and the constants.
      entropy: [B, R] of the policy's distribution in nats, only reported.

    Returns:
      `Rollout` of float32 arrays that pass no gradient back, and metrics under
      `rollout/`: `kl_per_token` and `kl_sum_mean` by the estimator that is
      penalised, `k1_sum_mean` by the unclamped one, comparable across rules.

    Source: AlpacaFarm b68d7cf `rl/ppo_trainer.py` `rollout`, `_shape_reward`,
    `_estimate_advantage`.
    """
    shapes = {"ref_logprobs": ref_logprobs, "values": values, "mask": mask}
    masked.check_shapes(logprobs=logprobs, **shapes)
    counted = masked.select(mask, statistics=rules.statistics)
    logprobs = masked.keep(logprobs, mask)
    ref_logprobs = masked.keep(ref_logprobs, mask)
    values = None if values is None else masked.keep(values, counted)
    kl = kl_penalty.kl_per_token(logprobs, ref_logprobs, estimator=rules.kl_estimator)
    paid = kl_coef if rules.kl_in == kl_penalty.REWARD else 0.0
    shaped = credit.shaped_rewards(kl, scores, mask, kl_coef=paid)
    rewards, advantages, returns = _advantages(shaped, values, counted, rules)
    rollout = Rollout(
        mask=mask,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
        rewards=rewards,
        advantages=advantages,
        returns=returns,
        scores=jnp.asarray(scores, jnp.float32),
    )
    metrics = _metrics(rollout, kl, shaped, entropy)
    if rules.advantages in credit.GROUPED:
        metrics |= _group_metrics(jnp.sum(shaped, axis=1), rules.group)
    metrics["rollout/kl_coef"] = jnp.float32(kl_coef)
    return jax.lax.stop_gradient(rollout), metrics


def _advantages(
    shaped: jax.Array,
    values: jax.Array | None,
    counted: jax.Array | None,
    rules: AdvantageRules,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Return rewards, advantages and returns [B, R], whitened as the rules say."""
    rewards = shaped
    if rules.advantages in credit.GROUPED:
        advantages = _among_replies(jnp.sum(shaped, axis=1), rules)
        advantages = masked.keep(
            jnp.broadcast_to(advantages[:, None], shaped.shape), counted
        )
        if rules.whiten_advantages:
            advantages = whiten(advantages, counted, rules.whiten_rows, shift_mean=True)
        return rewards, advantages, None
    if rules.whiten_rewards:
        rewards = whiten(rewards, counted, rules.whiten_rows, shift_mean=False)
    advantages, returns = credit.gae(
        rewards, values, counted, gamma=rules.gamma, lam=rules.lam
    )
    if rules.whiten_advantages:
        advantages = whiten(advantages, counted, rules.whiten_rows, shift_mean=True)
    return rewards, advantages, returns


def whiten(
    values: jax.Array, counted: jax.Array | None, rows: int, *, shift_mean: bool
) -> jax.Array:
    """Return values whitened over all rows, or over each group of so many.

    Args:
      values: [B, R].
      counted: [B, R] bool, which enter the statistics; None: all.
      rows: of a group, one after another; 0, or B and more: all.
      shift_mean: bring the mean to 0; else it is put back.

    Raises:
      ValueError: the rows do not divide into such groups.
    """
    if not 0 < rows < len(values):
        return masked.whiten(values, counted, shift_mean=shift_mean)
    if len(values) % rows:
        raise ValueError(
            f"{len(values)} replies do not divide into groups of {rows} that are "
            "whitened together; choose a divisor, or 0 for all"
        )
    groups = [
        masked.whiten(
            values[start : start + rows],
            None if counted is None else counted[start : start + rows],
            shift_mean=shift_mean,
        )
        for start in range(0, len(values), rows)
    ]
    return jnp.concatenate(groups)


def _among_replies(rewards: jax.Array, rules: AdvantageRules) -> jax.Array:
    """Return the advantages [B] of whole replies over others to their prompts."""
    if rules.advantages == credit.RLOO:
        return credit.leave_one_out(rewards, group=rules.group)
    return credit.group_relative(
        rewards, group=rules.group, divide=rules.group_deviation
    )


def _group_metrics(rewards: jax.Array, group: int) -> Metrics:
    """Return how far replies to one prompt differ, and where they do not."""
    rows = rewards.reshape(-1, group)
    return {
        "rollout/group_reward_std": jnp.mean(jnp.std(rows, axis=1)),
        # Prompts of which nothing is learnt.
        "rollout/flat_groups": jnp.mean(jnp.ptp(rows, axis=1) == 0.0),
    }


def _metrics(
    rollout: Rollout, kl: jax.Array, shaped: jax.Array, entropy: jax.Array | None
) -> Metrics:
    mask = rollout.mask
    k1 = rollout.logprobs - rollout.ref_logprobs
    lengths = jnp.sum(mask, axis=1).astype(jnp.float32)
    metrics = {
        "rollout/kl_per_token": masked.mean(kl, mask),
        "rollout/kl_sum_mean": jnp.mean(masked.sum(kl, mask, axis=1)),
        "rollout/k1_sum_mean": jnp.mean(masked.sum(k1, mask, axis=1)),
        "rollout/score_mean": jnp.mean(rollout.scores),
        "rollout/score_std": jnp.std(rollout.scores),
        "rollout/shaped_reward_mean": jnp.mean(jnp.sum(shaped, axis=1)),
        "rollout/response_length_mean": jnp.mean(lengths),
        "rollout/response_length_max": jnp.max(lengths),
    }
    if rollout.values is not None:
        metrics["rollout/value_mean"] = masked.mean(rollout.values, mask)
        metrics["rollout/return_mean"] = masked.mean(rollout.returns, mask)
    if entropy is not None:
        metrics["rollout/entropy"] = masked.mean(entropy, mask)
    return metrics


def minibatch_order(
    key: jax.Array, *, step: int, epoch: int, num_rows: int, minibatch_size: int
) -> jax.Array:
    """Return which rows each minibatch of an epoch takes.

    Args:
      key: root key of the run; folded with step and epoch here, so that a resumed
        run repeats and no two epochs share an order.
      step: PPO step.
      epoch: pass over the rollout within the step.
      num_rows: B of the rollout.
      minibatch_size: rows of an update; divides `num_rows`.

    Returns:
      [num_rows / minibatch_size, minibatch_size] int32, a permutation of all rows.

    Raises:
      ValueError: the rows do not divide into minibatches.
    """
    if minibatch_size < 1 or num_rows % minibatch_size:
        raise ValueError(
            f"{num_rows} rows do not divide into minibatches of {minibatch_size}: "
            "choose a divisor, otherwise rows would be left out."
        )
    key = jax.random.fold_in(jax.random.fold_in(key, step), epoch)
    return jax.random.permutation(key, num_rows).reshape(-1, minibatch_size)


def first_minibatch_check(metrics: dict[str, float], *, tolerance: float) -> None:
    """Raise a RuntimeError unless the first minibatch sees an unchanged policy.

    Before the first update the ratio is 1 and the KL from the old policy 0, up to
    rounding. Anything else means that the rollout and the update disagree.

    Args:
      metrics: of `losses.ppo_policy`, before any update of this rollout.
      tolerance: accepted max |ratio - 1| and |approximate KL|.
    """
    names = ("policy/ratio_max_deviation", "policy/approx_kl")
    measured = {name: float(metrics[name]) for name in names}
    if not all(abs(value) <= tolerance for value in measured.values()):
        listed = ", ".join(f"{name} = {value:.3g}" for name, value in measured.items())
        raise RuntimeError(
            f"the first minibatch already differs from its own rollout: {listed}, "
            f"accepted is {tolerance:.3g}. The update computes other log-probabilities "
            "than the rollout did: compare the weights, temperature, precision, "
            "positions and masks of the two."
        )


def engine_check(
    drawn: Sequence[Sequence[float]], read: np.ndarray, *, tolerance: float
) -> dict[str, float]:
    """Compare the engine's log-probabilities with the trainer's; return metrics.

    Both are of the tokens that were drawn, under the distribution they were drawn from.
    The engine may hold other numbers (bfloat16, a cache), but a mean that is far from 0
    says that it holds other weights, positions or temperatures.

    Args:
      drawn: of each reply, the engine's natural logs, a token each.
      read: [B, R] the trainer's; entries behind a reply are any number.
      tolerance: accepted mean |difference|, nats a token.

    Returns:
      `rollout/engine_gap_mean` and `rollout/engine_gap_max`, nats.

    Raises:
      ValueError: the mean is larger, or not finite.
    """
    gaps = [
        np.abs(np.asarray(mine, np.float64) - np.asarray(row[: len(mine)], np.float64))
        for mine, row in zip(drawn, read, strict=True)
    ]
    gap = np.concatenate(gaps) if gaps else np.zeros(0)
    mean, most = (float(gap.mean()), float(gap.max())) if gap.size else (0.0, 0.0)
    if not mean <= tolerance:
        raise ValueError(
            f"the engine and the trainer differ by {mean:.3g} nats a token in the mean "
            f"(at most {most:.3g}) about replies that the engine has just drawn; "
            f"accepted: policy.engine_tolerance={tolerance:g}. Compare what both hold: "
            "weights, precision (engine.weights), positions, temperature"
        )
    return {"rollout/engine_gap_mean": mean, "rollout/engine_gap_max": most}


def score_normalisation(scores: np.ndarray) -> tuple[float, float]:
    """Return the gain and bias that give reference samples mean 0 and deviation 1.

    gain score + bias, with gain = 1 / std(scores), bias = -mean(scores) gain

    Differences of rewards are all that preferences fix. This fixes their zero and
    unit, and so the meaning of a terminal value of -1 and of a KL coefficient.

    Args:
      scores: [N] of the preference model on replies of the reference policy.

    Returns:
      (gain, bias) as Python floats.

    Raises:
      ValueError: the scores do not differ, or are not finite.

    Source: Ziegler et al. 2019, section 2.1.
    """
    scores = np.asarray(scores, np.float64)
    deviation = float(np.std(scores)) if scores.size else 0.0
    if not (np.isfinite(deviation) and deviation > 0.0):
        raise ValueError(
            f"{scores.size} scores with standard deviation {deviation} can not be "
            "normalised: give at least two finite scores that differ."
        )
    return 1.0 / deviation, -float(np.mean(scores)) / deviation
