"""Stage 3: PPO against the preference model, or RLOO or GRPO.

The reward may be a weighted sum, of the run's own preference model and of those of
other runs (`policy.rewards`), all frozen.

Policy and value model are trained, by RLOO and GRPO the policy alone; the reference
(the policy's start) and the preference model are frozen. Every batch, key and prompt of
step s is a function of (seed, s), so a checkpoint of step s resumes to the same
numbers. Leaves `policy/checkpoints`, `policy/samples/<step>.jsonl` with replies to dev
prompts and, where a checkpoint is chosen by them, `policy/chosen`.
"""

from __future__ import annotations

import collections
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import (
    checkpoint,
    headline,
    leaving,
    metrics,
    phases,
    progress_bar,
    retention,
)
from rlcd_jax.job import (
    freed_memory,
    in_flight,
    nonfinite,
    profiling,
    rates,
    roles,
    setup,
    supervised,
    trained_form,
    trainer,
    workspace,
)
from rlcd_jax.models import heads
from rlcd_jax.pairs import cut_counts, length_counts
from rlcd_jax.ppo import acting, choosing, learning, step_notes, weighted_rewards
from rlcd_jax.preference import model
from rlcd_jax.training import train_state

Params = Any
DRAWN = {"rollouts": "rollout", "dev replies": "dev"}  # where their metrics begin
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
    told = _value_told(job)
    actor = acting.Actor(job)
    learner = learning.make_trainer(job)
    folder = workspace.begin(config, workdir, "policy")
    set_frozen(actor, workdir, folder)
    last_step = learning.last_step(section)
    early = int(section.early_checkpoints)
    keep = supervised.retained(config, workdir, "policy", last_step, early)
    with learner.open(folder / "checkpoints", keep) as saver:
        last, chosen, made = nonfinite.with_rollbacks(
            saver,
            functools.partial(
                _train, workdir, folder, actor, learner, saver, keep.best
            ),
        )
        best = keep.as_summary(saver.steps())
    rows = metrics.read_metrics(workdir, "policy")
    cut = {what: _cut(rows, name) for what, name in DRAWN.items()}
    cut_counts.note("policy", cut)
    summary = {
        "steps": last_step,
        "prompts": len(actor.prompts),
        length_counts.SUMMARY: actor.too_long,
        **told,
        cut_counts.SUMMARY: cut,
        **last,
        **chosen,
        "skipped_updates": _skipped(workdir, section),
        **learner.counts,
        **made.as_summary(section.nonfinite),
        **best,
        **phases.added(rows),
        "seconds": time.monotonic() - started,
    }
    return workspace.finish(config, workdir, "policy", summary)


def _train(
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    actor: acting.Actor,
    learner: trainer.Trainer,
    saver: checkpoint.Checkpointer,
    best: retention.Best,
    made: nonfinite.Rollbacks | None,
) -> tuple[dict[str, float], dict[str, Any], nonfinite.Rollbacks]:
    """Train from the latest checkpoint to the end, or to where a rollback is asked.

    Returns:
      The metrics of the last step that was made, what was chosen, and the rollbacks.
    """
    section, every = actor.section, actor.section.checkpoint_every
    total = learning.last_step(section)
    state, start, meta = learner.start_or_resume(
        saver, lambda: start_params(actor.job, workdir)
    )
    best.forget(start)
    made = nonfinite.Rollbacks.from_meta(meta) if made is None else made
    watch = nonfinite.Watch(
        section.nonfinite, folder, "policy", every=every, rollbacks=made
    )
    notes = step_notes.Notes.from_meta(meta, section)
    last: dict[str, float] = dict(meta.get(LAST, {}))
    with (
        choosing.Choice(actor, folder, saver, start, meta, learner.note) as choice,
        metrics.MetricWriter(
            workdir,
            "policy",
            resumed_step=start or None,
            names=actor.job.config.trackers,
        ) as out,
        progress_bar.Progress("policy", total, done=start, every_seconds=0) as bar,
    ):
        phases.begin()
        for step in range(start + 1, total + 1):
            profiling.PROCESS.at(step)
            shown = dict(nonfinite.LEFT_OUT)
            if step not in made:
                state, notes, shown = improve(
                    actor, learner, state, notes, step, watch, saver.latest_step
                )
            freed_memory.give_back()
            saves = learning.is_saved(section, step)
            dev = {}
            if saves:
                whole = learner.models(state)["policy"]
                own = state.params["policy"]
                dev = phases.within("dev", choice.look, step, whole, own, notes)
                del whole, own
            if step == 1:
                dev |= length_counts.as_metrics("policy", actor.too_long)
            seen = learning.finish_metrics(shown) | dev
            row = out.write(step, seen | phases.take())
            best.note(step, row)
            last = last | dev if step in made else row
            bar.advance(1, headline.of(row))
            leaves = step < total and leaving.asked() and step + 1 not in made
            if saves or leaves or made.ends(step):
                noted = notes.as_meta() | choice.as_meta() | made.as_meta()
                learner.save(saver, step, state, noted | {LAST: last})
            if leaves:
                raise leaving.Left(f"policy is saved at step {step}")
        return last, choice.finish(total), made


def improve(
    actor: acting.Actor,
    learner: trainer.Trainer,
    state: train_state.TrainState,
    notes: step_notes.Notes,
    step: int,
    watch: nonfinite.Watch | nonfinite.Look,
    saved: Callable[[], int | None],
) -> tuple[train_state.TrainState, step_notes.Notes, dict[str, Any]]:
    """Make one step of PPO: draw, read, update; return what it leaves.

    Args:
      actor: draws, scores and reads.
      learner: the compiled update.
      state: before; it is used up.
      notes: before.
      step: from 1.
      watch: looks at the metrics.
      saved: returns the step from which a run that stops goes on.

    Returns:
      State and notes after, and metrics for `learning.finish_metrics`; the rates among
      them are of what `phases` has counted since its last step.
    """
    section = actor.section
    prompts = actor.draw_prompts(step)
    models = learner.models(state)
    replies = actor.generate(models["policy"], prompts, step)
    frozen, notes, drawn = actor.roll_out(models, replies, notes)
    del models  # the state is used up by the updates
    freed_memory.give_back()  # of drawing and reading: the updates need the room
    texts = actor.texts(replies)
    facts = {"seed": actor.job.config.seed, "prompts": [one.id for one in prompts]}
    shown: dict[str, Any] = watch.finite(drawn, step, facts=facts, save=saved)
    if nonfinite.SKIPPED in shown:
        return state, notes, shown

    def look(
        number: int,
        minibatch: Mapping[str, Any],
        said: dict[str, float],
        state: train_state.TrainState,
    ) -> None:
        nonlocal shown
        update = watch.finite(
            said,
            step,
            facts=facts | {"minibatch": number},
            norms=functools.partial(learner.norms, state, minibatch),
            save=saved,
        )
        shown = learning.record(shown, update, section)

    updates = in_flight.Updates(learner)
    with phases.phase(rates.UPDATE):
        batches = enumerate(learning.minibatches(frozen, texts, actor.job, step))
        ready = collections.deque(itertools.islice(batches, 1))

        def prepare() -> None:
            ready.extend(itertools.islice(batches, 1))

        while ready:
            number, minibatch = ready.popleft()
            looked = functools.partial(look, number, minibatch)
            state = updates.make(state, minibatch, looked, prepare)
        updates.land(state)
    shown |= rates.of_updates(phases.so_far(), **learning.work(actor.job, texts))
    return state, step_notes.adapt(notes, shown, section), shown


def _skipped(workdir: str | pathlib.Path, section: ConfigDict) -> float:
    """Return how many updates were left out; a row has the share of its step's."""
    rows = metrics.read_metrics(workdir, "policy")
    return nonfinite.count(rows) * learning.updates_per_step(section)


def _cut(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, int]:
    """Return how many replies of all steps were cut.

    Args:
      rows: of metrics, each with those of its step.
      name: first part of their names.
    """
    return cut_counts.added(cut_counts.from_metrics(name, row) for row in rows)


def set_frozen(
    actor: acting.Actor,
    workdir: str | pathlib.Path,
    folder: pathlib.Path | None = None,
) -> None:
    """Give an actor the models of a run that PPO does not change.

    Args:
      actor: that has none yet.
      workdir: of the run.
      folder: in which they may be parked while nobody reads them.
    """
    # Read again for the value model's start: a float32 copy would be held for ever.
    job, rewarder = actor.job, actor.rewarder
    preference = model.restore(rewarder, workdir)
    others = {
        one.name: model.restore(rewarder, one.run)
        for one in weighted_rewards.read(actor.section.rewards)
    }
    actor.set_frozen(
        reference=job.load_base(),
        preference=preference,
        others=others,
        folder=folder,
    )


def start_params(job: setup.Job, workdir: str | pathlib.Path) -> Params:
    """Return what is trained, before the first step."""
    start = {learning.POLICY: trained_form.start_policy(job)}
    if learning.VALUE in learning.trained(job.config.policy):
        if learning.value_begins_as(job) == roles.PREFERENCE:
            scalar = model.restore_trained(job.of(roles.PREFERENCE), workdir)
        else:
            scalar = model.start_params(job)
        start[learning.VALUE] = heads.value_from_preference(scalar)
    return start


def _value_told(job: setup.Job) -> dict[str, str]:
    """Say what the value model begins as, where the preference model is another's."""
    asked = learning.VALUE in learning.trained(job.config.policy)
    if not asked or job.is_model_of(roles.PREFERENCE):
        return {}
    role = learning.value_begins_as(job)
    spec = roles.spec_of(job.config.model, role)
    began = {
        roles.PREFERENCE: f"the preference model, of {spec}",
        roles.POLICY: f"the policy's base, {spec}: the preference model has other "
        "shapes or tokens, or its adapters another base",
    }[role]
    logging.info("policy: the value model begins as %s", began)
    return {"value_model_begins_as": began}
