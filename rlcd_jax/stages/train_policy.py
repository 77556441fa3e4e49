"""Stage 3: PPO against the preference model.

Policy and value model are trained; the reference (the policy's start) and the
preference model are frozen. Every batch, key and prompt of step s is a function of
(seed, s), so a checkpoint of step s resumes to the same numbers. Leaves
``policy/checkpoints`` and ``policy/samples/<step>.jsonl``.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, metrics, records
from rlcd_jax.models import heads
from rlcd_jax.stages import (
    inputs,
    ppo,
    ppo_rollout,
    train_preference,
    workspace,
)

Params = Any


def train_policy(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Improve the base model by PPO; the loop is the algorithm.

    Args:
      config: of the run; section ``policy``.
      workdir: folder of the run, with ``preference/checkpoints``.

    Returns:
      The summary: metrics of the last step.
    """
    if workspace.finished(config, workdir, "policy"):
        return workspace.summary(workdir, "policy")
    started = time.monotonic()
    found = inputs.load_inputs(config)
    section = config.policy
    actor = ppo_rollout.Actor(found)
    learner = ppo.make_trainer(found)
    folder = workspace.begin(config, workdir, "policy")
    # Read again for the value model's start: a float32 copy would be held for ever.
    actor.set_frozen(
        reference=found.load_base(), preference=_preference_params(found, workdir)
    )
    last: dict[str, float] = {}
    with checkpoint.Checkpointer(folder / "checkpoints", max_to_keep=2) as saver:
        state, start, meta = learner.start_or_resume(
            saver, lambda: _start_params(found, workdir)
        )
        notes = ppo_rollout.Notes.from_meta(meta, section)
        with (
            metrics.MetricWriter(workdir, "policy", resumed_step=start or None) as out,
            metrics.Progress("policy", section.steps, unit="steps") as bar,
        ):
            bar.done = start
            for step in range(start + 1, section.steps + 1):
                prompts = actor.draw_prompts(step)
                replies = actor.generate(state.params["policy"], prompts, step)
                frozen, notes, shown = actor.roll_out(state.params, replies, notes)
                for minibatch in ppo.minibatches(frozen, config, step):
                    state, update_metrics = learner.update(state, minibatch)
                    shown = ppo.record(shown, update_metrics, section)
                notes = ppo_rollout.adapt(notes, shown, section)
                last = out.write(step, ppo.finish_metrics(shown))
                bar.advance(1, f"score {last['rollout/score_mean']:.2f}")
                if step % section.checkpoint_every == 0 or step == section.steps:
                    learner.save(saver, step, state, notes.as_meta())
                    _save_samples(folder, step, actor, state.params["policy"])
    summary = {
        "steps": section.steps,
        "prompts": len(actor.dialogues),
        "prompts_too_long": actor.too_long,
        **last,
        "seconds": time.monotonic() - started,
    }
    logging.info("policy: %s", summary)
    return workspace.finish(config, workdir, "policy", summary)


def _start_params(found: inputs.Inputs, workdir: str | pathlib.Path) -> Params:
    preference = _preference_params(found, workdir)
    value = heads.value_from_preference(preference)
    return {"policy": found.load_base(), "value": value}


def _preference_params(found: inputs.Inputs, workdir: str | pathlib.Path) -> Params:
    folder = workspace.stage_folder(workdir, "preference") / "checkpoints"
    return inputs.restore_params(
        found, folder, train_preference.ITEM, heads.scalar_specs(found.cfg)
    )


def _save_samples(
    folder: pathlib.Path, step: int, actor: ppo_rollout.Actor, policy: Params
) -> None:
    """Write the policy's replies to the same few prompts, for people to read."""
    dialogues = actor.dialogues[: actor.section.sample_prompts]
    sampled = actor.generate(policy, dialogues, step=0)
    rewards = actor.raw_rewards(sampled)
    rows = [
        {
            "prompt_id": one.dialogue.id,
            "prompt": one.dialogue.text,
            "reply": one.reply.text,
            "finish": one.reply.finish,
            "score": float(reward),
        }
        for one, reward in zip(sampled, rewards, strict=True)
    ]
    if jax.process_index() == 0:
        records.write_jsonl(folder / "samples" / f"{step:06d}.jsonl", rows)
