"""Several runs beside each other: their labels, what they answer, what differs.

Runs whose configs differ in the seed alone are one group: they have one letter and one
colour on the whole page, A1, A2, A3; any other run has a letter to itself.
"""

from __future__ import annotations

import json
import math
import statistics
import string
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax.report import answer, reading, sections
from rlcd_jax.statistics.estimates import Missing

SEED = "seed"
BESIDE = (SEED, "model.cache_dir")  # fields that make no other settings


def labelled(runs: Sequence[reading.Run]) -> dict[str, reading.Run]:
    """Return the runs by label, the groups in the order of their first run.

    Raises:
      ValueError: there are fewer than two runs, or more groups than letters.
    """
    groups: dict[str, list[reading.Run]] = {}
    for place, run in enumerate(runs):
        groups.setdefault(_settings(run) or str(place), []).append(run)
    letters = string.ascii_uppercase
    if len(runs) < 2 or len(groups) > len(letters):
        raise ValueError(
            f"{len(runs)} runs with {len(groups)} settings; accepted: two or more runs "
            f"with up to {len(letters)} settings on a page"
        )
    return {
        f"{letter}{nth}" if len(group) > 1 else letter: run
        for letter, group in zip(letters, groups.values(), strict=False)
        for nth, run in enumerate(group, start=1)
    }


def _settings(run: reading.Run) -> str:
    """Return what a run has in common with those of other seeds; "": not known."""
    if isinstance(run.config, Missing):
        return ""
    fields = sections.flatten(run.config)
    return json.dumps({k: v for k, v in sorted(fields.items()) if k not in BESIDE})


def headings(runs: Mapping[str, reading.Run]) -> list[dict[str, Any]]:
    """Return what stands over the page of each run: label, title, seed, folder."""
    return [
        {
            "label": label,
            "title": sections.title(run),
            "seed": _seed(run),
            "folder": str(run.folder),
        }
        for label, run in runs.items()
    ]


def _seed(run: reading.Run) -> str:
    known = {} if isinstance(run.config, Missing) else run.config
    return str(known.get(SEED, "unknown"))


def answers(runs: Mapping[str, reading.Run]) -> dict[str, Any]:
    """Return whether each run worked, and what the seeds of a group say together.

    Returns:
      A dict with `columns`, names of findings, `rows` of (label, what, cells) with the
      group of several seeds before its runs, and `lines`, (label, verdict in words).
    """
    said = {label: answer.answer(run) for label, run in runs.items()}
    columns = list(dict.fromkeys(f.what for one in said.values() for f in one.findings))
    rows = []
    for letter in dict.fromkeys(label[0] for label in said):
        own = {label: one for label, one in said.items() if label[0] == letter}
        if len(own) > 1:
            cells = [_together(own.values(), name) for name in columns]
            rows.append((letter, f"mean of {len(own)} runs", cells))
        for label, one in own.items():
            known = {finding.what: finding for finding in one.findings}
            cells = [known.get(name) for name in columns]
            rows.append((label, f"seed {_seed(runs[label])}", cells))
    lines = [
        (label, one.verdict, f"{one.line} {one.cost}".strip())
        for label, one in said.items()
    ]
    return {"columns": columns, "rows": rows, "lines": lines}


def _together(said: Sequence[answer.Answer], name: str) -> answer.Finding:
    """Return the mean of a finding over seeds, with its standard deviation."""
    values = [
        finding.value
        for one in said
        for finding in one.findings
        if finding.what == name and finding.value is not None
    ]
    if not values:
        return answer.Finding(name, "", "", "no run has it")
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    shown = f"± {spread:.2f}" if len(values) > 1 else ""
    note = f"standard deviation of {len(values)} runs" if shown else "of one run"
    return answer.Finding(name, f"{mean:z.2f}", shown, note, mean)
