"""Giving memory that is free within a process back to the system.

The C library keeps what was freed for the next that asks, in parts too small for a
model's arrays: after a stage of PPO on a CPU 2.7 GB lay there with nothing in them.
"""

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable, Iterator

import jax

from rlcd_jax.job import logs

# Of glibc's mallopt, and what it is given: from how many places threads take memory (by
# itself eight a core); from which size on a piece is a mapping of its own, which goes
# when it is freed; how much may lie free at the end of a place before that goes too.
# Smaller pieces must stay. XLA's products on CPUs take one of some MB at each call, to
# lay out an operand; as a mapping that is cleared at its first use it makes the product
# of attention and values take four times as long.
_ARENA_MAX, _PLACES = -8, 2
_MMAP_THRESHOLD, _OWN_MAPPING = -3, 2**25  # the largest that glibc takes
_TRIM_THRESHOLD, _KEPT = -1, 2**27
_LARGE = 0.5  # seconds that a program takes to compile; looking takes a tenth


def keep_little() -> bool:
    """Let the C library keep little of what is freed; return whether it can.

    Of a process that begins: what its threads have taken stays where it is. `give_back`
    gives back what lies free between the parts of a step.
    """
    change = _of_library("mallopt")
    if change is None:
        return False
    asked = (
        (_ARENA_MAX, _PLACES),
        (_MMAP_THRESHOLD, _OWN_MAPPING),
        (_TRIM_THRESHOLD, _KEPT),
    )
    return all([change(name, value) for name, value in asked])


def give_back() -> bool:
    """Give back what is free; return whether the C library can (glibc's can).

    It takes a tenth of a second and less, so it is done between the parts of a step,
    not within loops over texts.
    """
    trim = _of_library("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


@contextlib.contextmanager
def compilations_given_back() -> Iterator[None]:
    """Give back what compiling a large program took, before it runs beside that.

    An update of PPO leaves 0.2 GB so, where both models and a gradient lie already.
    """

    def look(event: str, seconds: float, **_: object) -> None:
        if event == logs.COMPILED and seconds >= _LARGE:
            give_back()

    with logs.listening(look):
        yield


def forget_programs() -> None:
    """Let compiled programs go, of which a stage has up to 0.3 GB, and give that back.

    Between stages, which have hardly one in common: that is made anew, or read from
    the cache of compiled programs on disk.
    """
    jax.clear_caches()
    gc.collect()  # what was traced holds itself in cycles
    give_back()


@functools.cache
def _of_library(name: str) -> Callable[..., int] | None:
    """Return a function of the C library; None where it has none of this name."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return getattr(ctypes.CDLL(None), name)
    return None
