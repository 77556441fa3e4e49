"""The loop of the stages that are trained on texts that are there.

Batch i of a run is a function of (seed, i) alone: Grain shuffles each epoch anew and
is read by index. So the checkpoint of step i is all that a resumed run needs, and the
number of hosts changes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import (
    checkpoint,
    headline,
    leaving,
    metrics,
    phases,
    processes,
    progress_bar,
    retention,
    sharding,
)
from rlcd_jax.job import (
    curriculum,
    in_flight,
    nonfinite,
    packed_batches,
    profiling,
    rates,
    setup,
    stage_optimizer,
    trained_form,
    trainer,
    workspace,
)
from rlcd_jax.models import llama
from rlcd_jax.pairs import filtering, length_counts
from rlcd_jax.training import train_state

Params = Any
Row = Any
# The last state, what was held out, and the rollbacks that there were.
_Trained = tuple[train_state.TrainState, dict[str, float], nonfinite.Rollbacks]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a supervised stage learns from, and how it is looked at.

    Attributes:
      stage: name of the stage.
      cfg: numbers of the model that learns.
      rows: the training rows.
      collate: how they become arrays.
      evaluate: parameters -> metrics on held-out rows; {} where there are none.
      too_long: what became of texts that are, by kind; `length_counts.counts` each.
    """

    stage: str
    cfg: llama.LlamaConfig
    rows: Sequence[Row]
    collate: packed_batches.Collate
    evaluate: Callable[[Mapping[str, Params]], dict[str, float]]
    too_long: Mapping[str, Mapping[str, int]]


def num_updates(
    section: ConfigDict, num_rows: int, stage: str, lost: Callable[[], str] = str
) -> int:
    """Return the optimizer updates of all epochs; a last incomplete batch is left out.

    Args:
      section: of the config, for the stage.
      num_rows: to train on.
      stage: its name, for the message.
      lost: returns where the other rows went, for the message.

    Raises:
      ValueError: there are fewer rows than one batch takes.
    """
    total = num_rows * section.epochs // section.batch_size
    if num_rows < section.batch_size or not total:
        why = lost()
        raise ValueError(
            f"{stage}: {num_rows} training rows are fewer than one batch of "
            f"{stage}.batch_size={section.batch_size}{why and f': {why}'}; "
            + ("lower it, " if num_rows else "")
            + "make more pairs with a larger prompts.limit or "
            "pairs.samples_per_prompt, or let fewer be dropped with a larger "
            "pairs.max_tries or pairs.reply_tokens"
        )
    return total


def lost_pairs(
    workdir: str | pathlib.Path, stage: str, too_long: Mapping[str, int]
) -> str:
    """Return where a run's pairs went before a stage, in words for a message.

    Args:
      workdir: of the run, whose pairs are simulated.
      stage: which reads them.
      too_long: what became of those over the stage's lengths, by `length_counts`.
    """
    drawn = workspace.summary(workdir, "simulate")
    sides = [
        f"{count} of side {side} ({reason})"
        for side, counts in drawn["dropped_by_side"].items()
        for reason, count in counts.items()
    ]
    long, same = too_long["dropped"], too_long["identical"]
    filtered = filtering.said(drawn.get("filtered", {}))
    return (
        f"simulate made {drawn['pairs']} pairs and dropped "
        f"{', '.join(sides) or 'no reply'}"
        + f", left out by their scores {filtered}" * bool(filtered)
        + f", and {long} are over {stage}.lengths"
        + f", {same} of two replies that are the same" * bool(same)
    )


def note_too_long(stage: str, too_long: Mapping[str, Mapping[str, int]]) -> None:
    """Say what was left out or shortened before any training, if anything was.

    Args:
      stage: which reads the texts.
      too_long: by kind of text, as `length_counts` counts.
    """
    for what, counts in too_long.items():
        if became := length_counts.became(counts):
            logging.warning(
                "%s: of %d %s, %s (by %s.lengths; identical: of two replies that are "
                "the same, which compare nothing)",
                stage,
                counts["of"],
                what,
                became,
                stage,
            )


def make_trainer(
    job: setup.Job,
    stage: str,
    item: str,
    loss_fn: train_state.LossFn,
    *,
    updates: int,
    weight: str,
) -> trainer.Trainer:
    """Return the compiled update of a supervised stage, by its section of the config.

    Args:
      job: of the stage.
      stage: its name, and that of its section.
      item: of its checkpoints: the model that is trained.
      loss_fn: mean loss of a part of a batch, and metrics.
      updates: of the whole training, which the schedule needs.
      weight: the array of a batch that says how much a part weighs.
    """
    section = job.config[stage]
    return trainer.Trainer(
        job.mesh,
        {item: trained_form.specs(job, item)},
        stage_optimizer.make(
            section,
            schedule=section.schedule,
            warmup=round(section.warmup_fraction * updates),
            total=updates,
            idle=section.first_step_idle,
        ),
        loss_fn,
        num_micro=micro_batches(job, stage),
        weight=weight,
        base=trained_form.base_of(job),
    )


def micro_batches(job: setup.Job, stage: str) -> int:
    """Return in how many parts a supervised stage takes a batch."""
    section = job.config[stage]
    return trainer.micro_batches(
        stage, section.batch_size, section.micro_batch, sharding.batch_ways(job.mesh)
    )


def fit(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    lesson: Lesson,
    program: trainer.Trainer,
    make_params: Callable[[], Mapping[str, Params]],
) -> tuple[train_state.TrainState, dict[str, Any]]:
    """Train to the end, from the latest checkpoint if there is one.

    Args:
      config: of the run.
      workdir: folder of the run.
      folder: folder of the stage.
      lesson: rows and how to look at them.
      program: the compiled update.
      make_params: returns the parameters at the start.

    Returns:
      The last state, and the held-out metrics of the last parameters with the share of
      useful tokens in all batches, and of those that were not read again, if any.
    """
    section = config[lesson.stage]
    batches = make_batches(config, lesson.stage, lesson.rows, lesson.collate)
    total = batches.total
    keep = retained(config, workdir, lesson.stage, total)
    with program.open(folder / "checkpoints", keep) as saver:

        def train(made: nonfinite.Rollbacks | None) -> _Trained:
            return _train(
                config,
                workdir,
                folder,
                lesson,
                batches,
                program,
                saver,
                keep.best,
                make_params,
                made,
            )

        state, held_out, made = nonfinite.with_rollbacks(saver, train)
        best = keep.as_summary(saver.steps())
    held_out = held_out or lesson.evaluate(program.models(state))
    rows = metrics.read_metrics(workdir, lesson.stage)
    return state, {
        **held_out,
        trainer.USEFUL: batches.useful_share(),
        **({trainer.SHARED: share} if (share := batches.shared_share()) else {}),
        **batches.as_summary(),
        "skipped_updates": nonfinite.count(rows),
        **phases.added(rows),
        **program.counts,
        **made.as_summary(section.nonfinite),
        **best,
    }


def retained(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stage: str,
    last: int,
    early: int = 0,
) -> retention.Regular:
    """Return which checkpoints of a stage stay, by what its metrics say so far.

    Args:
      config: of the run.
      workdir: its folder.
      stage: its name.
      last: its last step.
      early: how many steps before its number a checkpoint is saved.
    """
    section, keep = config[stage], config.keep_checkpoints
    metric = section.get("keep_best", "")

    def rows() -> list[dict[str, Any]]:
        return metrics.read_metrics(workdir, stage) if metric else []

    best = retention.best_by(stage, metric, processes.by_writer(rows))
    if metric:
        told = "%s: beside the newest %d, the checkpoint of the best %s is kept"
        logging.info(told, stage, keep, metric)
    return retention.Regular(keep, section.checkpoint_every, last, best, early)


def _train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    lesson: Lesson,
    batches: packed_batches.Batches,
    program: trainer.Trainer,
    saver: checkpoint.Checkpointer,
    best: retention.Best,
    make_params: Callable[[], Mapping[str, Params]],
    made: nonfinite.Rollbacks | None,
) -> _Trained:
    """Train from the latest checkpoint to the end, or to where a rollback is asked."""
    section, total = config[lesson.stage], batches.total
    every = section.checkpoint_every
    state, start, meta = program.start_or_resume(saver, make_params)
    best.forget(start)
    made = nonfinite.Rollbacks.from_meta(meta) if made is None else made
    if start:
        logging.info("%s: goes on from update %d", lesson.stage, start)
    watch = nonfinite.Watch(
        section.nonfinite, folder, lesson.stage, every=every, rollbacks=made
    )
    held_out: dict[str, float] = {}
    with (
        metrics.MetricWriter(
            workdir, lesson.stage, resumed_step=start or None, names=config.trackers
        ) as writer,
        progress_bar.Progress(
            lesson.stage, total, unit="updates", done=start, every_seconds=0
        ) as bar,
    ):

        def evaluates(step: int) -> bool:
            return step % section.eval_every == 0 or step == total

        def note(
            step: int, shown: dict[str, float], state: train_state.TrainState
        ) -> None:
            """Write down what is known of a step, and how its model does."""
            nonlocal held_out
            if evaluates(step):
                with phases.phase("evaluate", whole=True):
                    held_out = lesson.evaluate(program.models(state))
                shown |= held_out
            for method, share in batches.shares(step - 1).items():
                shown[f"{lesson.stage}/share_{method}"] = share
            if step == 1:
                shown |= length_counts.as_metrics(lesson.stage, lesson.too_long)
            row = writer.write(step, shown | _speed(lesson, program, batches, step))
            best.note(step, row)
            bar.advance(1, headline.of(row))

        steps = Steps(
            config.seed,
            program,
            batches,
            watch,
            note,
            functools.partial(_save_before, program, saver, made),
        )
        phases.begin()
        for step in range(start + 1, total + 1):
            if profiling.PROCESS.turns(step):
                steps.land(state)
            profiling.PROCESS.at(step)
            if step in made:
                steps.land(state)
                note(step, dict(nonfinite.LEFT_OUT), state)
            else:
                state = steps.make(state, step)
            leaves = step < total and leaving.asked() and step + 1 not in made
            saves = step % every == 0 or step == total or leaves or made.ends(step)
            if saves or evaluates(step):
                steps.land(state)
            if saves:
                noted = {"stage": lesson.stage} | made.as_meta()
                program.save(saver, step, state, noted)
            if leaves:
                raise leaving.Left(
                    f"{lesson.stage} is saved at update {step} of {total}"
                )
    return state, held_out, made


def _speed(
    lesson: Lesson, program: trainer.Trainer, batches: packed_batches.Batches, step: int
) -> dict[str, float]:
    """Return what a step took, by phase, and how fast its update was."""
    taken, texts = phases.take(), batches.texts(step - 1)
    shared = batches.shared(step - 1)
    return taken | rates.of_updates(
        taken,
        ahead=sharding.works_ahead(program.mesh),
        tokens=sum(len(text.ids) for text in texts) - sum(shared),
        flops=rates.update_flops(
            lesson.cfg, texts, adapted=program.is_adapted, shared=shared
        ),
    )


def make_batches(
    config: ConfigDict, stage: str, rows: Sequence[Row], collate: packed_batches.Collate
) -> packed_batches.Batches:
    """Return all batches of a stage's training; see `num_updates` for what it refuses.

    Args:
      config: of the run.
      stage: its name.
      rows: the training rows.
      collate: how they become arrays.
    """
    section = config[stage]
    return packed_batches.Batches(
        rows,
        collate,
        seed=config.seed,
        batch_size=section.batch_size,
        total=num_updates(section, len(rows), stage),
        order=section.get("order", packed_batches.SHUFFLED),
        ramps=curriculum.read(section.get("curriculum", ())),
    )


class Steps:
    """Makes the steps of a supervised stage; each is told of once it is known.

    Args:
      seed: of the run, for a note of what is not finite.
      program: the compiled update.
      batches: of the training.
      watch: looks at the metrics.
      told: gets a step, what the watch leaves of its metrics, and the state after; by
        then later steps may be under way, but for those behind `land`.
      save_before: saves a state before a step, and returns where it is.
    """

    def __init__(
        self,
        seed: int,
        program: trainer.Trainer,
        batches: packed_batches.Batches,
        watch: nonfinite.Watch | nonfinite.Look,
        told: Callable[[int, dict[str, float], train_state.TrainState], None],
        save_before: Callable[[int, train_state.TrainState], int | None],
    ) -> None:
        self._seed, self._program, self._batches = seed, program, batches
        self._watch, self._told, self._save_before = watch, told, save_before
        self._updates = in_flight.Updates(program)
        self.land = self._updates.land

    def make(self, state: train_state.TrainState, step: int) -> train_state.TrainState:
        """Return the state after the batch of one step; that before is used up.

        Args:
          state: before.
          step: from 1.
        """
        with phases.phase(rates.UPDATE):
            batch = self._batches.arrays(step - 1)

        def look(said: dict[str, float], state: train_state.TrainState) -> None:
            shown = self._watch.finite(
                said,
                step,
                facts={
                    "seed": self._seed,
                    "rows": self._batches.numbers(step - 1),
                    "ids": _ids(self._batches.rows(step - 1)),
                },
                norms=functools.partial(self._program.norms, state, batch),
                save=functools.partial(self._save_before, step, state),
            )
            self._told(step, shown, state)

        return self._updates.make(
            state, batch, look, functools.partial(self._batches.prepare, step)
        )


def _ids(rows: Sequence[Row]) -> list[str]:
    """Return what the examples of a batch are known by; [] where they do not say it."""
    return [str(row.id) for row in rows if hasattr(row, "id")]


def _save_before(
    program: trainer.Trainer,
    saver: checkpoint.Checkpointer,
    made: nonfinite.Rollbacks,
    step: int,
    state: train_state.TrainState,
) -> int | None:
    """Save the state before a step of which nothing is in it; return where it is."""
    if step - 1 > (saver.latest_step() or 0):
        program.save(saver, step - 1, state, {"before": step} | made.as_meta())
    return saver.latest_step()


def fill(rows: Sequence[Row], size: int) -> tuple[list[Row], np.ndarray]:
    """Return `size` rows, the last repeated, and a mask [size] of the real ones."""
    missing = size - len(rows)
    return [*rows, *[rows[-1]] * missing], np.arange(size) < len(rows)


def wait(state: train_state.TrainState) -> None:
    """Return when the device has finished the last update."""
    jax.block_until_ready(state.updates)
