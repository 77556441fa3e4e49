"""A sheet that matplotlib draws on, and its SVG as a page takes it in.

Lengths are points, one a unit of the SVG, and places are counted from the bottom left.
Nothing is laid out by trial: axes stand where they are put. The SVG takes its colours
from the page, light or dark; one that stands alone has them in itself. matplotlib takes
long to import, so it is imported when the first plot is drawn, at the end of a run.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import re
import sys
import typing
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from xml.etree import ElementTree

import markupsafe
import numpy as np

from rlcd_jax.report import panels

if typing.TYPE_CHECKING:
    from matplotlib import axes as mpl_axes
    from matplotlib import axis, figure

Svg = markupsafe.Markup
# What an element says when it is pointed at, by its gid: one text, or one a marker.
Says = Mapping[str, str | Sequence[str]]

INK, SOFT, GRID, AXIS, PAPER = "#333a45", "#5a6372", "#e4e7ec", "#8a93a1", "#ffffff"
CLASSES = {colour: f"k{n}" for n, colour in enumerate(panels.COLOURS)}
CLASSES |= {INK: "ink", SOFT: "soft", GRID: "grid", AXIS: "axis", PAPER: "paper"}
TEXT, SMALL = 12, 11  # sizes of letters
BOLD = 1.15  # how much wider bold letters are
LARGEST = 1e300  # values beyond are drawn there: their differences are finite
SMALLEST = 1e-290  # difference that is drawn
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "text.parse_math": False,  # a "$" in a name is a "$"
    "font.size": SMALL,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": AXIS,
    "axes.linewidth": 1,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.formatter.useoffset": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.bottom": False,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": SMALL,
    "xtick.major.pad": 5,
    "ytick.left": False,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": SMALL,
    "ytick.major.pad": 5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.scale_dashes": False,
    "path.simplify_threshold": 0.4,
}
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
HREF = "{http://www.w3.org/1999/xlink}href"
DECIMAL = re.compile(r"-?\d+\.\d+")


@contextlib.contextmanager
def drawing(wide: float, tall: float) -> Iterator[figure.Figure]:
    """Yield an empty sheet of a width and a height to draw on."""
    from matplotlib import figure

    with _style():
        yield figure.Figure(figsize=(wide / 72, tall / 72), dpi=72)


@contextlib.contextmanager
def drawing_one(wide: float, tall: float) -> Iterator[mpl_axes.Axes]:
    """Yield empty axes on a sheet of their own, the same each time: no two at once.

    Axes and their ticks take matplotlib longer to make than a plot takes to be drawn.
    """
    with _style():
        axes = _blank()
        page = axes.figure
        page.set_size_inches(wide / 72, tall / 72)
        try:
            yield axes
        finally:
            drawn = (axes.lines, axes.patches, axes.collections, page.texts)
            for artist in [*itertools.chain(*drawn), *page.legends]:
                artist.remove()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Set how all plots look.

    Letters that matplotlib's font lacks are the page's font's to show: no warning.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


@functools.cache
def _blank() -> mpl_axes.Axes:
    from matplotlib import figure

    return figure.Figure(dpi=72).add_axes((0, 0, 1, 1))


def write(
    sheet: figure.Figure, x: float, y: float, text: str, *, room: float, **look: object
) -> None:
    """Write a text on one line, shortened to the room there is."""
    bold = look.get("weight") == "bold"
    text = short(text, room / (BOLD if bold else 1), look.get("fontsize", SMALL))
    sheet.text(x, y, text, transform=None, **look)


def known(values: Sequence[float]) -> np.ndarray:
    """Return values that can be drawn: what is not finite is a gap."""
    most = sys.float_info.max  # a whole number may be larger
    data = [v if -most <= v <= most else math.nan for v in values]
    return np.clip(np.array(data, np.float64), -LARGEST, LARGEST)


def finite(values: Sequence[float]) -> np.ndarray:
    """Return values that can be drawn, without what is not finite."""
    data = known(values)
    return data[~np.isnan(data)]


def limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return the range of what can be drawn, with a share of it more at each end."""
    data = finite(values)
    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 1.0)
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, SMALLEST):  # too near to tell apart
        room = 0.5 * largest if largest > 10 * SMALLEST else 0.5
        low, high = low - room, high + room
    room = margin * (high - low)
    return low - room, high + room


def set_ticks(along: axis.Axis, most: int, *, whole: bool = False) -> tuple[float, str]:
    """Set round ticks in the limits of an axis.

    Returns:
      The width of the widest text, and the power of ten that all are to be taken times,
      such as "1e−6"; mostly "".
    """
    from matplotlib import ticker

    found = ticker.MaxNLocator(
        most, steps=STEPS, integer=whole, min_n_ticks=1 if whole else 2
    )
    low, high = along.get_view_interval()
    places = [n for n in found.tick_values(low, high) if low <= n <= high]
    words = ticker.ScalarFormatter()
    words.set_axis(along)
    texts = words.format_ticks(places)
    power = words.get_offset()
    along.set_major_locator(ticker.FixedLocator(places))
    along.set_major_formatter(ticker.FixedFormatter(texts))
    return max((width(text, SMALL) for text in texts), default=0.0), power


def put(
    axes: mpl_axes.Axes, left: float, bottom: float, right: float, top: float
) -> None:
    """Put axes where they belong on their sheet."""
    wide, tall = axes.figure.bbox.size
    size = ((right - left) / wide, (top - bottom) / tall)
    axes.set_position((left / wide, bottom / tall, *size))


@functools.lru_cache(4096)
def width(text: str, size: float) -> float:
    """Return how wide a text of a size is in matplotlib's own font, a wide one."""
    from matplotlib import font_manager, textpath

    hundred = font_manager.FontProperties(size=100)
    measure = textpath.text_to_path.get_text_width_height_descent
    return measure(text, hundred, ismath=False)[0] * size / 100


def short(text: str, room: float, size: float = SMALL) -> str:
    """Return a text on one line that is no wider than the room."""
    text = NOT_XML.sub("\ufffd", " ".join(text.split()))[:200]
    if width(text, size) <= room:
        return text
    while len(text) > 1 and width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def svg(sheet: figure.Figure, label: str, says: Says) -> Svg:
    """Return what was drawn as an `svg` element that scales with its box.

    Args:
      sheet: what was drawn on.
      label: the whole in words, for those who hear the page.
      says: what elements say when they are pointed at.
    """
    from matplotlib.backends import backend_svg

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    backend_svg.FigureCanvasSVG(sheet).print_svg(file, metadata=nothing)
    text = file.getvalue()
    root = ElementTree.fromstring(text[text.index("<svg") :])
    wide, tall = sheet.bbox.size
    head = Svg(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" '
        'viewBox="0 0 {:g} {:g}" font-family="system-ui, sans-serif" '
        'font-size="{}" fill="none" stroke-linejoin="round">\n{}\n</svg>'
    )
    label = NOT_XML.sub("\ufffd", label)
    shapes = {f"#{n.get('id')}": n for n in root.findall(".//{*}defs/{*}path")}
    parts = Svg("\n").join(_parts(root, says, shapes))
    return head.format(label, wide, tall, SMALL, parts)


Shapes = Mapping[str, ElementTree.Element]  # by what refers to them


def _parts(node: ElementTree.Element, says: Says, shapes: Shapes) -> Iterator[Svg]:
    """Yield the elements below one that can be seen, without the groups around them."""
    said = says.get(node.get("id", ""), ())
    if isinstance(said, str):
        inside = Svg("").join(_seen(node.iter(), iter(()), shapes))
        yield Svg("<g><title>{}</title>{}</g>").format(said, inside)
    elif said:
        yield from _seen(node.iter(), iter(said), shapes)
    else:
        for child in node:
            yield from _seen([child], iter(()), shapes)
            if child.tag.endswith("}g"):
                yield from _parts(child, says, shapes)


def _seen(
    nodes: Iterable[ElementTree.Element], texts: Iterator[str], shapes: Shapes
) -> Iterator[Svg]:
    """Yield elements that can be seen; each marker says the next of the texts.

    Markers are circles here, the only round shapes; a band is one too, with corners.
    """
    for node in nodes:
        tag = node.tag.rpartition("}")[2]
        if tag == "use":
            places = shapes[node.get(HREF, "")].get("d", "")
            if "C" in places:
                more = {"r": f"{max(map(float, DECIMAL.findall(places))):.1f}"}
                yield _element(node, "circle", more, next(texts, ""))
            else:
                there = " ".join(_rounded(node.get(end, "0")) for end in "xy")
                more = {"d": _rounded(places), "transform": f"translate({there})"}
                yield _element(node, "path", more)
        elif tag == "path" and not node.get("id"):
            yield _element(node, "path", {"d": _rounded(node.get("d", ""))})
        elif tag == "text":
            yield _element(node, "text", {}, node.text or "")


def _rounded(places: str) -> str:
    """Return a path, or a number, to a tenth of a point."""
    text = DECIMAL.sub(lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), places)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", text).strip()


KEPT = (
    *("stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity"),
    *("font-weight", "font-size", "text-anchor"),
)
USUAL = {"font-size": f"{SMALL}px", "text-anchor": "start", "stroke-width": "1"}


def _element(
    node: ElementTree.Element, tag: str, more: dict[str, str], text: str = ""
) -> Svg:
    """Return one element in few words: colours by class, places to a tenth."""
    style = node.get("style", "").rstrip("; ").split("; ")
    given = dict(part.split(": ", 1) for part in style if part)
    ends = {"circle": {"x": "cx", "y": "cy"}, "path": {}}.get(tag, {"x": "x", "y": "y"})
    made = {ends[n]: _rounded(node.get(n)) for n in ends if node.get(n)} | more
    paints = {n: given[n] for n in ("fill", "stroke") if given.get(n, "none") != "none"}
    if tag == "circle":
        paints.pop("stroke", None)
    for name, colour in paints.items():
        role = CLASSES.get(colour, "")
        made |= {"class": role} if role else {}
        if role.startswith("k"):
            made |= {"color": colour, name: "currentColor"}
        else:
            made[name] = colour
    for name in KEPT:
        value = given.get(name, USUAL.get(name))
        idle = name.startswith("stroke") and "stroke" not in paints
        if value != USUAL.get(name) and not idle:
            made[name] = value
    words = Svg(" ").join(Svg('{}="{}"').format(*pair) for pair in made.items())
    if not text:
        return Svg("<{} {}/>").format(tag, words)
    inside = Svg("<title>{}</title>").format(text) if tag == "circle" else text
    return Svg("<{0} {1}>{2}</{0}>").format(tag, words, inside)
