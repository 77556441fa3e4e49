"""Curves and interval plots as SVG text, to be put into a page.

matplotlib takes long to import, so it is imported when the first plot is drawn, which
is at the end of a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import re
import typing
import zlib
from collections.abc import Iterator, Sequence

import markupsafe
import numpy as np

if typing.TYPE_CHECKING:
    from matplotlib import figure, ticker

Svg = markupsafe.Markup

COLOURS = ("#2563c9", "#d4660a", "#1d8a63", "#9a3fb5", "#7a6a00", "#b3264a")
INK, FAINT, GRID = "#333a45", "#6b7482", "#e4e7ec"
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "rlcd_jax",  # the same plot is the same file
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.size": 9,
    "axes.edgecolor": "#b9c0ca",
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "path.simplify": True,
}
STEP = "step"
SMOOTH_FROM = 80  # points from which a running mean is drawn over the line


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
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float
    run: str = ""


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


def curve(title: str, lines: Sequence[Line], *, unit: str = "") -> Svg | None:
    """Return lines over steps as SVG; None without anything to draw.

    A line of many points is drawn faint, with its running mean over it.
    """
    if not lines:
        return None
    with _page((4.3, 2.55), STYLE) as page:
        axes = page.subplots()
        _draw_lines(axes, title, lines, unit, _styles(lines))
        if any(line.label for line in lines):
            _legend(axes, len(lines))
        return _svg(page, title)


def intervals(
    title: str, dots: Sequence[Dot], *, reference: float | None = None
) -> Svg | None:
    """Return dots with whiskers, one a row, as SVG; None without anything to draw.

    Args:
      title: name of what is plotted.
      dots: values with intervals, from top to bottom.
      reference: where to draw a dashed line, such as 50 of a win rate; None: nowhere.
    """
    if not dots:
        return None
    runs = list(dict.fromkeys(dot.run for dot in dots))
    colours = [COLOURS[runs.index(dot.run) % len(COLOURS)] for dot in dots]
    with _page((4.3, 0.7 + 0.25 * len(dots)), STYLE) as page:
        _draw_dots(page.subplots(), title, dots, colours, reference)
        return _svg(page, title)


def sheet(title: str, panels: Sequence[Panel]) -> Svg | None:
    """Return several plots as one SVG that also stands alone, three beside another.

    A label has one colour in all panels and stands once, below them.

    Args:
      title: of the whole.
      panels: from left to right; those without anything to draw are left out.

    Returns:
      The plots on white, for a page may be dark; None without anything to draw.
    """
    panels = [panel for panel in panels if panel.lines or panel.dots]
    if not panels:
        return None
    labels = dict.fromkeys(line.label for panel in panels for line in panel.lines)
    labels |= dict.fromkeys(dot.label for panel in panels for dot in panel.dots)
    colours = dict(zip(labels, itertools.cycle(COLOURS), strict=False))
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    size = (3.5 * across, 0.55 + 2.3 * down)
    with _page(size, STYLE | {"figure.facecolor": "white"}) as page:
        grid = page.subplots(down, across, squeeze=False).flat
        shown: dict[str, object] = {}
        for axes, panel in itertools.zip_longest(grid, panels):
            if panel is None:
                axes.set_axis_off()
            elif panel.lines:
                styles = [(colours[line.label], "-") for line in panel.lines]
                _draw_lines(axes, panel.title, panel.lines, panel.unit, styles)
                if panel.across != STEP:
                    axes.set_xlabel(panel.across, fontsize=8)
                    axes.xaxis.set_major_locator(_round_ticks(6))
                handles, names = axes.get_legend_handles_labels()
                shown |= dict(zip(names, handles, strict=True))
            else:
                own = [colours[dot.label] for dot in panel.dots]
                _draw_dots(axes, panel.title, panel.dots, own, panel.reference)
        page.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK, weight="bold")
        if shown:
            where = "outside lower center"
            page.legend(shown.values(), shown, loc=where, ncols=len(shown), fontsize=9)
        return _svg(page, title)


@contextlib.contextmanager
def _page(
    size: tuple[float, float], style: dict[str, object]
) -> Iterator[figure.Figure]:
    """Yield an empty page, of a width and a height in inches, to draw in a style."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(style):
        yield figure.Figure(figsize=size, layout="constrained")


def _round_ticks(most: int, **kwargs: bool) -> ticker.MaxNLocator:
    """Return what sets at most so many ticks, at round values."""
    from matplotlib import ticker

    return ticker.MaxNLocator(most, **kwargs)


def _draw_lines(
    axes: object,
    title: str,
    lines: Sequence[Line],
    unit: str,
    styles: Sequence[tuple[str, str]],
) -> None:
    """Draw lines of the given colours and dashes, without a legend."""
    _title(axes, title, unit)
    for line, (colour, dash) in zip(lines, styles, strict=True):
        _draw(axes, line, colour, dash, under=line.run < lines[-1].run)
    axes.set_xlabel(STEP, fontsize=8)
    axes.xaxis.set_major_locator(_round_ticks(6, integer=True))
    axes.yaxis.set_major_locator(_round_ticks(5))
    axes.margins(x=0.02, y=0.1)


def _draw_dots(
    axes: object,
    title: str,
    dots: Sequence[Dot],
    colours: Sequence[str],
    reference: float | None,
) -> None:
    """Draw dots with whiskers, one a row, in the given colours."""
    _title(axes, title, "")
    for place, (dot, colour) in enumerate(zip(dots, colours, strict=True)):
        axes.plot([dot.low, dot.high], [place] * 2, color=colour, lw=2, alpha=0.55)
        axes.plot([dot.value], [place], "o", color=colour, ms=5.5)
    if reference is not None:
        axes.axvline(reference, color=FAINT, lw=1, ls=(0, (3, 3)), zorder=0)
    names = [" · ".join(filter(None, (_short(d.label), d.run))) for d in dots]
    axes.set_yticks(range(len(dots)), names, color=INK)
    axes.set_ylim(len(dots) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    room = 6 if max(map(len, names)) < 26 else 4  # long names leave little of it
    axes.xaxis.set_major_locator(_round_ticks(room))
    axes.margins(x=0.06)


def _legend(axes: object, entries: int) -> None:
    """Put the legend above the lines, in room made for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low) * math.ceil(entries / 2))
    axes.legend(
        fontsize=8, handlelength=1.4, borderaxespad=0.1, ncols=2, loc="upper left"
    )


def _short(text: str, limit: int = 44) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _title(axes: object, title: str, unit: str) -> None:
    axes.set_title(_short(title), loc="left", fontsize=10, color=INK, weight="bold")
    if unit:
        axes.set_ylabel(_short(unit), fontsize=8)


def _styles(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return colour and dashes of each line.

    One run: a colour a line. Several runs: a colour a run, dashes for held-out values
    and for further metrics.
    """
    runs = list(dict.fromkeys(line.run for line in lines))
    if len(runs) == 1:
        colours = itertools.cycle(COLOURS)
        return [(next(colours), "-") for _ in lines]
    seen: dict[str, Iterator[str]] = {}
    styles = []
    for line in lines:
        dashes = seen.setdefault(line.run, itertools.cycle(("-", "--", ":", "-.")))
        colour = COLOURS[runs.index(line.run) % len(COLOURS)]
        styles.append((colour, next(dashes)))
    return styles


def _draw(axes: object, line: Line, colour: str, dash: str, under: bool) -> None:
    """Draw a line; one that others lie over is wider, so that it shows below them."""
    steps, values = np.asarray(line.steps), np.asarray(line.values, np.float64)
    look = {"color": colour, "ls": dash, "label": line.label or None}
    width = 2.6 if under else 1.7
    if line.low:
        axes.fill_between(steps, line.low, line.high, color=colour, alpha=0.14, lw=0)
    if len(values) < SMOOTH_FROM:
        few = len(values) <= 25
        axes.plot(steps, values, lw=width, marker="o" if few else "", ms=3.5, **look)
        return
    kernel = np.ones(max(3, len(values) // 12) | 1)
    near = np.convolve(np.ones_like(values), kernel, "same")
    mean = np.convolve(values, kernel, "same") / near
    axes.plot(steps, values, lw=0.7, alpha=0.3, color=colour)
    axes.plot(steps, mean, lw=width, **look)


def _svg(page: figure.Figure, title: str) -> Svg:
    """Return a figure as an `svg` element that scales with its box.

    Names inside it get a prefix of their own, for several plots share one page.
    """
    file = io.BytesIO()
    page.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue().decode()
    text = text[text.index("<svg") :]
    for part in ("metadata", "style"):  # the page has a style of its own
        text = re.sub(rf"<{part}\b.*?</{part}>", "", text, flags=re.DOTALL)
    prefix = f"p{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", text)
    label = markupsafe.escape(title)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Svg(text)
