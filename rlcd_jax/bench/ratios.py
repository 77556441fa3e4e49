"""What stands beside ours: seconds of each peer, and how often ours go in."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

OURS = "ours"


def of_peers(times: Mapping[str, Sequence[float]], what: str) -> dict[str, float]:
    """Return medians of each peer's seconds, and of its ratios to ours turn by turn.

    Args:
      times: seconds of each turn by name, `OURS` among them.
      what: was measured, as the names of the figures say it.
    """
    figures = {}
    for name, theirs in times.items():
        if name == OURS:
            continue
        figures[f"{name}_seconds_{what}"] = statistics.median(theirs)
        turns = zip(theirs, times[OURS], strict=True)
        figures[f"ratio_to_{name}"] = statistics.median(a / b for a, b in turns)
    return figures
