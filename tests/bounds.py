"""Bounds of memory and time on what a test runs, in its own process and without root.

Address space is bounded, so that what asks for terabytes gets none and says so; and the
most that was resident is read afterwards, whoever took it: Python, NumPy or a library
in Rust or C++. What hangs in Python is interrupted; what hangs in a library ends the
process, with the stacks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import pathlib
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

MB = 2**20
SPACE = 8192 * MB  # of addresses, above those of the process: threads reserve some
_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")


class TooMuch(AssertionError):
    """What ran took more memory or time than it may."""


def _megabytes(name: str) -> float:
    """Return a line of the kernel's about this process."""
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) / 1024


@contextlib.contextmanager
def bounded(*, megabytes: float, seconds: float) -> Iterator[None]:
    """Run what follows within so much memory more than there is, and so much time.

    Args:
      megabytes: that may be resident at once, beyond what is so before.
      seconds: of the clock.

    Raises:
      TooMuch: it took more.
    """

    def over(*_: Any) -> None:
        raise TooMuch(f"it has not ended after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, over)
    faulthandler.dump_traceback_later(4 * seconds, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _memory(megabytes) if _CLEAR.exists() else contextlib.nullcontext():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory(megabytes: float) -> Iterator[None]:
    """Run what follows within so much memory, where the kernel is Linux."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    space = int(_megabytes("VmSize:") * MB) + SPACE
    _CLEAR.write_text("5")  # the peak is from now on
    resident = _megabytes("VmRSS:")
    resource.setrlimit(resource.RLIMIT_AS, (space, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    taken = _megabytes("VmHWM:") - resident
    if taken > megabytes:
        raise TooMuch(f"it took {taken:.0f} MB; it may take {megabytes:g}")
