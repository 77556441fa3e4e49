"""What a run writes down of its steps while it runs.

One call of `MetricWriter.write` makes one line of `metrics.jsonl` and one point of
each curve of the trackers. The file can be read with any tool that reads
JSON lines, and holds each step of each stage once, also after a resume.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from absl import logging

from rlcd_jax import local_paths, metric_rows, processes, pulse, trackers

FILE_NAME, RESERVED = metric_rows.FILE_NAME, metric_rows.RESERVED
# Last parts of the names of what clocks say, in rows, summaries and marks. All else is
# the same in every run of a config, however often it was stopped.
CLOCKS = ("wall_time", "seconds", "tokens_per_second", "model_tflops")


class MetricWriter:
    """Writes the metrics of one stage under `workdir`.

    A row of `metrics.jsonl` is a flat object: `stage`, `step`, `wall_time`
    (seconds since 1970) and one field for each metric. On other processes than the
    first of a job, metrics are checked but nothing is written.

    Args:
      workdir: folder of the run; made when absent.
      stage: name of the stage, such as `policy`.
      resumed_step: step of the checkpoint that the stage goes on from; rows of this
        stage with a later step are removed, for they are about to be written again.
        None: the stage starts anew and all its rows are removed.
      names: of the trackers that show them too; see `trackers`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        stage: str,
        *,
        resumed_step: int | None = None,
        names: Sequence[str] = (trackers.TENSORBOARD,),
    ) -> None:
        if not stage or "/" in stage:
            raise ValueError(
                f"stage must be a plain name such as 'policy', got {stage!r}"
            )
        self.stage = stage
        self.path = local_paths.check(workdir, "workdir") / FILE_NAME
        self._last_step = resumed_step
        self._file: TextIO | None = None
        self._curves: trackers.Curves | None = None
        if not processes.is_writer():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _forget_later_rows(self.path, stage, resumed_step)
        self._file = open(self.path, "a", encoding="utf-8")
        self._curves = trackers.Curves(names, self.path.parent, stage, resumed_step)

    def write(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float | int]:
        """Write the metrics of one step.

        Args:
          step: number of the step; later than that of the call before.
          metrics: scalars by path, such as `policy/loss`; Python numbers, NumPy or
            JAX arrays with one element.

        Returns:
          The metrics as Python numbers.

        Raises:
          ValueError: a metric is not finite, is not a scalar or has a reserved name,
            or the step is not a later one. Nothing is written then.
        """
        step = int(step)
        if self._last_step is not None and step <= self._last_step:
            raise ValueError(
                f"stage {self.stage!r} wrote step {self._last_step} before, got step "
                f"{step}; steps must increase, so write all metrics of a step at once"
            )
        fetched = processes.fetch(dict(metrics))  # one transfer; sorts the names
        ordered = {name: fetched[name] for name in metrics}
        values = _as_numbers(ordered, self.stage, step)
        self._last_step = step
        pulse.beat(f"the metrics of {self.stage} {step}")
        if self._file is None or self._curves is None:
            return values
        now = time.time()
        row = {"stage": self.stage, "step": step, "wall_time": now, **values}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self._curves.write(step, values, now)
        return values

    def flush(self) -> None:
        """Bring all that was written to disk."""
        if self._file is not None and self._curves is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._curves.flush()

    def close(self) -> None:
        """Flush and close the files; a second call does nothing."""
        self.flush()
        if self._file is not None and self._curves is not None:
            self._file.close()
            self._curves.close()
        self._file = self._curves = None

    def __enter__(self) -> MetricWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def is_clock(name: str) -> bool:
    """Say whether a metric, or a field of a summary, is what a clock says."""
    last = name.rpartition("/")[2]
    return last in CLOCKS or last.endswith("_seconds")


def without_clocks(value: Any) -> Any:
    """Return what a file says, objects and lists in each other, without clocks."""
    if isinstance(value, list):
        return [without_clocks(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {k: without_clocks(v) for k, v in value.items() if not is_clock(k)}


def read_metrics(
    workdir: str | os.PathLike[str], stage: str | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `metrics.jsonl` in the order they were written.

    Args:
      workdir: folder of the run.
      stage: keep the rows of this stage only; None keeps all.

    Returns:
      One flat dict a row; empty when there is no file. A last line that was cut off
      by a crash is left out; a broken line elsewhere is a ValueError with its number.
    """
    path = pathlib.Path(workdir) / FILE_NAME
    rows = metric_rows.read(path) if path.exists() else []
    return [row for row in rows if stage is None or row["stage"] == stage]


def _as_numbers(
    metrics: Mapping[str, Any], stage: str, step: int
) -> dict[str, float | int]:
    """Return metrics as Python numbers; refuse what is no finite scalar."""
    values: dict[str, float | int] = {}
    for name, value in metrics.items():
        if name in RESERVED:
            raise ValueError(
                f"metric name {name!r} is reserved; use a path such as 'policy/{name}'"
            )
        array = np.asarray(value)
        if array.size != 1:
            raise ValueError(
                f"metric {name!r} at step {step} of stage {stage!r} has shape "
                f"{array.shape}; a metric is one number, reduce it first"
            )
        whole = array.dtype == np.bool_ or np.issubdtype(array.dtype, np.integer)
        values[name] = int(array.item()) if whole else float(array.item())
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        listed = ", ".join(f"{name} = {values[name]}" for name in broken)
        raise ValueError(
            f"metrics not finite at step {step} of stage {stage!r}: {listed}; the run "
            "stops here so that the last checkpoint is good. Lower the learning rate "
            "or look at the rows before this step in metrics.jsonl"
        )
    return values


def _forget_later_rows(path: pathlib.Path, stage: str, step: int | None) -> None:
    """Rewrite the file without this stage's rows after `step`, in one move."""
    if not path.exists():
        return
    rows = metric_rows.read(path)
    kept = [
        row
        for row in rows
        if row["stage"] != stage or (step is not None and row["step"] <= step)
    ]
    whole = path.read_bytes()
    if len(kept) == len(rows) and (not whole or whole.endswith(b"\n")):
        return
    if len(kept) < len(rows):
        logging.info("%s: %d rows of stage %s go", path, len(rows) - len(kept), stage)
    temporary = path.with_name(path.name + ".new")
    text = "".join(json.dumps(row) + "\n" for row in kept)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
