"""Child processes in which a run works until it ends, leaves or is killed.

They are forked from a process that has imported the library and has touched no device,
so that each begins at once and with nothing of the one before.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlcd_jax import stages
from rlcd_jax.job import joining
from rlcd_jax.resuming import moments

# A run as its command does it, of (config as a dict, workdir); a function by its name,
# since it goes to another process.
Run = Callable[[Mapping[str, Any], str], None]
PRELOADED = (
    "rlcd_jax.pipeline",
    "rlcd_jax.resuming.children",
    *(f"rlcd_jax.stages.{stage.module}" for stage in stages.STAGES.values()),
)
FAILED = 1
LINES = 15  # of a log that a message shows
HIT = "hit"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child process ended.

    Attributes:
      status: 0, an exit status, or minus the number of a signal.
      events: changes of files, in order.
      hits: what it was stopped at; asked to leave at one, it may be killed at another.
      log: the end of what it said.
    """

    status: int
    events: tuple[moments.Event, ...]
    hits: tuple[moments.Event, ...]
    log: str

    @property
    def goes_on(self) -> bool:
        """Whether it was stopped as it should be: the same command goes on."""
        asked = self.status in (-signal.SIGKILL, joining.AGAIN)
        # A signal before the run hears any ends it at once, as it ends any process.
        return bool(self.hits) and (asked or self.status == -signal.SIGTERM)


class Nursery:
    """Starts children, one after the other, all from one prepared process.

    Args:
      run: what each does.
      parts: folders of a workdir that are parts of their own.
      logs: folder of what they say; made when absent.
    """

    def __init__(self, run: Run, parts: Sequence[str], logs: pathlib.Path) -> None:
        self._run, self._parts, self._logs = run, tuple(parts), logs
        self._count = 0
        logs.mkdir(parents=True, exist_ok=True)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOADED, run.__module__])

    def run(
        self,
        config: Mapping[str, Any],
        workdir: str | os.PathLike[str],
        stops: Sequence[moments.Moment] = (),
    ) -> Ended:
        """Let a child run until it ends or a moment comes."""
        self._count += 1
        log = self._logs / f"{self._count:04d}.log"
        events = self._logs / f"{self._count:04d}.jsonl"
        child = self._context.Process(
            target=_work,
            args=(self._run, config, str(workdir), self._parts, stops, log, events),
        )
        child.start()
        child.join()
        seen, hits = _read_events(events)
        said = log.read_text(errors="replace").splitlines() if log.exists() else []
        return Ended(child.exitcode, seen, hits, "\n".join(said[-LINES:]))


def _work(
    run: Run,
    config: Mapping[str, Any],
    workdir: str,
    parts: Sequence[str],
    stops: Sequence[moments.Moment],
    log: pathlib.Path,
    events: pathlib.Path,
) -> None:
    """Run in this process, whose words go to a file, and note what it changes."""
    said = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(said, stream)
    noted = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(event: moments.Event, moment: moments.Moment | None) -> None:
        row = {**dataclasses.asdict(event), HIT: moment is not None}
        os.write(noted, json.dumps(row).encode() + b"\n")

    moments.Watch(workdir, parts, stops, tell).start()
    run(config, workdir)


def _read_events(
    path: pathlib.Path,
) -> tuple[tuple[moments.Event, ...], tuple[moments.Event, ...]]:
    seen, hits = [], []
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        was_hit = row.pop(HIT)
        seen.append(moments.Event(**row))
        hits += seen[-1:] if was_hit else []
    return tuple(seen), tuple(hits)
