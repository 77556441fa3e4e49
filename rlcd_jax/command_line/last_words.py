"""What a run tells at its end: the table, and where the rest lies."""

from __future__ import annotations

import pathlib

from rlcd_jax import jsonl, trackers
from rlcd_jax.statistics import tables


def of(workdir: str) -> str:
    """Return the last words of a run, no line of them over 100 letters but for paths.

    Args:
      workdir: folder of the run, which may have left evaluation out, or have drawn a
        part of its pairs and no more.
    """
    path = pathlib.Path(workdir, "evaluate", "table.json")
    page = pathlib.Path(workdir, trackers.REPORT)
    shown = []
    if path.exists():
        shown.append(tables.narrow(tables.from_json(jsonl.read_object(path))))
    return "\n".join([*shown, f"Everything else: {page if page.exists() else workdir}"])
