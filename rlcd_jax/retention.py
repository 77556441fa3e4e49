"""Which checkpoints of a training stay on the disk: the newest, and the best one.

What stays is a function of the steps and of their metrics alone. So a run that was
killed, or asked to leave, has the same checkpoints in the end as one that was not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp

# By stage, the metrics that a checkpoint can be best by, and whether more is better.
# All are of data that no update sees; context distillation holds none out.
METRICS: dict[str, dict[str, bool]] = {
    "preference": {
        "preference/held_out_accuracy": True,
        "preference/held_out_loss": False,
    },
    "direct": {
        "direct/held_out_accuracy": True,
        "direct/held_out_loss": False,
    },
    "policy": {"dev/reward_mean": True},
}
SUMMARY = "best"  # in a stage's summary: metric, step and value


@dataclasses.dataclass(frozen=True)
class Best:
    """Which step is best by a metric, of those that are there.

    Attributes:
      metric: its name in `metrics.jsonl`; "": no step is.
      more: whether a larger value is better.
      values: of the steps in which it was looked at; `note` adds to them.
    """

    metric: str = ""
    more: bool = True
    values: dict[int, float] = dataclasses.field(default_factory=dict)

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of one step."""
        if self.metric in metrics:
            self.values[step] = float(metrics[self.metric])

    def forget(self, after: int) -> None:
        """Forget the steps after one, which are about to be made again."""
        for step in [step for step in self.values if step > after]:
            del self.values[step]

    def of(self, steps: Sequence[int]) -> int | None:
        """Return the best of these steps, of equal ones the earliest; None: of none."""
        known = [step for step in steps if step in self.values]
        sign = 1 if self.more else -1
        return max(known, key=lambda n: (sign * self.values[n], -n), default=None)


def best_by(stage: str, metric: str, rows: Sequence[Mapping[str, Any]]) -> Best:
    """Return what the rows of a stage's metrics say of its best step.

    Args:
      stage: its name.
      metric: of `METRICS`; "": none is kept.
      rows: of `metrics.jsonl`, of this stage.
    """
    if not metric:
        return Best()
    best = Best(metric, METRICS[stage][metric])
    for row in rows:
        best.note(row["step"], row)
    return best


@dataclasses.dataclass(frozen=True)
class Regular(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the latest regular steps, the best, and the very latest, regular or not.

    A step that was saved because somebody asked the run to leave takes no place of
    another: in the end the same steps are there, whenever that was.

    Attributes:
      keep: how many of the latest regular steps stay.
      every: regular steps are those that it divides.
      last: and this one.
      best: the best regular step stays too.
      early: regular steps are those that it divides when so many are added.
    """

    keep: int
    every: int
    last: int
    best: Best = dataclasses.field(default_factory=Best)
    early: int = 0

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        """Return which of the steps, in rising order, stay."""
        del context
        steps = [one.step for one in checkpoints]
        stay = self.of(steps)
        return [step in stay for step in steps]

    def of(self, steps: Sequence[int]) -> set[int]:
        """Return which of the steps, in rising order, stay."""
        regular = self._regular(steps)
        best = self.best.of(regular)
        newest = {*regular[-self.keep :], *steps[-1:]}
        return newest if best is None else {*newest, best}

    def as_summary(self, steps: Sequence[int]) -> dict[str, Any]:
        """Return which of the steps that are there is kept as the best; {}: none is."""
        step = self.best.of(self._regular(steps))
        if step is None:
            return {}
        found = {"metric": self.best.metric, "step": step}
        return {SUMMARY: found | {"value": self.best.values[step]}}

    def _regular(self, steps: Sequence[int]) -> list[int]:
        return [
            s for s in steps if (s + self.early) % self.every == 0 or s == self.last
        ]
