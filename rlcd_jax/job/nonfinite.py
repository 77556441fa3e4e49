"""What a training does at the first loss, gradient or reward that is not finite.

The update itself keeps such numbers out of the parameters (`train_state.update`). Here
is what follows: a note of the step, and the rule of the config. The note says what the
batch held and how large parameters and gradients were by layer; the same command goes
on from the checkpoint before and comes to the same step, since batches and keys are
functions of seed and step.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from rlcd_jax import processes, record_files
from rlcd_jax.training import train_state

STOP, SKIP = RULES = ("stop", "skip")
FOLDER = "nonfinite"  # in that of the stage: a note a step
SKIPPED = train_state.SKIPPED

Norms = Callable[[], Mapping[str, Any]]


class Watch:
    """Looks at the metrics of each update.

    Args:
      rule: "stop" ends the run, "skip" leaves the update out and goes on.
      folder: of the stage.
      stage: its name.
    """

    def __init__(self, rule: str, folder: pathlib.Path, stage: str) -> None:
        self.rule, self.stage = rule, stage
        self.folder = pathlib.Path(folder) / FOLDER

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
        """
        bad = {k: str(v) for k, v in shown.items() if not math.isfinite(v)}
        if not bad and not shown.get(SKIPPED, 0.0):
            return dict(shown)
        note = {"stage": self.stage, "step": step, "not_finite": bad, **facts}
        note |= {"metrics": {k: v for k, v in shown.items() if k not in bad}}
        note |= {} if norms is None else {"norms": _told(norms())}
        resumes = save() if self.rule == STOP else None
        if self.rule == STOP:
            note["goes_on_from"] = resumes
        path = self.folder / f"{step:06d}.json"
        processes.by_writer(lambda: record_files.write_json(path, note))
        first = ", ".join(f"{k} = {v}" for k, v in list(bad.items())[:4])
        what = f"{self.stage}, step {step}: not finite: {first or 'the gradients'}"
        if self.rule == STOP:
            from_step = f"goes on from step {resumes}" if resumes else "begins anew"
            raise ValueError(
                f"{what}; nothing of it is in the parameters. {path} has the ids of "
                f"the batch, and norms by layer. The same command {from_step} and "
                "comes to this step again; lower the learning rate or look at these "
                f"texts, or set {self.stage}.nonfinite='skip' to leave such updates "
                "out"
            )
        logging.warning("%s; the update is left out, see %s", what, path)
        return {k: v for k, v in shown.items() if k not in bad} | {SKIPPED: 1.0}


def count(rows: list[dict[str, Any]]) -> float:
    """Return how many updates the rows of a stage's metrics say were left out."""
    return float(sum(row.get(SKIPPED, 0.0) for row in rows))


def _told(norms: Mapping[str, Any]) -> dict[str, Any]:
    """Return norms as JSON has them: no number for what is not finite."""
    return {
        kind: {
            name: [float(x) if math.isfinite(x) else str(x) for x in values]
            for name, values in own.items()
        }
        for kind, own in norms.items()
    }
