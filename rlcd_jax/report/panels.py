"""What a plot shows: lines over steps, dots with intervals, values to be counted."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence

# On white; `style.html` has them for dark pages too.
COLOURS = ("#2563c9", "#c25a05", "#1a7d59", "#9a3fb5", "#7a6a00", "#b3264a")
STEP = "step"
DASHES = ("-", (0, (6, 4)), (0, (2, 3)), (0, (8, 3, 2, 3)))  # as matplotlib has them


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: values at steps; `run` and `held_out` choose how it looks.

    `low` and `high`, when given, bound a band around the values.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    run: str = ""
    held_out: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Dot:
    """One value with its interval; `run` chooses the colour."""

    label: str
    value: float
    low: float
    high: float
    run: str = ""


@dataclasses.dataclass(frozen=True)
class Counted:
    """Values of one kind, to be counted in a histogram."""

    label: str
    values: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot of a sheet: lines over steps, or dots with intervals.

    `across` names what lines go over; steps are whole numbers, other things may not be.
    """

    title: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dot] = ()
    unit: str = ""
    reference: float | None = None
    across: str = STEP


def colour_of(run: str) -> int:
    """Return which colour a run has on all plots and in all tables, from 0.

    Runs are labelled A, B, C; those that differ in the seed alone A1, A2, A3, and have
    one colour.
    """
    letter = string.ascii_uppercase.find(run[:1]) if run else 0
    return max(0, letter) % len(COLOURS)


def styles_of(lines: Sequence[Line]) -> list[tuple[int, object]]:
    """Return colour and dashes of each line.

    One run: a colour a line. Several runs: a colour a run, dashes for held-out values
    and for further metrics.
    """
    if not any(line.run for line in lines):
        return [(place % len(COLOURS), DASHES[0]) for place in range(len(lines))]
    counts: dict[str, int] = {}
    styles: list[tuple[int, object]] = []
    for line in lines:
        nth = counts[line.run] = counts.get(line.run, -1) + 1
        styles.append((colour_of(line.run), DASHES[nth % len(DASHES)]))
    return styles
