"""The last sign that a process gets on: a reply, a step, a row, a save.

Who does work gives a sign; who watches over the process looks at it. It is of the
process and not of a job, as `leaving.ASKED` is.
"""

from __future__ import annotations

import dataclasses
import time


@dataclasses.dataclass
class Pulse:
    """When the last sign was given, by a clock that only goes forward, and of what."""

    at: float = dataclasses.field(default_factory=time.monotonic)
    what: str = "its start"


LAST = Pulse()


def beat(what: str) -> None:
    """Give a sign of what has just got on, in words."""
    LAST.what, LAST.at = what, time.monotonic()
