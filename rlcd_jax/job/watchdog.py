"""Watches over a process from within: a heartbeat on disk, stacks when nothing moves.

A hang leaves no message by itself: a barrier that one host never reaches, a kernel that
does not return. So each process writes when it last moved and at what, where a person
can look from outside; and after a time without any move it writes the stacks of all its
threads to standard error, which show where it stands.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pathlib
import platform
import sys
import threading
import time
from collections.abc import Iterator

import jax
from absl import logging

from rlcd_jax import processes, pulse, record_files

FOLDER = "heartbeat"  # in the workdir
BEAT = 15.0  # seconds between two heartbeats
LOOK = 1.0  # seconds between two looks at whether anything moved


@contextlib.contextmanager
def watching(
    workdir: str | os.PathLike[str],
    stall_minutes: float,
    *,
    beat: float = BEAT,
    look: float = LOOK,
) -> Iterator[None]:
    """Watch over this process inside the context.

    Args:
      workdir: of the run; `heartbeat/PROCESS-HOST.json` in it says when this process
        last moved, and at what.
      stall_minutes: without a move after which stacks are written, and again after as
        many; 0: never.
      beat: seconds between two heartbeats.
      look: seconds between two looks at whether anything moved.
    """
    pulse.beat("its start")
    index = jax.process_index() if processes.are_many() else 0
    path = pathlib.Path(workdir) / FOLDER / f"{index}-{platform.node()}.json"
    over = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(path, 60 * stall_minutes, beat, look, over), daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
        faulthandler.cancel_dump_traceback_later()
        _write(path, "ended")


def _watch(
    path: pathlib.Path, stall: float, beat: float, look: float, over: threading.Event
) -> None:
    seen, written, told = -1.0, -beat, 0.0
    while not over.wait(look):
        now = time.monotonic()
        if pulse.LAST.at != seen:
            seen = told = pulse.LAST.at
            if stall:  # by a thread that needs no lock of Python's, which may be held
                faulthandler.dump_traceback_later(
                    stall, repeat=True, file=sys.__stderr__
                )
        elif stall and now - told > stall:
            told = now
            logging.error(
                "nothing has moved for %.1f minutes, since %s; the stacks of all "
                "threads show where this process stands. It is not ended: on a cluster "
                "end the job, and the same command goes on from what was saved",
                (now - seen) / 60,
                pulse.LAST.what,
            )
        if now - written > beat:
            written = now
            _write(path, "runs")


def _write(path: pathlib.Path, state: str) -> None:
    value = {
        "state": state,
        "host": platform.node(),
        "pid": os.getpid(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds_since_a_move": round(time.monotonic() - pulse.LAST.at, 1),
        "moved_at": pulse.LAST.what,
    }
    try:
        record_files.write_json(path, value)
    except OSError as error:  # a full disk ends the run where it writes results
        logging.warning("%s cannot be written: %s", path, error.strerror or error)
