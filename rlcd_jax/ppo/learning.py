"""The update half of PPO: one loss over what is trained, and its batches.

That is policy and value model, or the policy alone where the other replies to a prompt
stand for a value model.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import processes
from rlcd_jax.job import (
    nonfinite,
    rates,
    roles,
    setup,
    stage_optimizer,
    trained_form,
    trainer,
)
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import credit, kl_penalty, reply_rows, rollout
from rlcd_jax.training import losses, packing, row_arrays, train_state

Params = Any
POLICY, VALUE = "policy", "value"  # names of the parameters
# Arrays of a minibatch that one of them alone reads.
_OWN_ARRAYS = {
    POLICY: ("logprobs", "advantages", "ref_logprobs"),
    VALUE: ("values", "returns"),
}


def trained(section: ConfigDict) -> tuple[str, ...]:
    """Return the names of what the policy stage trains, by `policy.advantages`."""
    return (POLICY,) if section.advantages in credit.GROUPED else (POLICY, VALUE)


def value_begins_as(job: setup.Job) -> str:
    """Return whose model the value model begins as: the preference model's, or ours.

    The method's is the preference model. But a value is of every token of the policy's
    replies: where the preference model has other numbers or ids, or adapters on another
    base, the value model begins as the policy's base.

    Args:
      job: of the stage, with the policy's model.

    Returns:
      `roles.PREFERENCE` or `roles.POLICY`.
    """
    if job.is_model_of(roles.PREFERENCE):
        return roles.PREFERENCE
    other = job.of(roles.PREFERENCE)
    fits = other.cfg == job.cfg and job.text_tokenizer.is_like(other.text_tokenizer)
    return roles.PREFERENCE if fits and job.lora is None else roles.POLICY


def make_trainer(job: setup.Job) -> trainer.Trainer:
    """Return the compiled update of all that is trained together."""
    section = job.config.policy
    names = trained(section)
    return trainer.Trainer(
        job.mesh,
        {name: trained_form.specs(job, name) for name in names},
        stage_optimizer.make(
            section,
            schedule="linear",
            warmup=section.warmup_steps,
            total=section.steps,
            every=updates_per_step(section),
            idle=section.first_step_idle,
            parts=() if section.joint_clip else names,
        ),
        ppo_loss(job),
        num_micro=reply_rows.rows_of_update(section) // reply_rows.rows_at_once(job),
        weight="weighs",
        base=trained_form.base_of(job),
        apart=names if is_apart(section) else (),
    )


def is_apart(section: ConfigDict) -> bool:
    """Return whether policy and value model are updated one after the other.

    That halves gradients and what passes keep, and changes no number. But not where
    one norm clips both, nor where the run goes on from an update that is left out,
    which is left out of both.
    """
    goes_on = section.nonfinite == nonfinite.SKIP
    return len(trained(section)) > 1 and not section.joint_clip and not goes_on


def unread(name: str) -> tuple[str, ...]:
    """Return the arrays of a minibatch that the update of one model does not read."""
    others = [own for other, own in _OWN_ARRAYS.items() if other != name]
    return tuple(itertools.chain(*others)) if name in _OWN_ARRAYS else ()


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


def work(job: setup.Job, texts: Sequence[packing.Text]) -> dict[str, float]:
    """Return what the updates of a PPO step read and do, for `rates.of_updates`.

    The policy makes logits of the replies' states, the value model none.

    Args:
      job: of the stage.
      texts: the step's prompts with their replies.
    """
    section, adapted = job.config.policy, job.lora is not None
    often = section.epochs * reply_rows.rows_of_update(section) / section.update_batch
    flops = rates.update_flops(job.cfg, texts, adapted=adapted)
    if VALUE in trained(section):
        mute = [dataclasses.replace(text, wanted=()) for text in texts]
        flops += rates.update_flops(job.cfg, mute, adapted=adapted)
    tokens = sum(len(text.ids) for text in texts)
    return {"tokens": often * tokens, "flops": often * flops}


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
    temperature = float(job.config.policy.temperature)
    return Reading(job.trained_cfg("policy"), job.chunk_tokens, temperature)


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
        entropy = row_arrays.unpack(entropy, rows["at"])
    return row_arrays.unpack(logprobs, rows["at"]), entropy


def response_values(
    params: Params, how: Reading, rows: Mapping[str, jax.Array]
) -> jax.Array:
    """Return the values [B, R] of the states before the response tokens.

    Arguments as those of `response_logprobs`, of a value model.
    """
    scalars = heads.scalar_per_token(params, how.cfg, rows["tokens"], rows["segments"])
    values = jnp.take_along_axis(scalars, rows["states"], axis=1)
    return row_arrays.unpack(values, rows["at"])


def ppo_loss(job: setup.Job) -> train_state.LossFn:
    """Return the loss of a minibatch: the policy's, and of values and KL if in it.

    policy loss + value_coef value loss + kl_coef KL, each where there is one.
    """
    section = job.config.policy
    return _loss(
        reading(job),
        LossTerms(
            clip=float(section.clip),
            statistics=section.statistics,
            per_sequence=section.per_sequence,
            value_clip=float(section.value_clip),
            value_coef=float(section.value_coef),
            kl=section.kl_estimator if section.kl_in == kl_penalty.LOSS else "",
            kl_coef=float(section.kl_coef),
            share=reply_rows.rows_of_update(section) / section.update_batch,
        ),
    )


@dataclasses.dataclass(frozen=True)
class LossTerms:
    """What the loss of an update is made of.

    Attributes:
      clip: half-width of the trusted interval of the ratio.
      statistics: what a mean over tokens runs over.
      per_sequence: replies weigh alike, not tokens.
      value_clip: how far a value may move from the old one.
      value_coef: weight of the value loss.
      kl: estimator of the KL that is a term of the loss; "": none is.
      kl_coef: its weight.
      share: of an update's rows that a minibatch has, by which the sum is multiplied; 1
        but for the accumulation of the release, which clears the gradients of others.
    """

    clip: float
    statistics: str
    per_sequence: bool
    value_clip: float
    value_coef: float
    kl: str
    kl_coef: float
    share: float


@functools.lru_cache(maxsize=trainer.KEPT)
def _loss(how: Reading, terms: LossTerms) -> train_state.LossFn:
    def read(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        logprobs = values = None
        if POLICY in params:
            logprobs, _ = response_logprobs(params[POLICY], how, batch)
        if VALUE in params:
            values = response_values(params[VALUE], how, batch)
        return logprobs, values

    return total_loss(read, terms)


def total_loss(
    read: Callable[[Mapping[str, Params], Mapping[str, jax.Array]], Any],
    terms: LossTerms,
) -> train_state.LossFn:
    """Return the loss of a minibatch: the sum of its terms.

    Args:
      read: from parameters and batch to log-probabilities and values, [B, R]; None of
        a model that is not among the parameters.
      terms: of the loss.
    """

    def of_policy(logprobs: jax.Array, batch: Mapping[str, jax.Array]):
        loss, metrics = losses.ppo_policy(
            logprobs,
            batch["logprobs"],
            batch["advantages"],
            batch["response_mask"],
            clip=terms.clip,
            statistics=terms.statistics,
            per_sequence=terms.per_sequence,
        )
        if not terms.kl:
            return loss, metrics
        penalty, more = kl_penalty.kl_loss(
            logprobs,
            batch["ref_logprobs"],
            batch["response_mask"],
            estimator=terms.kl,
            per_sequence=terms.per_sequence,
        )
        return loss + terms.kl_coef * penalty, metrics | more

    def of_values(values: jax.Array, batch: Mapping[str, jax.Array]):
        loss, metrics = losses.ppo_value(
            values,
            batch["values"],
            batch["returns"],
            batch["response_mask"],
            clip=terms.value_clip,
            statistics=terms.statistics,
        )
        return terms.value_coef * loss, metrics

    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        logprobs, values = read(params, batch)
        total, metrics = jnp.zeros((), jnp.float32), {}
        if logprobs is not None:
            loss, more = of_policy(logprobs, batch)
            total, metrics = total + loss, metrics | more
        if values is not None:
            loss, more = of_values(values, batch)
            total, metrics = total + loss, metrics | more
        return terms.share * total, {**metrics, "loss/total": total}

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
    if section.per_sequence:
        weighs = host.mask.any(axis=1)
    arrays = {
        "response_mask": host.mask,
        "logprobs": host.logprobs,
        "advantages": host.advantages,
        "weighs": weighs,
    }
    if VALUE in trained(section):
        arrays |= {"values": host.values, "returns": host.returns}
    if section.kl_in == kl_penalty.LOSS:
        arrays["ref_logprobs"] = host.ref_logprobs
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
