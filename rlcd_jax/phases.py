"""Where the time of a process goes: what a step is made of, each part by the clock.

Whoever does work names the phase that it is of; the loop of a stage takes what was
counted with each of its rows. A phase takes its time from the one that it lies in, and
so does what JAX traces and compiles, so that all of them add up to the step. They bear
their names in a trace of the profiler too. It is of the process and not of a job, as
`pulse.LAST` is; other threads than the one that began to count are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax.profiler

Result = TypeVar("Result")
PREFIX, UNIT = "time/", "_seconds"  # of the metrics: time/update_seconds
COMPILE, OTHER, STEP = "compile", "other", "step"


class Phases:
    """Counts the seconds of phases within each other.

    Args:
      clock: function that returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget what was counted; the step begins now, and in this thread."""
        self._sums: dict[str, float] = {}
        self._open: list[_Open] = []
        self._compiled: list[tuple[float, float]] = []  # begin and end, rising
        self._begun = self._clock()
        self._thread = threading.get_ident()

    @contextlib.contextmanager
    def phase(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """Count what is done within as a phase.

        Args:
          name: of the phase, one word.
          whole: phases within this one are part of it; but for compilations.
        """
        if threading.get_ident() != self._thread:
            yield
            return
        if self._open and self._open[-1].whole:
            name, whole = self._open[-1].name, True
        one = _Open(name, whole, self._clock())
        self._open.append(one)
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            self._close(one)

    def _close(self, one: _Open) -> None:
        if one not in self._open:  # `begin` was called within
            return
        while self._open.pop() is not one:
            pass
        seconds = self._clock() - one.begun
        self._add(one.name, seconds - one.within)
        if self._open:
            self._open[-1].within += seconds

    def compiled(self, seconds: float) -> None:
        """Count what has just been traced or compiled, and took so long.

        JAX tells of a trace within another first: the other then holds it.
        """
        if threading.get_ident() != self._thread:
            return
        now = self._clock()
        begun, inside = max(now - seconds, self._begun), 0.0
        while self._compiled and self._compiled[-1][0] >= begun:
            first, last = self._compiled.pop()
            inside += last - first
        self._compiled.append((begun, now))
        added = max(now - begun - inside, 0.0)
        self._add(COMPILE, added)
        if self._open:
            self._open[-1].within += added

    def _add(self, name: str, seconds: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + max(seconds, 0.0)

    def take(self) -> dict[str, float]:
        """Return the step's phases as metrics, and begin the next step.

        `time/NAME_seconds` of each phase that there was, `time/other_seconds` of what
        was none, and `time/step_seconds`, which is their sum.

        Raises:
          RuntimeError: a phase is under way.
        """
        if self._open:
            under_way = ", ".join(one.name for one in self._open)
            raise RuntimeError(f"a step ends within its phases {under_way}")
        taken = self.so_far()
        self.begin()
        return taken

    def so_far(self) -> dict[str, float]:
        """Return what `take` would, of the phases that are over; the step goes on."""
        sums, whole = self._sums, self._clock() - self._begun
        rest = max(whole - sum(sums.values()), 0.0)
        return {
            metric(name): value
            for name, value in {**sums, OTHER: rest, STEP: whole}.items()
        }


@dataclasses.dataclass(eq=False)
class _Open:
    """A phase under way: when it began, and what of it belongs to others."""

    name: str
    whole: bool
    begun: float
    within: float = 0.0


PROCESS = Phases()
phase, take, begin = PROCESS.phase, PROCESS.take, PROCESS.begin
so_far = PROCESS.so_far


def within(name: str, work: Callable[..., Result], *given: Any) -> Result:
    """Return what a function returns, all that it does being of one phase."""
    with phase(name, whole=True):
        return work(*given)


def metric(name: str) -> str:
    """Return the metric of a phase: `time/update_seconds`."""
    return f"{PREFIX}{name}{UNIT}"


def of(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of each phase among metrics, without the whole step's."""
    return {
        name[len(PREFIX) : -len(UNIT)]: value
        for name, value in metrics.items()
        if name.startswith(PREFIX) and name.endswith(UNIT) and name != metric(STEP)
    }


def added(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the times of all rows of metrics together, as metrics."""
    sums: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(PREFIX):
                sums[name] = sums.get(name, 0.0) + value
    return sums
