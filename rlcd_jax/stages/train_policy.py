"""Stage 3: PPO against the preference model.

Policy and value model are trained; the reference (the policy's start) and the
preference model are frozen. Every batch, key and prompt of step s is a function of
(seed, s), so a checkpoint of step s resumes to the same numbers. Leaves
`policy/checkpoints`, `policy/samples/<step>.jsonl` with replies to dev prompts
and, where a checkpoint is chosen by them, `policy/chosen`.
"""

from __future__ import annotations

import functools
import math
import pathlib
import time
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, leaving, metrics, progress_bar
from rlcd_jax.job import nonfinite, setup, trainer, workspace
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
    watch = nonfinite.Watch(section.nonfinite, folder, "policy")
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
                facts = {"seed": config.seed, "prompts": [one.id for one in prompts]}
                drawn = watch.finite(shown, step, facts=facts, save=saver.latest_step)
                usable = nonfinite.SKIPPED not in drawn
                shown = drawn
                for n, minibatch in enumerate(
                    learning.minibatches(frozen, texts, job, step) if usable else ()
                ):
                    state, out_metrics = learner.update(state, minibatch)
                    update = watch.finite(
                        trainer.host_metrics(out_metrics),
                        step,
                        facts=facts | {"minibatch": n},
                        norms=functools.partial(learner.norms, state, minibatch),
                        save=saver.latest_step,
                    )
                    shown = learning.record(shown, update, section)
                notes = acting.adapt(notes, shown, section) if usable else notes
                saves = step % section.checkpoint_every == 0 or step == section.steps
                dev = choice.look(step, state.params["policy"]) if saves else {}
                last = out.write(step, learning.finish_metrics(shown) | dev)
                bar.advance(1, f"score {last.get('rollout/score_mean', math.nan):.2f}")
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
        "skipped_updates": _skipped(workdir, section),
        "seconds": time.monotonic() - started,
    }
    logging.info("policy: %s", summary)
    return workspace.finish(config, workdir, "policy", summary)


def _skipped(workdir: str | pathlib.Path, section: ConfigDict) -> float:
    """Return how many updates were left out; a row has the share of its step's."""
    rows = metrics.read_metrics(workdir, "policy")
    return nonfinite.count(rows) * learning.updates_per_step(section)


def _set_frozen(actor: acting.Actor, workdir: str | pathlib.Path) -> None:
    # Read again for the value model's start: a float32 copy would be held for ever.
    job = actor.job
    preference = model.restore(job, workdir)
    actor.set_frozen(reference=job.load_base(), preference=preference)


def _start_params(job: setup.Job, workdir: str | pathlib.Path) -> Params:
    preference = model.restore(job, workdir)
    value = heads.value_from_preference(preference)
    return {"policy": job.load_base(), "value": value}
