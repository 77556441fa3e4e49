"""Curves, intervals and histograms as SVG, to be put into a page or a file.

What is shown, in which colours and where; matplotlib draws it on a `canvas`.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Sequence

import numpy as np

from rlcd_jax.report import canvas, panels

if typing.TYPE_CHECKING:
    from matplotlib import axes as mpl_axes
    from matplotlib import figure

Svg = canvas.Svg
WIDTH, HEIGHT = 430, 236  # of a plot, in points
FOOT = 36  # below the axes, for the texts of ticks and what they are
LINE_HEIGHT = 16
HANDLE, APART = 25, 12  # of a legend: before a text, and after it
SMOOTH_FROM = 80  # points from which a running mean is drawn over the line
DOTTED_TO = 25  # points up to which each has a dot
MOST_POINTS = 360  # of a line
MOST_BINS = 24


def curve(
    title: str,
    lines: Sequence[panels.Line],
    *,
    unit: str = "",
    points: int = MOST_POINTS,
) -> Svg | None:
    """Return lines over steps as SVG; None without anything to draw.

    A line of many points is drawn faint, with its running mean over it.

    Args:
      title: name of what is plotted.
      lines: to draw.
      unit: of the values.
      points: of a line at most; each stretch of more keeps its lowest and highest.
    """
    if not lines:
        return None
    panel = panels.Panel(title, lines, unit=unit)
    named = [line.label for line in lines if line.label]
    under = _rows(named, WIDTH) * LINE_HEIGHT
    says: dict[str, str | Sequence[str]] = {}
    with canvas.drawing_one(WIDTH, HEIGHT + under) as axes:
        box = (0, HEIGHT + under, HEIGHT + under)
        styles = panels.styles_of(lines)
        _lines(axes, panel, box, styles, says, under=under, points=points)
        _legend(axes.figure, named, (0, box[1] - _head(panel), WIDTH))
        said = "; ".join(filter(None, map(_said, lines)))
        return canvas.svg(axes.figure, f"{title}: {said}", says)


def intervals(
    title: str, dots: Sequence[panels.Dot], *, reference: float | None = None
) -> Svg | None:
    """Return dots with whiskers, one a row, as SVG; None without anything to draw.

    Args:
      title: name of what is plotted.
      dots: values with intervals, from top to bottom.
      reference: where to draw a dashed line, such as 50 of a win rate; None: nowhere.
    """
    if not dots:
        return None
    colours = [panels.colour_of(dot.run) for dot in dots]
    panel = panels.Panel(title, dots=dots, reference=reference)
    tall = _tall(panel)
    says: dict[str, str | Sequence[str]] = {}
    with canvas.drawing_one(WIDTH, tall) as axes:
        _dots(axes, panel, (0, tall, tall), colours, says)
        return canvas.svg(axes.figure, f"{title}: {'; '.join(says.values())}", says)


def histogram(
    title: str,
    kinds: Sequence[panels.Counted],
    *,
    unit: str = "",
    reference: float | None = None,
) -> Svg | None:
    """Return how often values of each kind occur as SVG; None without any value.

    Args:
      title: name of what is plotted.
      kinds: a colour each; their bins are the same.
      unit: of the values.
      reference: where to draw a dashed line; None: nowhere.
    """
    finite = {kind.label: canvas.finite(kind.values) for kind in kinds}
    finite = {label: values for label, values in finite.items() if values.size}
    if not finite:
        return None
    labels = [
        f"{label}: median {np.median(values):.3g}, n = {len(values)}"
        for label, values in finite.items()
    ]
    under = _rows(labels, WIDTH) * LINE_HEIGHT
    tall = HEIGHT + under
    with canvas.drawing_one(WIDTH, tall) as axes:
        panel = panels.Panel(title, reference=reference, across=unit)
        _bars(axes, panel, (0, tall, tall), list(finite.values()), labels, under)
        _legend(axes.figure, labels, (0, tall - _head(panel), WIDTH))
        return canvas.svg(axes.figure, f"{title}: {'; '.join(labels)}", {})


def sheet(title: str, parts: Sequence[panels.Panel]) -> Svg | None:
    """Return several plots as one SVG that also stands alone, three beside another.

    A label has one colour in all panels and stands once, below them.

    Args:
      title: of the whole.
      parts: from left to right; those without anything to draw are left out.

    Returns:
      The plots on a ground of their own; None without anything to draw.
    """
    parts = [part for part in parts if part.lines or part.dots]
    if not parts:
        return None
    labels = dict.fromkeys(line.label for part in parts for line in part.lines)
    named = [label for label in labels if label]
    labels |= dict.fromkeys(dot.label for part in parts for dot in part.dots)
    shades = itertools.cycle(range(len(panels.COLOURS)))
    colours = dict(zip(labels, shades, strict=False))
    across, gap, head = min(3, len(parts)), 20, 34
    tall = max(_tall(part) for part in parts)
    wide = gap + across * (WIDTH + gap)
    foot = _rows(named, wide - gap) * LINE_HEIGHT + 6
    whole = head + math.ceil(len(parts) / across) * (tall + gap) + foot
    says: dict[str, str | Sequence[str]] = {}
    with canvas.drawing(wide, whole) as page:
        page.set_facecolor(canvas.PAPER)
        look = {"fontsize": 15, "weight": "bold"}
        canvas.write(page, gap, whole - 22, title, room=wide - 2 * gap, **look)
        for place, part in enumerate(parts):
            x = gap + place % across * (WIDTH + gap)
            box = (x, whole - head - place // across * (tall + gap), tall)
            axes = page.add_axes((0, 0, 1, 1), label=str(place))
            if part.lines:
                styles = [(colours[n.label], panels.DASHES[0]) for n in part.lines]
                _lines(axes, part, box, styles, says)
            else:
                _dots(axes, part, box, [colours[dot.label] for dot in part.dots], says)
        _legend(page, named, (gap, foot, wide - gap))
        return canvas.svg(page, title, says)


Box = tuple[float, float, float]  # left and upper end of a panel, and its height


def _head(panel: panels.Panel) -> float:
    """Return how tall the title of a panel is, with its unit."""
    return 26 + (LINE_HEIGHT if panel.unit else 0)


def _tall(panel: panels.Panel) -> float:
    """Return how tall a panel of a sheet, or of dots, is."""
    return max(HEIGHT if panel.lines else 0, 70 + 24 * len(panel.dots))


def _title(axes: mpl_axes.Axes, panel: panels.Panel, box: Box, power: str = "") -> None:
    """Write title and unit of a panel; values may be times a power of ten."""
    x, top, _ = box
    look = {"fontsize": canvas.TEXT + 1, "weight": "bold"}
    canvas.write(axes.figure, x + 2, top - 16, panel.title, room=WIDTH - 8, **look)
    unit = " · ".join(filter(None, (panel.unit, power and f"times {power}")))
    if unit:
        look = {"color": canvas.SOFT}
        canvas.write(axes.figure, x + 2, top - 32, unit, room=WIDTH - 8, **look)


def _under(axes: mpl_axes.Axes, box: Box, text: str, power: str) -> None:
    """Write what goes along a panel, below its ticks."""
    x, top, tall = box
    text = " · ".join(filter(None, (text, power and f"times {power}")))
    look = {"color": canvas.SOFT, "ha": "center"}
    middle = (axes.bbox.x0 + axes.bbox.x1) / 2
    canvas.write(axes.figure, middle, top - tall + 5, text, room=WIDTH - 80, **look)


def _lines(
    axes: mpl_axes.Axes,
    panel: panels.Panel,
    box: Box,
    styles: Sequence[tuple[int, object]],
    says: dict[str, str | Sequence[str]],
    *,
    under: float = 0,
    points: int = MOST_POINTS,
) -> None:
    """Draw lines of the given colours and dashes, with room under the title."""
    x, top, tall = box
    shown = [v for line in panel.lines for v in (*line.values, *line.low, *line.high)]
    axes.tick_params(axis="y", labelcolor=canvas.SOFT, labelsize=canvas.SMALL)
    axes.set_ylim(canvas.limits(shown, 0.06))
    steps = [step for line in panel.lines for step in line.steps]
    axes.set_xlim(canvas.limits(steps, 0.02))
    wide, power = canvas.set_ticks(axes.yaxis, 6)
    high = top - _head(panel) - under - (LINE_HEIGHT if power and not panel.unit else 0)
    canvas.put(axes, x + 10 + wide, top - tall + FOOT, x + WIDTH - 14, high - 4)
    _title(axes, panel, box, power)
    steps_only = panel.across == panels.STEP
    _, power = canvas.set_ticks(axes.xaxis, 6 if steps_only else 5, whole=steps_only)
    _under(axes, box, panel.across, power)
    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    last = max((line.run for line in panel.lines), default="")
    for line, (colour, dash) in zip(panel.lines, styles, strict=True):
        look = {"color": panels.COLOURS[colour], "ls": dash, "clip_on": False}
        look["lw"] = 3.2 if line.run < last else 2  # shows below those over it
        _series(axes, line, look, says, points)


def _series(
    axes: mpl_axes.Axes,
    line: panels.Line,
    look: dict,
    says: dict[str, str | Sequence[str]],
    points: int,
) -> None:
    """Draw one line."""
    steps, values = canvas.known(line.steps), canvas.known(line.values)
    look |= {"label": line.label or None}
    faint = {"color": look["color"], "clip_on": False}
    if len(line.low):
        ends = canvas.known(line.low), canvas.known(line.high)
        axes.fill_between(steps, *ends, alpha=0.16, lw=0, **faint)
    if len(values) >= SMOOTH_FROM:
        axes.plot(*_thinned(steps, values, points), lw=0.8, alpha=0.35, **faint)
        kernel = np.ones(max(3, len(values) // 12) | 1)
        there = ~np.isnan(values)
        near = np.convolve(there.astype(float), kernel, "same")
        with np.errstate(over="ignore"):  # what is too large to add up is a gap
            total = np.convolve(np.where(there, values, 0.0), kernel, "same")
        values = np.where(near > 0, total / np.maximum(near, 1), np.nan)
        values = canvas.known(values)
    elif len(values) <= DOTTED_TO:
        gid = f"says{len(says)}"
        says[gid] = [
            f"{panels.STEP} {x}: {y:.4g}"
            for x, y in zip(line.steps, values, strict=True)
            if math.isfinite(y)
        ]
        axes.plot(steps, values, "o", ms=5.2, mew=0, gid=gid, **faint)
    axes.plot(*_thinned(steps, values, points), **look)


def _said(line: panels.Line) -> str:
    """Return a line in words, for those who hear the page."""
    if not len(line.values):
        return ""
    label = f"{line.label} " if line.label else ""
    first = f"{line.values[0]:.3g} at step {line.steps[0]}"
    if len(line.values) == 1:
        return label + first
    return f"{label}{first}, {line.values[-1]:.3g} at step {line.steps[-1]}"


def _thinned(
    steps: np.ndarray, values: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return at most so many points: the lowest and highest of each stretch."""
    if len(values) <= most:
        return steps, values
    stretches = np.array_split(np.arange(len(values)), most // 2)
    low, high = np.nan_to_num(values, nan=np.inf), np.nan_to_num(values, nan=-np.inf)
    kept = {own[np.argmin(low[own])] for own in stretches}
    kept = sorted(kept | {own[np.argmax(high[own])] for own in stretches})
    return steps[kept], values[kept]


def _dots(
    axes: mpl_axes.Axes,
    panel: panels.Panel,
    box: Box,
    colours: Sequence[int],
    says: dict[str, str | Sequence[str]],
) -> None:
    """Draw dots with whiskers, one a row, in the given colours."""
    x, top, tall = box
    names = [" · ".join(filter(None, (dot.label, dot.run))) for dot in panel.dots]
    texts = [canvas.short(name, 0.45 * WIDTH, canvas.TEXT) for name in names]
    room = max(canvas.width(text, canvas.TEXT) for text in texts) + 4
    ends = [end for dot in panel.dots for end in (dot.low, dot.value, dot.high)]
    ends += [] if panel.reference is None else [panel.reference]
    axes.set_xlim(canvas.limits(ends, 0.06))
    axes.set_ylim(len(panel.dots) - 0.5, -0.5)
    high = top - _head(panel)
    canvas.put(axes, x + room + 8, top - tall + FOOT, x + WIDTH - 14, high)
    _title(axes, panel, box)
    _, power = canvas.set_ticks(axes.xaxis, 5)
    _under(axes, box, "", power)
    look = {"labelcolor": canvas.INK, "labelsize": canvas.TEXT}
    axes.set_yticks(range(len(names)), texts)
    axes.tick_params(axis="y", **look)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    _reference(axes, panel)
    for place, (dot, colour) in enumerate(zip(panel.dots, colours, strict=True)):
        gid, shade = f"says{len(says)}", panels.COLOURS[colour]
        says[gid] = f"{names[place]}: {dot.value:.4g} [{dot.low:.4g}, {dot.high:.4g}]"
        ends = canvas.known((dot.low, dot.value, dot.high))
        look = {"marker": "o", "markevery": [1], "ms": 9, "mew": 0, "mfc": shade}
        look |= {"color": (shade, 0.55), "lw": 2.5, "clip_on": False}
        axes.plot(ends, [place] * 3, gid=gid, **look)


def _bars(
    axes: mpl_axes.Axes,
    panel: panels.Panel,
    box: Box,
    kinds: Sequence[np.ndarray],
    labels: Sequence[str],
    under: float,
) -> None:
    """Draw counts of values in bins that all kinds share."""
    x, top, tall = box
    together = np.concatenate(kinds)
    bins = min(MOST_BINS, max(4, math.ceil(2 * len(together) ** (1 / 3))))
    edges = np.linspace(*canvas.limits(together, 0), bins + 1)
    counts = [np.histogram(own, edges)[0] for own in kinds]
    axes.tick_params(axis="y", labelcolor=canvas.SOFT, labelsize=canvas.SMALL)
    axes.set_ylim(0, max(1, *(int(own.max()) for own in counts)) * 1.06)
    ends = [] if panel.reference is None else [panel.reference]
    axes.set_xlim(canvas.limits([*edges, *ends], 0.02))
    wide, power = canvas.set_ticks(axes.yaxis, 5, whole=True)
    high = top - _head(panel) - under - (LINE_HEIGHT if power else 0)
    canvas.put(axes, x + 10 + wide, top - tall + FOOT, x + WIDTH - 14, high - 4)
    _title(axes, panel, box, power)
    _, power = canvas.set_ticks(axes.xaxis, 5)
    _under(axes, box, panel.across, power)
    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    for own, label, shade in zip(
        counts, labels, itertools.cycle(panels.COLOURS), strict=False
    ):
        look = {"ec": shade, "fc": (shade, 0.16), "lw": 1.6, "clip_on": False}
        axes.stairs(own, edges, fill=True, label=label, **look)
    _reference(axes, panel)


def _reference(axes: mpl_axes.Axes, panel: panels.Panel) -> None:
    if panel.reference is not None:
        look = {"color": canvas.AXIS, "lw": 1, "ls": (0, (4, 4)), "clip_on": False}
        axes.axvline(panel.reference, **look)


def _columns(labels: Sequence[str], wide: float) -> int:
    """Return how many labels of a legend stand beside another."""
    widest = max(canvas.width(label, canvas.SMALL) for label in labels)
    return max(1, int(wide // (widest + HANDLE + APART)))


def _rows(labels: Sequence[str], wide: float) -> int:
    """Return how many labels of a legend stand below another."""
    return math.ceil(len(labels) / _columns(labels, wide)) if labels else 0


def _legend(
    page: figure.Figure, labels: Sequence[str], place: tuple[float, float, float]
) -> None:
    """Show what the lines of all axes are called, in rows down from a place.

    Args:
      page: with the axes.
      labels: to be shown.
      place: left end, upper end and width.
    """
    if not labels:
        return
    x, top, wide = place
    wanted = [axes.get_legend_handles_labels() for axes in page.axes]
    by_label = {n: h for own in wanted for h, n in zip(*own, strict=True)}
    handles = [by_label[label] for label in labels]
    width, height = page.bbox.size
    page.legend(
        handles,
        [canvas.short(label, wide - HANDLE - APART) for label in labels],
        loc="upper left",
        bbox_to_anchor=(x / width, top / height),
        ncols=_columns(labels, wide),
        handlelength=20 / canvas.SMALL,
        handletextpad=5 / canvas.SMALL,
        columnspacing=APART / canvas.SMALL,
        borderpad=0,
        borderaxespad=2 / canvas.SMALL,
        labelspacing=0.35,
    )
