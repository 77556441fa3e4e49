"""Panels of a plot as places: lines over steps, dots with intervals, counts in bins.

Each function returns what `plot.svg` draws of one panel, in the plot's own units.
"""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Iterable, Sequence

import numpy as np

from rlcd_jax.report import axes

# On white; `style.html` has them for dark pages too.
COLOURS = ("#2563c9", "#c25a05", "#1a7d59", "#9a3fb5", "#7a6a00", "#b3264a")
STEP = "step"
DASHES = ("", "6 4", "2 3", "8 3 2 3")
WIDTH, HEIGHT = 430, 236  # of a plot, in its own units
TEXT, SMALL = 12, 11  # sizes of letters
LINE_HEIGHT = 16
SMOOTH_FROM = 80  # points from which a running mean is drawn over the line
DOTTED_TO = 25  # points up to which each has a dot
MOST_BINS = 24


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


def styles_of(lines: Sequence[Line]) -> list[tuple[int, str]]:
    """Return colour and dashes of each line.

    One run: a colour a line. Several runs: a colour a run, dashes for held-out values
    and for further metrics.
    """
    if not any(line.run for line in lines):
        return [(place % len(COLOURS), "") for place in range(len(lines))]
    counts: dict[str, int] = {}
    styles = []
    for line in lines:
        nth = counts[line.run] = counts.get(line.run, -1) + 1
        styles.append((colour_of(line.run), DASHES[nth % len(DASHES)]))
    return styles


def _frame(panel: Panel, tall: float, left: float, under: float) -> dict:
    """Return what all kinds of panel have: title, unit, and the ends of the axes."""
    return {
        "x": 0,
        "y": 0,
        "title": axes.short(panel.title, WIDTH - 8, TEXT + 1),
        "unit": axes.short(panel.unit, WIDTH - 8, SMALL),
        "height": tall,
        "left": left,
        "right": WIDTH - 14,
        "top": 26 + under + (LINE_HEIGHT if panel.unit else 0),
        "bottom": tall - 36,
        "legend": [],
        "under": "",
        "reference": None,
        "series": [],
        "dots": [],
    }


def of_lines(
    panel: Panel,
    tall: float,
    styles: Sequence[tuple[int, str]],
    *,
    named: bool = True,
    points: int = axes.MOST_POINTS,
) -> dict:
    """Return lines of the given colours and dashes as places."""
    told = [place for place, line in enumerate(panel.lines) if line.label and named]
    keys, rows = legend(
        [panel.lines[place].label for place in told],
        [styles[place][0] for place in told],
        WIDTH - 20,
        [styles[place][1] for place in told],
    )
    under = rows * LINE_HEIGHT if keys else 0
    drawn = _frame(panel, tall + under, 0, under)
    shown = [v for line in panel.lines for v in (*line.values, *line.low, *line.high)]
    up = axes.spanning(shown, drawn["bottom"], drawn["top"] + 4, margin=0.06)
    y_ticks = up.ticks(6)
    drawn["left"] = 10 + max(
        (axes.width(text, SMALL) for _, text in y_ticks), default=0
    )
    steps = [step for line in panel.lines for step in line.steps]
    along = axes.spanning(steps, drawn["left"], drawn["right"], margin=0.02)
    drawn |= {"legend": keys, "under": panel.across, "y_ticks": y_ticks}
    drawn["x_ticks"] = along.ticks(6, whole=panel.across == STEP)
    last = max((line.run for line in panel.lines), default="")
    drawn["series"] = [
        _series(line, *style, along, up, under=line.run < last, points=points)
        for line, style in zip(panel.lines, styles, strict=True)
    ]
    drawn["says"] = "; ".join(filter(None, map(_said, panel.lines)))
    return drawn


def _said(line: Line) -> str:
    """Return a line in words, for those who hear the page."""
    if not len(line.values):
        return ""
    label = f"{line.label} " if line.label else ""
    first = f"{line.values[0]:.3g} at step {line.steps[0]}"
    if len(line.values) == 1:
        return label + first
    return f"{label}{first}, {line.values[-1]:.3g} at step {line.steps[-1]}"


def _series(
    line: Line,
    colour: int,
    dash: str,
    along: axes.Axis,
    up: axes.Axis,
    *,
    under: bool,
    points: int,
) -> dict:
    """Return one line; one that others lie over is wider, so that it shows below."""
    steps = np.array([axes.bounded(step) for step in line.steps])
    values = np.asarray(line.values, np.float64)
    drawn = {"colour": colour, "dash": dash, "wide": 3.2 if under else 2}
    drawn |= {"band": "", "faint": "", "dots": []}
    if len(line.low):
        ends = zip([*steps, *steps[::-1]], [*line.high, *line.low[::-1]], strict=True)
        drawn["band"] = axes.path((along.at(x), up.at(y)) for x, y in ends) + "Z"
    if len(values) >= SMOOTH_FROM:
        drawn["faint"] = _path(*axes.thinned(steps, values, points), along, up)
        kernel = np.ones(max(3, len(values) // 12) | 1)
        known = np.isfinite(values)
        near = np.convolve(known.astype(float), kernel, "same")
        with np.errstate(over="ignore"):  # what is too large to add up is a gap
            total = np.convolve(np.where(known, values, 0.0), kernel, "same")
        values = np.where(near > 0, total / np.maximum(near, 1), np.nan)
    elif len(values) <= DOTTED_TO:
        drawn["dots"] = [
            (along.at(x), up.at(y), f"step {x}: {y:.4g}")
            for x, y in zip(line.steps, values, strict=True)
            if math.isfinite(y)
        ]
    drawn["path"] = _path(*axes.thinned(steps, values, points), along, up)
    return drawn


def _path(
    steps: Iterable[int], values: Iterable[float], along: axes.Axis, up: axes.Axis
) -> str:
    places = zip(steps, values, strict=True)
    return axes.path(
        (along.at(x), up.at(y) if math.isfinite(y) else math.nan) for x, y in places
    )


def of_dots(panel: Panel, tall: float, colours: Sequence[int]) -> dict:
    """Return dots with whiskers, one a row, in the given colours, as places."""
    names = [" · ".join(filter(None, (dot.label, dot.run))) for dot in panel.dots]
    room = min(0.45 * WIDTH, max(axes.width(name, TEXT) for name in names) + 4)
    tall = max(tall, 70 + 24 * len(panel.dots))
    drawn = _frame(panel, tall, room + 8, 0)
    ends = [end for dot in panel.dots for end in (dot.low, dot.value, dot.high)]
    ends += [] if panel.reference is None else [panel.reference]
    along = axes.spanning(ends, drawn["left"], drawn["right"], margin=0.06)
    gap = (drawn["bottom"] - drawn["top"]) / len(panel.dots)
    drawn["dots"] = [
        {
            "name": axes.short(name, room, TEXT),
            "y": round(drawn["top"] + (place + 0.5) * gap, 1),
            "colour": colour,
            **{end: along.at(getattr(dot, end)) for end in ("low", "value", "high")},
            "says": f"{name}: {dot.value:.4g} [{dot.low:.4g}, {dot.high:.4g}]",
        }
        for place, (name, dot, colour) in enumerate(
            zip(names, panel.dots, colours, strict=True)
        )
    ]
    if panel.reference is not None:
        drawn["reference"] = along.at(panel.reference)
    drawn |= {"y_ticks": [], "x_ticks": along.ticks(6)}
    drawn["says"] = "; ".join(dot["says"] for dot in drawn["dots"])
    return drawn


def of_bars(
    title: str, kinds: Sequence[Counted], unit: str, reference: float | None
) -> dict:
    """Return counts of values in bins that all kinds share, as places."""
    labels = [
        f"{kind.label}: median {np.median(kind.values):.3g}, n = {len(kind.values)}"
        for kind in kinds
    ]
    keys, rows = legend(labels, range(len(kinds)), WIDTH - 20)
    under = rows * LINE_HEIGHT
    drawn = _frame(Panel(title), HEIGHT + under, 0, under)
    together = np.concatenate([np.asarray(kind.values, np.float64) for kind in kinds])
    shown = [*together, reference] if reference is not None else together
    bins = min(MOST_BINS, max(4, math.ceil(2 * len(together) ** (1 / 3))))
    ends = axes.spanning(together, 0, 1)
    edges = np.linspace(ends.low, ends.high, bins + 1)
    counts = [
        np.histogram([axes.bounded(value) for value in kind.values], edges)[0]
        for kind in kinds
    ]
    highest = max(int(own.max()) for own in counts)
    up = axes.Axis(0, max(1, highest) * 1.06, drawn["bottom"], drawn["top"] + 4)
    y_ticks = up.ticks(4, whole=True)
    drawn["left"] = 10 + max(axes.width(text, SMALL) for _, text in y_ticks)
    along = axes.spanning([*edges, *shown], drawn["left"], drawn["right"], margin=0.02)
    for colour, own in enumerate(counts):
        places = [(edges[0], 0)]
        for count, low, high in zip(own, edges[:-1], edges[1:], strict=True):
            places += [(low, count), (high, count)]
        places.append((edges[-1], 0))
        outline = axes.path((along.at(x), up.at(y)) for x, y in places)
        drawn["series"].append(
            {"colour": colour, "dash": "", "wide": 1.6, "path": outline, "faint": ""}
            | {"band": outline + "Z", "dots": []}
        )
    if reference is not None:
        drawn["reference"] = along.at(reference)
    drawn |= {"legend": keys, "under": unit, "y_ticks": y_ticks}
    drawn |= {"x_ticks": along.ticks(6), "says": "; ".join(labels)}
    return drawn


def legend(
    labels: Sequence[str],
    colours: Iterable[int],
    room: float,
    dashes: Sequence[str] | None = None,
) -> tuple[list[dict], int]:
    """Return the keys of a legend, set in lines below each other, and how many."""
    texts = [axes.short(label, room - 30, SMALL) for label in labels]
    lines = axes.rows(texts, room, SMALL, 34)
    styles = list(zip(colours, dashes or [""] * len(texts), strict=True))
    keys = []
    for number, line in enumerate(lines):
        x = 0.0
        for place in line:
            colour, dash = styles[place]
            keys.append({"x": round(x, 1), "y": LINE_HEIGHT * number, "colour": colour}
                        | {"dash": dash, "text": texts[place]})  # fmt: skip
            x += axes.width(texts[place], SMALL) + 34
    return keys, len(lines) if texts else 0
