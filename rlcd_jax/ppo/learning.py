"""The update half of PPO: one loss over policy and value model, and its batches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import processes
from rlcd_jax.job import setup, stage_optimizer, trained_form, trainer
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import reply_rows, rollout
from rlcd_jax.training import losses, packing, train_state

Params = Any


def make_trainer(job: setup.Job) -> trainer.Trainer:
    """Return the compiled update of policy and value model together."""
    section = job.config.policy
    return trainer.Trainer(
        job.mesh,
        {name: trained_form.specs(job, name) for name in ("policy", "value")},
        stage_optimizer.make(
            section,
            schedule="linear",
            warmup=section.warmup_steps,
            total=section.steps,
            every=updates_per_step(section),
            idle=section.first_step_idle,
            parts=() if section.joint_clip else ("policy", "value"),
        ),
        ppo_loss(job),
        num_micro=reply_rows.rows_of_update(section) // reply_rows.rows_at_once(job),
        weight="weighs",
        base=trained_form.base_of(job),
    )


def updates_per_step(section: ConfigDict) -> int:
    """Return the optimizer updates of one PPO step.

    Raises:
      ValueError: the update batch does not divide the rollouts.
    """
    if section.rollouts % section.update_batch:
        raise ValueError(
            f"policy.update_batch={section.update_batch} does not divide "
            f"policy.rollouts={section.rollouts}; choose a divisor"
        )
    return section.epochs * section.rollouts // section.update_batch


def last_step(section: ConfigDict) -> int:
    """Return the last PPO step that is made.

    As released, with `policy.early_checkpoints`, a checkpoint lacks the step that it is
    named after; so the last step is in none, and is not made.
    """
    return section.steps - section.early_checkpoints


def is_saved(section: ConfigDict, step: int) -> bool:
    """Return whether the policy after a step is one that the config asks for."""
    regular = (step + section.early_checkpoints) % section.checkpoint_every == 0
    return regular or step == last_step(section)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What of a job chooses the programs that read packed replies.

    Attributes:
      cfg: model numbers.
      chunk_tokens: tokens whose logits exist at once, on all devices together.
      temperature: that the replies were drawn at.
    """

    cfg: llama.LlamaConfig
    chunk_tokens: int
    temperature: float


def reading(job: setup.Job) -> Reading:
    """Return how the rollout and the update of a job read replies."""
    return Reading(job.cfg, job.chunk_tokens, float(job.config.policy.temperature))


def response_logprobs(
    params: Params,
    how: Reading,
    rows: Mapping[str, jax.Array],
    *,
    with_entropy: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Return log-probabilities [B, R] of the response tokens, and entropies.

    Rollout and update both call this, so before the first update the ratio is 1.
    Entries behind a reply are any number.

    Args:
      params: of a language model.
      how: as `reading` gives it.
      rows: the arrays `reply_rows.READ` of a part.
      with_entropy: whether entropies are wanted too.
    """
    logprobs, entropy = heads.state_logprobs(
        params,
        how.cfg,
        rows,
        chunk_tokens=how.chunk_tokens,
        temperature=how.temperature,
        with_entropy=with_entropy,
    )
    if entropy is not None:
        entropy = packing.unpack(entropy, rows["at"])
    return packing.unpack(logprobs, rows["at"]), entropy


def response_values(
    params: Params, how: Reading, rows: Mapping[str, jax.Array]
) -> jax.Array:
    """Return the values [B, R] of the states before the response tokens.

    Arguments as those of `response_logprobs`, of a value model.
    """
    scalars = heads.scalar_per_token(params, how.cfg, rows["tokens"], rows["segments"])
    values = jnp.take_along_axis(scalars, rows["states"], axis=1)
    return packing.unpack(values, rows["at"])


def ppo_loss(job: setup.Job) -> train_state.LossFn:
    """Return the loss of a minibatch: policy loss plus weighted value loss."""
    section = job.config.policy
    return _loss(
        reading(job),
        clip=float(section.clip),
        value_clip=float(section.value_clip),
        value_coef=float(section.value_coef),
        statistics=section.statistics,
        share=reply_rows.rows_of_update(section) / section.update_batch,
    )


@functools.lru_cache(maxsize=trainer.KEPT)
def _loss(how: Reading, **numbers: Any) -> train_state.LossFn:
    def read(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        logprobs, _ = response_logprobs(params["policy"], how, batch)
        return logprobs, response_values(params["value"], how, batch)

    return total_loss(read, **numbers)


def total_loss(
    read: Callable[[Mapping[str, Params], Mapping[str, jax.Array]], Any],
    *,
    clip: float,
    value_clip: float,
    value_coef: float,
    statistics: str,
    share: float,
) -> train_state.LossFn:
    """Return the loss of a minibatch: of the policy, plus weighted that of the value.

    Args:
      read: from parameters and batch to log-probabilities and values, [B, R].
      clip: of the ratio.
      value_clip: of the value.
      value_coef: weight of the value loss.
      statistics: of `losses`.
      share: of an update's rows that the minibatch has, by which it is multiplied; 1
        but for the accumulation of the release, which clears the gradients of others.
    """

    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        logprobs, values = read(params, batch)
        policy_loss, policy_metrics = losses.ppo_policy(
            logprobs,
            batch["logprobs"],
            batch["advantages"],
            batch["response_mask"],
            clip=clip,
            statistics=statistics,
        )
        value_loss, value_metrics = losses.ppo_value(
            values,
            batch["values"],
            batch["returns"],
            batch["response_mask"],
            clip=value_clip,
            statistics=statistics,
        )
        total = policy_loss + value_coef * value_loss
        return share * total, {**policy_metrics, **value_metrics, "loss/total": total}

    return loss_fn


def minibatches(
    frozen: rollout.Rollout,
    texts: Sequence[packing.Text],
    job: setup.Job,
    step: int,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches of one PPO step: each epoch takes all rows in a new order.

    Args:
      frozen: the rollout of the step.
      texts: the prompts and replies that it is of.
      job: of the stage.
      step: of PPO.
    """
    config, section = job.config, job.config.policy
    host = processes.fetch(frozen)
    weighs = host.mask if section.statistics == "masked" else np.ones_like(host.mask)
    arrays = {
        "response_mask": host.mask,
        "logprobs": host.logprobs,
        "values": host.values,
        "advantages": host.advantages,
        "returns": host.returns,
        "weighs": weighs,
    }
    key = jax.random.key(config.seed)
    orders = [
        order
        for epoch in range(section.epochs)
        for order in np.asarray(
            rollout.minibatch_order(
                key,
                step=step,
                epoch=epoch,
                num_rows=len(texts),
                minibatch_size=section.update_batch,
            )
        )[:, -reply_rows.rows_of_update(section) :]
    ]
    for chosen, rows in reply_rows.update_batches(job, texts, orders):
        yield {**rows, **{name: array[chosen] for name, array in arrays.items()}}


def record(
    shown: dict[str, Any], update: Mapping[str, float], section: ConfigDict
) -> dict[str, Any]:
    """Add the metrics of one update to those of the step.

    The first update of a step is checked: it sees the policy that wrote the rollout.
    """
    if "updates" not in shown and not update[train_state.SKIPPED]:
        rollout.first_minibatch_check(update, tolerance=section.ratio_tolerance)
    return {**shown, "updates": [*shown.get("updates", []), update]}


def finish_metrics(shown: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of a step: those of its updates are averaged."""
    updates = shown.get("updates", [])
    names = dict.fromkeys(name for update in updates for name in update)
    means = {
        name: float(np.mean([one[name] for one in updates if name in one]))
        for name in names
    }
    rest = {k: float(v) for k, v in shown.items() if k != "updates"}
    return {**rest, **means}


def float32(value: float) -> jax.Array:
    """Return a scalar array, so that a changed number does not recompile."""
    return jnp.asarray(value, jnp.float32)
