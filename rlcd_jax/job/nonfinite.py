"""What a training does at the first loss, gradient or reward that is not finite.

The update itself keeps such numbers out of the parameters (`train_state.update`). Here
is what follows: a note of the step, and the rule of the config. The note says what the
batch held and how large parameters and gradients were by layer; the same command goes
on from the checkpoint before and comes to the same step, since batches and keys are
functions of seed and step.

"stop" ends the run, "skip" leaves the one update out. "rollback" takes it that what
was learned since the last checkpoint led there: the training goes back to it and leaves
out the batches of all steps from there to the one that failed, as PaLM did at spikes of
its loss (arXiv 2204.02311, section 5.1).
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from absl import logging

from rlcd_jax import checkpoint, jsonl, processes, record_files, schema
from rlcd_jax.training import train_state

STOP, SKIP, ROLLBACK = RULES = ("stop", "skip", "rollback")
MOST_ROLLBACKS = 3  # of a stage; whatever makes more of them is no bad batch
FOLDER = "nonfinite"  # in that of the stage: a note a step
SKIPPED = train_state.SKIPPED
ROLLED_BACK = "optimizer/rolled_back"  # metric: 1 where a rollback left the step out
LEFT_OUT = {SKIPPED: 1.0, ROLLED_BACK: 1.0}  # the metrics of such a step
META = "rollbacks"  # in a checkpoint's JSON: first and last step of each

Norms = Callable[[], Mapping[str, Any]]
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Rollbacks:
    """Which steps of a stage are left out, for it went back to before them.

    Attributes:
      spans: first and last step of each, in the order they were made.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Rollbacks:
        """Return those that a checkpoint has noted."""
        return cls(tuple((first, last) for first, last in meta.get(META, ())))

    def as_meta(self) -> dict[str, Any]:
        """Return them as a checkpoint keeps them."""
        return {META: [list(span) for span in self.spans]}

    def as_summary(self, rule: str) -> dict[str, Any]:
        """Return how many there were, and the steps left out; {} by another rule."""
        if rule != ROLLBACK:
            return {}
        steps = [n for first, last in self.spans for n in range(first, last + 1)]
        return {"rollbacks": len(self.spans), "left_out_steps": steps}

    def __contains__(self, step: int) -> bool:
        return any(first <= step <= last for first, last in self.spans)

    def ends(self, step: int) -> bool:
        """Say whether a step is the last of those that one of them left out.

        It is saved, regular or not: so a run that is killed then knows of it.
        """
        return any(step == last for _, last in self.spans)

    def one_more(self, step: int, every: int) -> Rollbacks:
        """Return these and that of a step which has failed.

        It goes back to the last regular checkpoint before, not to one that was saved
        because somebody asked the run to leave: the numbers are the same with both.
        Or to the end of the rollback before, where the parameters are as there.

        Args:
          step: that has failed.
          every: steps between regular checkpoints.
        """
        back = max((step - 1) // every * every, *(last for _, last in self.spans), 0)
        return Rollbacks((*self.spans, (back + 1, step)))


class RolledBack(Exception):
    """The training is to go on from a step before; no failure of the run.

    Attributes:
      rollbacks: all so far; the last is the one that is asked for.
    """

    def __init__(self, told: str, rollbacks: Rollbacks) -> None:
        super().__init__(told)
        self.rollbacks = rollbacks


def with_rollbacks(
    saver: checkpoint.Checkpointer, train: Callable[[Rollbacks | None], Result]
) -> Result:
    """Train to the end, from a checkpoint before as often as that is asked for.

    Args:
      saver: of the stage's checkpoints.
      train: trains from the latest of them. It gets the rollbacks that were made
        since the process began; None: those that the checkpoint has noted.
    """
    made: Rollbacks | None = None
    while True:
        try:
            return train(made)
        except RolledBack as asked:
            made = asked.rollbacks
        # Not above: what the error holds of the old state is let go by now.
        for step in saver.steps():
            if step >= made.spans[-1][0]:
                saver.remove(step)


class Watch:
    """Looks at the metrics of each update.

    Args:
      rule: one of `RULES`.
      folder: of the stage.
      stage: its name.
      every: steps between regular checkpoints.
      rollbacks: that were made.
    """

    def __init__(
        self,
        rule: str,
        folder: pathlib.Path,
        stage: str,
        *,
        every: int = 1,
        rollbacks: Rollbacks | None = None,
    ) -> None:
        self.rule, self.stage, self.every = rule, stage, every
        self.folder = pathlib.Path(folder) / FOLDER
        self.rollbacks = rollbacks or Rollbacks()

    def finite(
        self,
        shown: Mapping[str, float],
        step: int,
        *,
        facts: Mapping[str, Any],
        norms: Norms | None = None,
        save: Callable[[], int | None] = lambda: None,
    ) -> dict[str, float]:
        """Return metrics as they are, or what the rule leaves of them.

        Args:
          shown: of an update, or of a rollout.
          step: of the stage.
          facts: what a note says of the batch: ids, keys, place in the step.
          norms: returns norms by layer, for the note.
          save: called before the run stops; saves what can be saved, and returns the
            step from which the same command goes on, None where it begins anew.

        Raises:
          ValueError: something is not finite and the rule is to stop.
          RolledBack: it is not, and the rule is to go back.
        """
        if is_finite(shown):
            return dict(shown)
        again = replay_command(self.folder.parent.parent, self.stage, step)
        note = describe(self.stage, step, shown, facts, norms) | {"replay": again}
        path = self.folder / f"{step:06d}.json"
        bad = ", ".join(f"{k} = {v}" for k, v in list(note["not_finite"].items())[:4])
        what = f"{self.stage}, step {step}: not finite: {bad or 'the gradients'}"
        many = len(self.rollbacks.spans) >= MOST_ROLLBACKS
        if self.rule == STOP or (self.rule == ROLLBACK and many):
            resumes = save()
            _write(path, note | {"goes_on_from": resumes})
            raise ValueError(self._stops(what, path, resumes, again))
        if self.rule == SKIP:
            _write(path, note)
            told = "%s; the update is left out, see %s; again, alone: %s"
            logging.warning(told, what, path, again)
            return _left(shown)
        made = self.rollbacks.one_more(step, self.every)
        first, last = made.spans[-1]
        _write(path, note | {"goes_on_from": first - 1, "left_out": [first, last]})
        told = (
            f"{what}; back to step {first - 1}, and the batches of steps {first} to "
            f"{last} are left out: rollback {len(made.spans)} of {MOST_ROLLBACKS} at "
            f"most, see {path}; the step again, alone: {again}"
        )
        logging.warning("%s", told)
        raise RolledBack(told, made)

    def _stops(
        self, what: str, path: pathlib.Path, resumes: int | None, again: str
    ) -> str:
        from_step = f"goes on from step {resumes}" if resumes else "begins anew"
        where = f"{self.stage}.nonfinite"
        others = (
            f"set {where}='skip' to leave such updates out, or 'rollback' to go back "
            "to the checkpoint before and leave out what came since"
        )
        if self.rule == ROLLBACK:
            what += f", after {MOST_ROLLBACKS} rollbacks, the most that a stage makes"
            others = f"set {where}='skip' in a new workdir"
        return (
            f"{what}; nothing of it is in the parameters. {path} has the ids of the "
            f"batch, and norms by layer. The same command {from_step} and comes to "
            "this step again; lower the learning rate or look at these texts, or "
            f"{others}. This step again, alone: {again}"
        )


class Look:
    """Takes the place of a `Watch` where a step is made again: it looks, and lets go.

    Args:
      stage: its name.
      step: that is looked at; in those before it, updates that are not finite are left
        out, as they were in the run.
      minibatch: of the step, that is looked at; None: the first that is not finite,
        else the last.

    Attributes:
      found: as a note has it: the update that was looked at.
    """

    def __init__(self, stage: str, step: int, minibatch: int | None = None) -> None:
        self.stage, self.step, self.minibatch = stage, step, minibatch
        self.found: dict[str, Any] = {}

    def finite(
        self,
        shown: Mapping[str, float],
        step: int,
        *,
        facts: Mapping[str, Any],
        norms: Norms | None = None,
        save: Callable[[], int | None] = lambda: None,
    ) -> dict[str, float]:
        """Return what is finite of metrics, as a `Watch` of the rule "skip"."""
        del save
        number = facts.get("minibatch")
        asked = self.minibatch in (None, number)
        if step == self.step and asked and not is_bad(self.found):
            self.found = describe(self.stage, step, shown, facts, norms)
        return dict(shown) if is_finite(shown) else _left(shown)


def is_finite(shown: Mapping[str, float]) -> bool:
    """Say whether all metrics are finite, and no update was left out for gradients."""
    return all(map(math.isfinite, shown.values())) and not shown.get(SKIPPED, 0.0)


def is_bad(note: Mapping[str, Any]) -> bool:
    """Say whether a note is of an update that is not finite."""
    return bool(note and (note["not_finite"] or note["metrics"].get(SKIPPED)))


def describe(
    stage: str,
    step: int,
    shown: Mapping[str, float],
    facts: Mapping[str, Any],
    norms: Norms | None,
) -> dict[str, Any]:
    """Return what a note says of an update; see `Watch.finite`."""
    bad = {k: str(v) for k, v in shown.items() if not math.isfinite(v)}
    note = {"stage": stage, "step": step, "not_finite": bad, **facts}
    note |= {"metrics": {k: v for k, v in shown.items() if k not in bad}}
    return note if norms is None else note | {"norms": _told(norms())}


def read_note(path: pathlib.Path) -> dict[str, Any]:
    """Return a note that a `Watch` has written; {} where there is none.

    Raises:
      ValueError: the file is damaged; it is named, with the field that is wrong.
    """
    if not path.is_file():
        return {}
    note = jsonl.read_object(path)
    kinds: dict[str, tuple[Callable[[Any], bool], str]] = {
        "metrics": (lambda held: _are(held, _is_finite), "finite numbers by name"),
        "not_finite": (lambda held: _are(held, _is_endless), "nan or inf by name"),
        "minibatch": (lambda held: type(held) is int and held >= 0, "a number from 0"),
        "norms": (_are_norms, "numbers by layer, by kind"),
    }
    for name, (fits, accepted) in kinds.items():
        needed = name in ("metrics", "not_finite")
        if (needed or name in note) and not fits(note.get(name)):
            raise ValueError(
                f"{path} is no note of a step: its {name!r} is "
                f"{schema.shown(note.get(name))}; accepted: {accepted}. Restore the "
                "file, or delete it: the step is then made again without a comparison"
            )
    return note


def _are(held: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(held, dict) and all(map(fits, held.values()))


def _is_finite(value: Any) -> bool:
    return schema.is_number(value, float)


def _is_endless(value: Any) -> bool:
    return value in ("nan", "inf", "-inf")


def _are_norms(held: Any) -> bool:
    """Say whether a value is as `_told` writes norms."""

    def fits(values: Any) -> bool:
        is_list = isinstance(values, list)
        return is_list and all(_is_finite(one) or _is_endless(one) for one in values)

    return _are(held, lambda by_name: _are(by_name, fits))


def replay_command(workdir: pathlib.Path, stage: str, step: int) -> str:
    """Return the command that makes one step of a stage again, alone."""
    place = shlex.quote(str(workdir))
    return f"python -m experiments.replay --workdir {place} --step {stage}/{step}"


def count(rows: list[dict[str, Any]]) -> float:
    """Return how many updates the rows of a stage's metrics say were left out."""
    return float(sum(row.get(SKIPPED, 0.0) for row in rows))


def _left(shown: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an update that is left out."""
    return {k: v for k, v in shown.items() if math.isfinite(v)} | {SKIPPED: 1.0}


def _write(path: pathlib.Path, note: Mapping[str, Any]) -> None:
    processes.by_writer(lambda: record_files.write_json(path, dict(note)))


def _told(norms: Mapping[str, Any]) -> dict[str, Any]:
    """Return norms as JSON has them: no number for what is not finite."""
    return {
        kind: {
            name: [float(x) if math.isfinite(x) else str(x) for x in values]
            for name, values in own.items()
        }
        for kind, own in norms.items()
    }
