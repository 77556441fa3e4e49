"""Curves, intervals and histograms as SVG, to be put into a page or a file.

Numbers become places in `panels` and markup in `plot.svg`. A plot in a page takes its
colours from the page, light or dark; one that stands alone has them in itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import markupsafe

from rlcd_jax.report import axes, pages, panels

Svg = markupsafe.Markup


def curve(
    title: str,
    lines: Sequence[panels.Line],
    *,
    unit: str = "",
    points: int = axes.MOST_POINTS,
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
    drawn = panels.of_lines(
        panel, panels.HEIGHT, panels.styles_of(lines), points=points
    )
    return _svg(title, [drawn], panels.WIDTH, drawn["height"])


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
    drawn = panels.of_dots(
        panels.Panel(title, dots=dots, reference=reference), 0, colours
    )
    return _svg(title, [drawn], panels.WIDTH, drawn["height"])


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
    kinds = [
        panels.Counted(kind.label, [v for v in kind.values if axes.is_finite(v)])
        for kind in kinds
    ]
    kinds = [kind for kind in kinds if kind.values]
    if not kinds:
        return None
    drawn = panels.of_bars(title, kinds, unit, reference)
    return _svg(title, [drawn], panels.WIDTH, drawn["height"])


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
    colours = dict(
        zip(labels, itertools.cycle(range(len(panels.COLOURS))), strict=False)
    )
    across, gap, head = min(3, len(parts)), 20, 34
    drawn = []
    for part in parts:
        if part.lines:
            styles = [(colours[line.label], "") for line in part.lines]
            drawn.append(panels.of_lines(part, panels.HEIGHT, styles, named=False))
        else:
            own = [colours[dot.label] for dot in part.dots]
            drawn.append(panels.of_dots(part, panels.HEIGHT, own))
    tall = max(one["height"] for one in drawn) + gap
    for place, one in enumerate(drawn):
        one["x"] = gap + place % across * (panels.WIDTH + gap)
        one["y"] = head + place // across * tall
    wide = gap + across * (panels.WIDTH + gap)
    bottom = head + math.ceil(len(drawn) / across) * tall
    keys, lines = panels.legend(named, [colours[n] for n in named], wide - 2 * gap)
    legend = {"x": gap, "y": bottom, "keys": keys}
    return _svg(
        title, drawn, wide, bottom + lines * panels.LINE_HEIGHT + 6, legend, head
    )


def _svg(
    title: str,
    drawn: Sequence[dict],
    wide: float,
    tall: float,
    legend: dict | None = None,
    head: int = 0,
) -> Svg:
    """Return drawn panels as an `svg` element that scales with its box."""
    said = [one["says"] for one in drawn] if not legend else []
    return pages.render(
        "plot.svg",
        title=title,
        says=": ".join([title, *said]),
        panels=drawn,
        legend=legend,
        head=head,
        wide=wide,
        tall=tall,
        colours=panels.COLOURS,
    )
