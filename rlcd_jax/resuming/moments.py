"""When a run is stopped: by the clock, or just before it changes a certain file.

A run changes files by a few calls of the system, which Python tells to whom asks it
(its audit events). So every save, commit, deletion and mark can be hit exactly, and the
run that is tried has no line that knows of it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlcd_jax import trackers

CLOCK = "by the clock"
SAVING, COMMITTING, DELETING = "in a save", "before a commit", "in a deletion"
MARKING, METRICS, FILES = "before a mark", "at the metrics", "at another file"
KINDS = (CLOCK, SAVING, COMMITTING, DELETING, MARKING, METRICS, FILES)
RUN = "the run's own files"  # the part that is no stage's folder
# Audit events of the calls that change files; all hold a path first.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclasses.dataclass(frozen=True)
class Event:
    """A change of a file that is about to be made.

    Attributes:
      part: the stage's folder, or `RUN`.
      kind: one of `KINDS`.
      what: the call and the path, for people.
      seconds: since the part's first event.
    """

    part: str
    kind: str
    what: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a child process is stopped, and how.

    Attributes:
      part: whose events are counted.
      kind: of the events; `CLOCK`: seconds after the part's first event.
      number: of the event of that kind, from 1.
      seconds: for `CLOCK`.
      signal: that it sends to itself.
    """

    part: str
    kind: str
    number: int
    seconds: float
    signal: int


def draw(
    part: str, seen: Sequence[Event], signal: int, chance: random.Random
) -> Moment:
    """Return a moment of a part, of any kind, whatever number of events it has.

    Early ones are more likely: a run that goes on has fewer left, and meets them. A
    mark is met by every run that comes so far, so it is aimed at less often.

    Args:
      part: that is hit.
      seen: events of the part in a run that nobody stopped.
      signal: to send.
      chance: draws.
    """
    counts = {kind: sum(one.kind == kind for one in seen) for kind in KINDS}
    kinds = [CLOCK, *(kind for kind in KINDS if counts[kind])]
    weights = [1 if kind == MARKING else 3 for kind in kinds]
    (kind,) = chance.choices(kinds, weights)
    early = chance.random() ** 2
    seconds = early * max(one.seconds for one in seen)
    number = 0 if kind == CLOCK else 1 + int(early * counts[kind])
    return Moment(part, kind, number, seconds, signal)


class Watch:
    """Sees the changes of a process under a folder, and stops it at the first moment.

    Args:
      workdir: of the run.
      parts: names of folders in it that are parts of their own.
      moments: at most one of each part.
      tell: is given each event; and before the end, the one that was hit.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        parts: Sequence[str],
        moments: Sequence[Moment],
        tell: Callable[[Event, Moment | None], None],
    ) -> None:
        self._root = str(pathlib.Path(workdir).resolve())
        self._parts, self._tell = frozenset(parts), tell
        self._moments: Mapping[str, Moment] = {one.part: one for one in moments}
        self._begun: dict[str, float] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Begin to watch; there is no end, since a process cannot unhear."""
        sys.addaudithook(self._hear)

    def _hear(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "open":
            path, flags, place = args[0], args[2], -1
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif name in CHANGES:
            path = args[1] if name == "os.rename" else args[0]
            place = args[-1] if isinstance(args[-1], int) else -1
        else:
            return
        inside = self._inside(path, place)
        if inside is not None:
            with self._lock:
                self._see(name, inside)

    def _inside(self, path: Any, place: int) -> str | None:
        """Return a path relative to the workdir; None: it is elsewhere."""
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        path = os.fsdecode(path)
        if not os.path.isabs(path):
            base = os.readlink(f"/proc/self/fd/{place}") if place >= 0 else os.getcwd()
            path = os.path.join(base, path)
        if not path.startswith(self._root + os.sep):
            return None
        return path[len(self._root) + 1 :]

    def _see(self, call: str, path: str) -> None:
        part = path.partition(os.sep)[0]
        part = part if part in self._parts else RUN
        kind = _kind_of(call, path)
        now = time.monotonic()
        moment = self._moments.get(part)
        if part not in self._begun:
            self._begun[part] = now
            if moment and moment.kind == CLOCK:
                what = f"{moment.seconds:.2f} s after its first file"
                event = Event(part, CLOCK, what, moment.seconds)
                timer = threading.Timer(
                    moment.seconds, self._stop, args=(event, moment)
                )
                timer.daemon = True
                timer.start()
        number = self._counts[part, kind] = self._counts.get((part, kind), 0) + 1
        event = Event(part, kind, f"{call} {path}", now - self._begun[part])
        if moment and moment.kind == kind and moment.number == number:
            self._stop(event, moment)
        else:
            self._tell(event, None)

    def _stop(self, event: Event, moment: Moment) -> None:
        self._tell(event, moment)
        os.kill(os.getpid(), moment.signal)


def _kind_of(call: str, path: str) -> str:
    """Return what a change of a file belongs to."""
    parts = path.split(os.sep)
    if parts[-1].startswith("metrics.jsonl") or parts[0] in trackers.FILES:
        return METRICS
    if call in ("os.remove", "os.rmdir"):
        return DELETING
    if "checkpoints" in parts or "chosen" in parts:
        return COMMITTING if call == "os.rename" else SAVING
    return MARKING if parts[-1] == "DONE" else FILES
