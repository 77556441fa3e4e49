"""What a run tells at its end: the table, and where the rest lies."""

from __future__ import annotations

import pathlib

from rlcd_jax import jsonl, trackers
from rlcd_jax.judging import regression_table
from rlcd_jax.statistics import tables

MOST, WIDE = 100, 90  # letters of a line; those in which three systems have room


def of(workdir: str, width: int = MOST) -> str:
    """Return the last words of a run, no line of them over the width but for paths.

    Args:
      workdir: folder of the run, which may have left evaluation out, or have drawn a
        part of its pairs and no more.
      width: letters that a line has room for; more than `MOST` are not used.
    """
    page = pathlib.Path(workdir, trackers.REPORT)
    shown, width = [], min(width, MOST)
    for stem in ("table", regression_table.STEM):
        path = pathlib.Path(workdir, "evaluate", f"{stem}.json")
        if path.exists():
            table = tables.from_json(jsonl.read_object(path))
            shown.append(tables.narrow(table, width, columns=3 if width >= WIDE else 2))
    return "\n".join([*shown, f"Everything else: {page if page.exists() else workdir}"])
