"""Makes one step of a training again, alone, and compares it with the note of it.

A step is a function of the seed, its number and the state before. So a loss that was
not finite is so again, as often as one likes, and one can look at it: with the texts of
its batch, on one device, in another precision. Nothing of the run is written.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import checkpoint, stages
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.job import nonfinite, setup, supervised, trainer, workspace
from rlcd_jax.ppo import acting, choosing, learning, step_notes
from rlcd_jax.stages import train_policy
from rlcd_jax.training import train_state

POLICY = "policy"
TOLERANCE = 1e-4  # relative; another mesh or machine rounds otherwise
BATCH = ("seed", "rows", "ids", "prompts", "minibatch")  # what a note says of it
SHOWN = 5  # differences that a report names


@dataclasses.dataclass(frozen=True)
class Step:
    """A step that was made again.

    Attributes:
      start: the step of the checkpoint that it was made from; 0: the beginning.
      passed: steps between, that were made again first.
      now: what was seen, as a note has it.
      note: what the run has noted of it; {}: nothing.
      place: of the note.
    """

    start: int
    passed: tuple[int, ...]
    now: Mapping[str, Any]
    note: Mapping[str, Any]
    place: str

    @property
    def is_finite(self) -> bool:
        """Whether all of it is finite this time."""
        return not nonfinite.is_bad(self.now)

    @property
    def differences(self) -> list[str]:
        """Where it differs from the note, a line each; none without a note."""
        return [] if not self.note else [*_differences(self.note, self.now)]

    def report(self) -> str:
        """Return what came of it, for people."""
        name = f"{self.now['stage']}, step {self.now['step']}"
        since = f"the checkpoint of step {self.start}" if self.start else "the start"
        lines = [f"{name}: made again from {since}"]
        if self.passed:
            first, last = self.passed[0], self.passed[-1]
            lines[0] += f", through steps {first} to {last}"
        held = {k: self.now[k] for k in BATCH if k in self.now}
        lines += [f"  {name}: {value}" for name, value in held.items()]
        lines += [f"  {name} = {value:.6g}" for name, value in _numbers(self.now)]
        for kind, named in self.now.get("norms", {}).items():
            lines.append(f"  norms of {kind}, by layer:")
            for key, values in named.items():
                lines.append(f"    {key}: {' '.join(map(_short, values))}")
        bad = self.now["not_finite"]
        told = ", ".join(f"{name} = {value}" for name, value in bad.items())
        lines.append(
            f"{name} is finite"
            if self.is_finite
            else f"{name} is not finite: {told or 'the gradients'}"
        )
        return "\n".join([*lines, self._compared()])

    def _compared(self) -> str:
        if not self.note:
            return f"{self.place} is not there: the run noted nothing of this step"
        found = self.differences
        if not found:
            return f"as in {self.place}, within {TOLERANCE:g}"
        more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        lines = [f"  {line}" for line in found[:SHOWN]]
        return "\n".join([f"not as in {self.place}:", *lines, *more])


def replay_step(workdir: pathlib.Path, name: str) -> Step:
    """Make one update of a supervised stage, or one step of PPO, again.

    From the latest checkpoint before it that is still there with its moments; steps
    between are made again first, but for those that a rollback left out. A damaged
    checkpoint is told, and not set aside.

    Args:
      workdir: of the run.
      name: "STAGE/STEP".

    Raises:
      ValueError: there is no such step, or nothing from which it can be made.
    """
    stage, step = _stage_and_step(name)
    config, _ = run_diagnostics.read_config(workdir)
    folder = workspace.stage_folder(workdir, stage)
    path = folder / nonfinite.FOLDER / f"{step:06d}.json"
    note = nonfinite.read_note(path)
    start = _start(folder / choosing.CHECKPOINTS, stage, step)
    look = nonfinite.Look(stage, step, note.get("minibatch"))
    again = _improve if stage == POLICY else _update
    passed = again(config, workdir, stage, step, start, look)
    return Step(start, tuple(passed), look.found, note, str(path))


def _stage_and_step(name: str) -> tuple[str, int]:
    """Return the parts of "STAGE/STEP"."""
    trained = [one.name for one in stages.STAGES.values() if one.batch]
    stage, _, step = name.partition("/")
    if stage not in trained or not step.isdecimal() or not int(step[:9]):
        raise ValueError(
            f"step {name!r}; accepted: STAGE/STEP with a stage that trains "
            f"({', '.join(trained)}) and a step from 1, such as {trained[0]}/40"
        )
    return stage, int(step)


def _start(folder: pathlib.Path, stage: str, step: int) -> int:
    """Return the step of the checkpoint to start from; 0: there was none yet.

    Raises:
      ValueError: those before the step are gone, or have no moments any more.
    """
    steps = checkpoint.whole_steps(folder)
    whole = [n for n in steps if trainer.OPTIMIZER in checkpoint.item_names(folder, n)]
    before = [n for n in whole if n < step]
    if before:
        return before[-1]
    gone = [n for n in steps if n not in whole]
    if gone:
        raise ValueError(
            f"{folder}: {stage} is done and the optimizer's moments are deleted, so no "
            "step of it can be made again; more stays with --config.keep_moments"
        )
    return 0


def _left_out(workdir: pathlib.Path, stage: str, step: int) -> nonfinite.Rollbacks:
    """Return the rollbacks that a run had made when it came to a step.

    The latest checkpoint knows of all; that before a step may be from before them.
    """
    folder = workspace.stage_folder(workdir, stage) / choosing.CHECKPOINTS
    steps = checkpoint.whole_steps(folder)
    if not steps:
        return nonfinite.Rollbacks()
    _, meta = checkpoint.restore(folder, steps[-1], {})
    spans = nonfinite.Rollbacks.from_meta(meta).spans
    return nonfinite.Rollbacks(tuple(span for span in spans if span[1] < step))


def _between(
    workdir: pathlib.Path, stage: str, start: int, step: int, total: int
) -> list[int]:
    """Return the steps from a checkpoint to the one that is asked for, it included."""
    if step > total:
        raise ValueError(f"{stage} has {total} steps, and no step {step}")
    made = _left_out(workdir, stage, step)
    return [n for n in range(start + 1, step + 1) if n not in made]


def _update(
    config: ConfigDict,
    workdir: pathlib.Path,
    stage: str,
    step: int,
    start: int,
    look: nonfinite.Look,
) -> list[int]:
    """Make updates of a supervised stage; return those before the last."""
    job = setup.load_job(config, role=stages.STAGES[stage].roles[0])
    module = stages.STAGES[stage].load()
    rows = module.training_rows(config, workdir, job)
    batches = supervised.make_batches(config, stage, rows, module.collate(job))
    program = module.make_trainer(job, batches.total)
    state, _ = _state(program, workdir, stage, start, lambda: module.start_params(job))
    numbers = _between(workdir, stage, start, step, batches.total)
    steps = supervised.Steps(
        config.seed, program, batches, look, lambda *_: None, lambda *_: None
    )
    for number in numbers:
        state = steps.make(state, number)
    steps.land(state)
    return numbers[:-1]


def _improve(
    config: ConfigDict,
    workdir: pathlib.Path,
    stage: str,
    step: int,
    start: int,
    look: nonfinite.Look,
) -> list[int]:
    """Make steps of PPO; return those before the last."""
    job = setup.load_job(config)
    actor, learner = acting.Actor(job), learning.make_trainer(job)
    train_policy.set_frozen(actor, workdir)
    state, meta = _state(
        learner, workdir, stage, start, lambda: train_policy.start_params(job, workdir)
    )
    notes = step_notes.Notes.from_meta(meta, config.policy)
    numbers = _between(workdir, stage, start, step, learning.last_step(config.policy))
    for number in numbers:
        state, notes, _ = train_policy.improve(
            actor, learner, state, notes, number, look, lambda: None
        )
    return numbers[:-1]


def _state(
    program: trainer.Trainer, workdir: pathlib.Path, stage: str, start: int, make: Any
) -> tuple[train_state.TrainState, dict[str, Any]]:
    """Return the state of a step and its JSON; nothing is made in the folder."""
    if not start:
        return program.create(make()), {}
    folder = workspace.stage_folder(workdir, stage) / choosing.CHECKPOINTS
    return program.restore(folder, start)


def _numbers(note: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return all metrics of a note, finite or not."""
    bad = {name: float(value) for name, value in note["not_finite"].items()}
    return sorted({**note["metrics"], **bad}.items())


def _short(value: float | str) -> str:
    return f"{float(value):.4g}"


def _differences(note: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a step differs from a note, by the batch and by numbers."""
    for name in BATCH:
        if note.get(name) != now.get(name):
            yield f"{name}: was {note.get(name)}, now {now.get(name)}"
    before, after = _named(note), _named(now)
    for name in {**before, **after}:
        was, value = before.get(name), after.get(name)
        if was is None or value is None or not _close(was, value):
            yield f"{name}: was {was}, now {value}"


def _named(note: Mapping[str, Any]) -> dict[str, float]:
    """Return all numbers of a note by name."""
    norms = {
        f"norm of {kind}/{key}[{index}]": float(value)
        for kind, named in note.get("norms", {}).items()
        for key, values in named.items()
        for index, value in enumerate(values)
    }
    return {**dict(_numbers(note)), **norms}


def _close(was: float, now: float) -> bool:
    if math.isfinite(was) and math.isfinite(now):
        return math.isclose(was, now, rel_tol=TOLERANCE, abs_tol=1e-7)
    return str(was) == str(now)
