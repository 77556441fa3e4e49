"""Progress of long work: a bar on a terminal, a line now and then without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import rich.console
import rich.progress
from absl import logging

from rlcd_jax import pulse


class Progress:
    """Shows how far a loop is: a bar on a terminal, else a log line now and then.

    Use as a context manager and call `advance` in the loop. Without a terminal a
    line with done, total, rate and time left is logged at most every
    `every_seconds`, and one at the end.

    Args:
      what: what is being done, such as `simulate`.
      total: how many units there are; None when unknown.
      unit: name of the unit, in the plural.
      every_seconds: least time between two log lines.
      stream: where the bar goes; standard error by default.
      clock: function that returns seconds.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        unit: str = "steps",
        every_seconds: float = 30.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._every_seconds, self._clock = every_seconds, clock
        self._stream = sys.stderr if stream is None else stream
        self._bar: rich.progress.Progress | None = None
        self._begun = self._told = self._clock()

    def __enter__(self) -> Progress:
        self._begun = self._told = self._clock()
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._bar.start()
            self._bar.add_task(self.what, total=self.total, unit=self.unit, note="")
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units; `note` is shown after the figures."""
        self.done += count
        pulse.beat(f"{self.what}: {self.done} of {self.total or 'many'} {self.unit}")
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=count, note=note)
        elif self._clock() - self._told >= self._every_seconds:
            self._told = self._clock()
            logging.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """Return the state of the loop as one line of text."""
        seconds = max(self._clock() - self._begun, 1e-9)
        rate = self.done / seconds
        text = f"{self.what}: {self.done}"
        if self.total is not None:
            share = 100.0 * self.done / max(self.total, 1)
            text += f"/{self.total} {self.unit} ({share:.1f} %)"
        else:
            text += f" {self.unit}"
        text += f", {rate:.3g} {self.unit}/s, {_clock_text(seconds)} gone"
        if self.total is not None and 0 < self.done < self.total:
            text += f", {_clock_text((self.total - self.done) / rate)} left"
        return f"{text}, {note}" if note else text

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        logging.info("%s", self.line())


def _bar(stream: TextIO) -> rich.progress.Progress:
    """Return a bar with description, done/total, rate-based time left and a note."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[unit]}"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[note]}"),
        console=rich.console.Console(file=stream),
    )


def _clock_text(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    hours, rest = divmod(int(round(seconds)), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
