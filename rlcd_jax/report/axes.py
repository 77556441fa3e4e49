"""From values to places on a plot: ranges, round ticks, and paths.

Places are in the plot's own units, which a page scales; they are rounded to a tenth.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence

import numpy as np

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)  # between ticks, times a power of ten
MOST_POINTS = 360  # of a path
LARGEST = 1e300  # values beyond are drawn there: their differences are finite
SMALLEST = 1e-290  # difference that is drawn
LETTER = 0.56  # mean width of a letter, in its size


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of values on a stretch of the plot, from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = (bounded(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int, *, whole: bool = False) -> list[tuple[float, str]]:
        """Return places and texts of at most so many round values in the range."""
        return [
            (self.at(v), t) for v, t in round_values(self.low, self.high, most, whole)
        ]


def bounded(value: float) -> float:
    """Return a value that is within what can be drawn."""
    return float(min(max(value, -LARGEST), LARGEST))


def is_finite(value: float) -> bool:
    """Say whether a value is a number that a float holds; a whole one may be longer."""
    return -sys.float_info.max <= value <= sys.float_info.max


def spanning(
    values: Iterable[float], start: float, end: float, *, margin: float = 0.0
) -> Axis:
    """Return the axis of all finite values, with a margin at both ends.

    Args:
      values: to be shown; without a finite one the range is 0 to 1.
      start: place of the lowest value.
      end: place of the highest.
      margin: share of the range that is added at each end.
    """
    data = [bounded(value) for value in values if is_finite(value)]
    low, high = (min(data), max(data)) if data else (0.0, 1.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), SMALLEST):
        room = 0.5 * abs(low) if abs(low) > 10 * SMALLEST else 0.5
        low, high = low - room, high + room
    room = margin * (high - low)
    return Axis(low - room, high + room, start, end)


def round_values(
    low: float, high: float, most: int, whole: bool = False
) -> list[tuple[float, str]]:
    """Return at most `most` round values of a range, each with its text."""
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in STEPS if s * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(n * step, number(n * step, step)) for n in range(first, last + 1)]


def number(value: float, step: float) -> str:
    """Return a value with the digits that tell it from its neighbours."""
    if value and not 1e-3 <= step <= 1e5:
        return f"{value:.4g}"
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    places += not math.isclose(step * 10**places, round(step * 10**places))
    return f"{value if value else 0.0:.{places}f}"


def path(places: Iterable[tuple[float, float]]) -> str:
    """Return a path through places; one that is not finite is a gap."""
    parts, lift = [], True
    for x, y in places:
        if math.isnan(y):
            lift = True
            continue
        parts.append(f"{'M' if lift else 'L'}{x:g} {y:g}")
        lift = False
    return "".join(parts)


def thinned(
    steps: np.ndarray, values: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return at most so many points: the lowest and highest of each stretch."""
    if len(values) <= most:
        return steps, values
    stretches = np.array_split(np.arange(len(values)), most // 2)
    filled = np.nan_to_num(values, posinf=LARGEST, neginf=-LARGEST)
    kept = sorted(
        {
            int(own[pick(filled[own])])
            for own in stretches
            for pick in (np.argmin, np.argmax)
        }
    )
    return steps[kept], values[kept]


def width(text: str, size: float) -> float:
    """Return about how wide a text of a size is."""
    return LETTER * size * len(text)


def short(text: str, room: float, size: float) -> str:
    """Return a text on one line that is about as wide as the room at most."""
    text, limit = " ".join(text.split()), max(2, int(room / (LETTER * size)))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def rows(texts: Sequence[str], room: float, size: float, gap: float) -> list[list[int]]:
    """Return which texts stand on each line when they are set side by side."""
    lines: list[list[int]] = [[]]
    taken = 0.0
    for place, text in enumerate(texts):
        wide = width(text, size) + gap
        if lines[-1] and taken + wide > room:
            lines.append([])
            taken = 0.0
        lines[-1].append(place)
        taken += wide
    return lines
