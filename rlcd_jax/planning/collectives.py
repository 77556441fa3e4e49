"""What a compiled program sends between devices, read from its optimised HLO text.

A loop's body counts as often as the compiler says that it runs; bytes are those that
one device sends, collectives taken as rings: (n-1)/n of an array to gather or scatter
it among n devices, twice that to sum it.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
ITEM_BITS = {"pred": 8, "bf16": 16, "tuple": 0, "token": 0}  # else the name's digits
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_RUN = re.compile(rf"= (?P<type>.+?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|branch_computations|called_computations)="
    r"(?:\{([^}]*)\}|%?([\w.\-]+))"
)
_TRIPS = re.compile(r'known_trip_count"?:? ?\{"?n"?:"?(\d+)')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
# Axes of a mesh, and those along which a group lies: mesh['a'=2,'b'=4] {'b'}.
_OF_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^{]*\))? *\{([^}]*)\}"
)
_AXIS = re.compile(r"'([^']+)'=(\d+)")
_ALONG = re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")  # 'b', or a part of it: 'b':(1)2


def count(text: str, num_devices: int) -> dict[str, tuple[int, int]]:
    """Return (runs, bytes that a device sends) of each kind in one run of a program.

    Args:
      text: of the optimised module.
      num_devices: of the program, for groups that are not listed.
    """
    bodies, entry = _computations(text)
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for name, times in _visits(bodies, entry):
        for line in bodies[name]:
            run = _RUN.search(line)
            if run:
                ways = _ways(line, num_devices)
                sent = _sent(run["kind"], _size(run), ways)
                counts[run["kind"]][0] += times
                counts[run["kind"]][1] += int(times * sent)
    return {kind: tuple(counts[kind]) for kind in KINDS if kind in counts}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Return the lines of each computation by its name, and the name of the first."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            name = opened[2]
            bodies[name] = []
            entry = name if opened[1] else entry
        elif name:
            bodies[name].append(line)
    return bodies, entry


def _visits(
    bodies: dict[str, list[str]], entry: str, times: int = 1
) -> Iterator[tuple[str, int]]:
    """Yield each computation that is run, and how often, from the first on."""
    if entry not in bodies:
        return
    yield entry, times
    for line in bodies[entry]:
        trips = _TRIPS.search(line)
        inside = times * int(trips[1]) if trips and " while(" in line else times
        for many, one in _CALLED.findall(line):
            for name in many.split(",") if many else [one]:
                yield from _visits(bodies, name.strip().lstrip("%"), inside)


def _size(run: re.Match) -> int:
    """Return the bytes of what a collective gives, on a device."""
    sizes = [_bytes(*array) for array in _ARRAY.findall(run["type"])]
    if run["start"] and run["kind"] == "collective-permute":  # (operand, result, …)
        sizes = sizes[1:2]
    elif run["start"] and run["kind"] != "all-reduce":  # (operands, results)
        sizes = sizes[len(sizes) // 2 :]
    return sum(sizes)


def _bytes(dtype: str, shape: str) -> int:
    digits = re.search(r"\d+", dtype)
    bits = ITEM_BITS.get(dtype, int(digits[0]) if digits else 0)
    size = bits // 8
    for part in filter(None, shape.split(",")):
        size *= int(part)
    return size


def _ways(line: str, num_devices: int) -> int:
    listed, counted = _LISTED.search(line), _COUNTED.search(line)
    if of_mesh := _OF_MESH.search(line):
        axes = dict(_AXIS.findall(of_mesh[1]))
        along = _ALONG.findall(of_mesh[2])
        return math.prod(int(part or axes[name]) for name, part in along)
    if listed:
        return len(listed[1].split(","))
    return int(counted[2]) if counted else num_devices


def _sent(kind: str, size: int, ways: int) -> float:
    """Return the bytes that a device sends for a result of `size` bytes on each."""
    if kind == "collective-permute":
        return size
    if kind == "reduce-scatter":
        return size * (ways - 1)
    return size * (ways - 1) / ways * (2 if kind == "all-reduce" else 1)
