"""Leaving in good order: a run that is asked to go saves, and goes on later.

Who starts a run sets `ASKED` when a signal asks it to leave; the loops look at it where
leaving is cheap: between steps, behind what was saved. All processes of a job look at
the same place and follow the first of them, so that each saves the same step.
"""

from __future__ import annotations

import threading

from rlcd_jax import processes

# The one thing that is of the process and not of a job: signals come to it alone.
ASKED = threading.Event()


class Left(Exception):
    """The run has saved and ends before its end; the same command goes on."""


def asked() -> bool:
    """Say whether the run is to leave here; the same on all processes."""
    return processes.agreed("leaves", ASKED.is_set())


def leave_if_asked(where: str) -> None:
    """Raise `Left` if the run is to leave here.

    Args:
      where: what is done, in words, for the message.
    """
    if asked():
        raise Left(where)
