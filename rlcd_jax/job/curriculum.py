"""Shares of a mixture that change over a training; each row is used as often as ever.

A method of the mixture has a weight at the beginning and one at the end, and between
them it is a straight line. How often its rows come at a time goes by that weight, so
with "rlaif=1:0" and "rlcd=0:1", and as many rows of both, the first batch is of RLAIF
alone, the last of RLCD alone, and the share of RLCD in between is the share of the
training that is over. Of unlike numbers of rows the shares go by weight times number.

The order is a function of (methods of the rows, ramps, seed, length), so what goes on
after a restart has the batches that it would have had.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from rlcd_jax import seeds

WEIGHT = r"(\d+(\.\d*)?|\.\d+)"
PARTS = 5  # of a training, for which a summary says the shares


@dataclasses.dataclass(frozen=True)
class Ramp:
    """The weight of a method's rows at the beginning and at the end of a training."""

    start: float
    end: float


STEADY = Ramp(1.0, 1.0)  # of methods that are not named


def read(entries: Sequence[str]) -> dict[str, Ramp]:
    """Return the ramps of entries such as "rlcd=0:1", by method.

    Raises:
      ValueError: a method is there twice, or both of its weights are zero.
    """
    ramps: dict[str, Ramp] = {}
    for entry in entries:
        name, _, weights = entry.partition("=")
        start, _, end = map(str.strip, weights.partition(":"))
        ramp = Ramp(float(start), float(end))
        if name in ramps or not ramp.start + ramp.end > 0:
            raise ValueError(
                f"a curriculum has {entry!r}; accepted: NAME=START:END, each name "
                "once, and one of the two weights above 0"
            )
        ramps[name] = ramp
    return ramps


def moment(share: float, ramp: Ramp) -> float:
    """Return the time by which a share of a method's rows has come; both in [0, 1].

    The weight a + (b - a) t has the integral a t + (b - a) t^2 / 2, and that of all is
    (a + b) / 2; this is the t at which the quotient is the share.
    """
    a, b = ramp.start, ramp.end
    root = math.sqrt(a * a + share * (b * b - a * a))
    return share * (a + b) / (a + root) if a + root else 0.0


def order(
    methods: Sequence[str], ramps: Mapping[str, Ramp], seed: int, slots: int
) -> list[int]:
    """Return which row is in each place of a training.

    The rows of a method come in an order of their own, anew in each pass, and all of a
    pass before any of the next; they lie at equal steps of its integral. Places at the
    end for which there is no whole batch are not among `slots`.

    Args:
      methods: of the rows.
      ramps: of the methods; of one that is not there, `STEADY`.
      seed: root seed.
      slots: places, all batches together.
    """
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(methods):
        groups.setdefault(name, []).append(row)
    passes = -(-slots // max(len(methods), 1))
    placed = []
    for name, rows in groups.items():
        ramp, coming = ramps.get(name, STEADY), []
        for number in range(passes):
            keys = {
                row: seeds.seed_words(seed, "curriculum", number, row) for row in rows
            }
            coming += [(keys[row], row) for row in sorted(rows, key=keys.get)]
        for place, (key, row) in enumerate(coming):
            share = (place + 0.5) / len(coming)
            placed.append((moment(share, ramp), key, row))
    return [row for _, _, row in sorted(placed)][:slots]


def shares(methods: Sequence[str]) -> dict[str, list[float]]:
    """Return the share of each method in each of `PARTS` parts of an order.

    Args:
      methods: of the rows, in the order of training.
    """
    names = sorted(set(methods))
    edges = [len(methods) * part // PARTS for part in range(PARTS + 1)]
    parts = [methods[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    return {
        name: [round(part.count(name) / len(part), 4) for part in map(list, parts)]
        for name in names
    }
