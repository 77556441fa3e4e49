"""Signals that ask a job to leave: the first lets it save, a later one ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from rlcd_jax import leaving

ASKING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
ONE_SIGNAL = 2.0  # seconds in which several signals are one


@contextlib.contextmanager
def heard(
    say: Callable[..., None], clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Let signals ask the run to leave while this lasts; for the main thread.

    Args:
      say: told once, as a format and its values, that the run is asked.
      clock: seconds.
    """
    handle = make_handler(say, clock)
    before = {number: signal.signal(number, handle) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_handler(
    say: Callable[..., None], clock: Callable[[], float]
) -> Callable[[int, Any], None]:
    """Return a handler: the first signal asks to leave, a later one ends at once.

    Launchers send one to a process and to its group: at the same time, they are one.
    """
    asked_at: list[float] = []

    def handle(number: int, frame: Any) -> None:
        del frame
        if not asked_at:
            asked_at.append(clock())
            leaving.ASKED.set()
            name = signal.Signals(number).name
            say("%s: leaving after this step; once more ends at once", name)
        elif clock() - asked_at[0] > ONE_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle
