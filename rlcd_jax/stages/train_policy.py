"""Stage 3: PPO against the preference model.

Policy and value model are trained; the reference (the policy's start) and the
preference model are frozen. Every batch, key and prompt of step s is a function of
(seed, s), so a checkpoint of step s resumes to the same numbers. Leaves
`policy/checkpoints`, `policy/samples/<step>.jsonl` with replies to dev prompts
and, where a checkpoint is chosen by them, `policy/chosen`.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, leaving, metrics, progress_bar
from rlcd_jax.job import setup, workspace
from rlcd_jax.models import heads
from rlcd_jax.pairs import length_counts
from rlcd_jax.ppo import acting, choosing, learning
from rlcd_jax.preference import model

Params = Any
LAST = "last"  # in a checkpoint's JSON: the metrics of its step, for the summary


def train_policy(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Improve the base model by PPO; the loop is the algorithm.

    Args:
      config: of the run; section `policy`.
      workdir: folder of the run, with `preference/checkpoints`.

    Returns:
      The summary: metrics of the last step, the chosen step and why.
    """
    if workspace.finished(config, workdir, "policy"):
        return workspace.summary(workdir, "policy")
    started = time.monotonic()
    section = config.policy
    job = setup.load_job(config)
    actor = acting.Actor(job)
    learner = learning.make_trainer(job)
    folder = workspace.begin(config, workdir, "policy")
    _set_frozen(actor, workdir)
    keep = checkpoint.Regular(
        config.keep_checkpoints, section.checkpoint_every, section.steps
    )
    with checkpoint.Checkpointer(folder / "checkpoints", regular=keep) as saver:
        state, start, meta = learner.start_or_resume(
            saver, lambda: _start_params(job, workdir)
        )
        notes = acting.Notes.from_meta(meta, section)
        last: dict[str, float] = dict(meta.get(LAST, {}))
        with (
            choosing.Choice(actor, folder, saver, start, meta) as choice,
            metrics.MetricWriter(workdir, "policy", resumed_step=start or None) as out,
            progress_bar.Progress("policy", section.steps, unit="steps") as bar,
        ):
            bar.done = start
            for step in range(start + 1, section.steps + 1):
                prompts = actor.draw_prompts(step)
                replies = actor.generate(state.params["policy"], prompts, step)
                frozen, notes, shown = actor.roll_out(state.params, replies, notes)
                texts = actor.texts(replies)
                for minibatch in learning.minibatches(frozen, texts, job, step):
                    state, update_metrics = learner.update(state, minibatch)
                    shown = learning.record(shown, update_metrics, section)
                notes = acting.adapt(notes, shown, section)
                saves = step % section.checkpoint_every == 0 or step == section.steps
                dev = choice.look(step, state.params["policy"]) if saves else {}
                last = out.write(step, learning.finish_metrics(shown) | dev)
                bar.advance(1, f"score {last['rollout/score_mean']:.2f}")
                leaves = step < section.steps and leaving.asked()
                if saves or leaves:
                    noted = notes.as_meta() | choice.as_meta() | {LAST: last}
                    learner.save(saver, step, state, noted)
                if leaves:
                    raise leaving.Left(f"policy is saved at step {step}")
            chosen = choice.finish(section.steps)
    summary = {
        "steps": section.steps,
        "prompts": len(actor.prompts),
        length_counts.SUMMARY: actor.too_long,
        **last,
        **chosen,
        "seconds": time.monotonic() - started,
    }
    logging.info("policy: %s", summary)
    return workspace.finish(config, workdir, "policy", summary)


def _set_frozen(actor: acting.Actor, workdir: str | pathlib.Path) -> None:
    # Read again for the value model's start: a float32 copy would be held for ever.
    job = actor.job
    preference = model.restore(job, workdir)
    actor.set_frozen(reference=job.load_base(), preference=preference)


def _start_params(job: setup.Job, workdir: str | pathlib.Path) -> Params:
    preference = model.restore(job, workdir)
    value = heads.value_from_preference(preference)
    return {"policy": job.load_base(), "value": value}
