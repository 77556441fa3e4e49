"""Giving memory that is free within a process back to the system.

The C library keeps what was freed for the next that asks, in parts too small for a
model's arrays: after a stage of PPO on a CPU 2.7 GB lay there with nothing in them.
"""

import contextlib
import ctypes
import functools
from collections.abc import Callable


def give_back() -> bool:
    """Give back what is free; return whether the C library can (glibc's can).

    It takes a tenth of a second and less, so it is done between the parts of a step,
    not within loops over texts.
    """
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return ctypes.CDLL(None).malloc_trim
    return None
