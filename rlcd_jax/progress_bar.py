"""Progress of long work: a bar on a terminal, a line now and then without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from absl import logging

from rlcd_jax import pulse
from rlcd_jax.screen import SCREEN, Screen


class Progress:
    """Shows how far a loop is: a bar on a terminal, else a log line now and then.

    Use as a context manager and call `advance` in the loop. Without a terminal a
    line with done, total, rate and time left is logged at most every
    `every_seconds`. At the end there is a line, but of a short loop within another:
    what it did is in the line of that one.

    Args:
      what: what is being done, such as `simulate`.
      total: how many units there are; None when unknown.
      unit: name of the unit, in the plural.
      done: units that were done before, when a loop goes on.
      every_seconds: least time between two log lines; 0: a line for every advance.
      screen: where the bar goes.
      clock: function that returns seconds.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        unit: str = "steps",
        done: int = 0,
        every_seconds: float = 30.0,
        screen: Screen = SCREEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._every_seconds, self._clock, self._screen = every_seconds, clock, screen
        self._from, self._line_of = done, -1  # done at the start, in the last line
        self._bar, self._note = -1, ""
        self._begun = self._told = self._clock()

    def __enter__(self) -> Progress:
        self._begun = self._told = self._clock()
        self._bar = self._screen.begin(self.what, self.total, self.unit, self.done)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add `count` finished units; `note` is shown beside them."""
        self.done += count
        self._note = note
        pulse.beat(f"{self.what}: {self.done} of {self.total or 'many'} {self.unit}")
        self._screen.show(self._bar, self.done, note, self._left())
        if self._screen.has_bars:
            return
        if self._clock() - self._told >= self._every_seconds:
            self._told = self._clock()
            self._log()

    def line(self, note: str = "") -> str:
        """Return the state of the loop as one line of text."""
        seconds = max(self._clock() - self._begun, 1e-9)
        rate = (self.done - self._from) / seconds
        text = f"{self.what}: {self.done}"
        if self.total is not None:
            share = 100.0 * self.done / max(self.total, 1)
            text += f"/{self.total} {self.unit} ({share:.1f} %)"
        else:
            text += f" {self.unit}"
        text += f", {rate:.3g} {self.unit}/s, {_clock_text(seconds)} gone"
        parts = (text, self._left(), note)
        return ", ".join(part for part in parts if part)

    def _left(self) -> str:
        """Return the time left in words; "" where it is not known, or over."""
        passed = self.done - self._from
        if self.total is None or passed <= 0 or self.done >= self.total:
            return ""
        seconds = (self._clock() - self._begun) / passed * (self.total - self.done)
        return f"{_clock_text(seconds)} left"

    def _log(self) -> None:
        self._line_of = self.done
        logging.info("%s", self.line(self._note))

    def __exit__(self, *_: Any) -> None:
        is_long = self._clock() - self._begun >= self._every_seconds
        self._screen.end(self._bar)
        if self._line_of != self.done and (is_long or not self._screen.depth):
            self._log()


def _clock_text(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    hours, rest = divmod(int(round(seconds)), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
