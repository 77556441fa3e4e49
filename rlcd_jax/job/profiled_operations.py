"""Where the time of the devices went in a trace: by program, and by operation."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import jax

MOST = 30  # operations that are shown
_NUMBER = re.compile(r"[.\d]+$")  # at the end of an operation's name: fusion.12
# Of an event: the operation and the program that it is of.
_OPERATION, _PROGRAM = "hlo_op", "hlo_module"


@dataclasses.dataclass(frozen=True)
class Event:
    """What a device, or a thread, did: from when to when, in nanoseconds."""

    program: str
    operation: str
    begun: float
    ended: float


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds and counts of each (program, operation), on all lines together."""

    seconds: Mapping[tuple[str, str], float]
    counts: Mapping[tuple[str, str], int]

    @property
    def whole(self) -> float:
        """All seconds together."""
        return sum(self.seconds.values())

    def programs(self) -> list[tuple[str, float]]:
        """Return programs and their seconds, the longest first."""
        sums: dict[str, float] = collections.defaultdict(float)
        for (program, _), seconds in self.seconds.items():
            sums[program] += seconds
        return sorted(sums.items(), key=lambda item: -item[1])

    def headline(self) -> str:
        """Return in a line which programs took the time."""
        if not self.seconds:
            return "the trace has no operation of a device"
        parts = [
            f"{program} {100.0 * seconds / self.whole:.0f} %"
            for program, seconds in self.programs()[:5]
        ]
        return f"{self.whole:.3f} s in operations: {', '.join(parts)}"

    def as_markdown(self) -> str:
        """Return the table of programs and that of the longest operations."""
        if not self.seconds:
            return self.headline() + "\n"
        lines = [
            "Seconds of operations in a trace, on all devices of a process (on CPUs: "
            "threads) together.",
            "An operation within another, as in a loop, takes its time from it.",
            "",
            "| program | seconds | % |",
            "|---|---|---|",
        ]
        for program, seconds in self.programs():
            share = 100.0 * seconds / self.whole
            lines.append(f"| {program} | {seconds:.4f} | {share:.1f} |")
        lines += [
            "",
            "| operation | of | times | seconds | % |",
            "|---|---|---|---|---|",
        ]
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        for (program, operation), seconds in ordered[:MOST]:
            count, share = self.counts[program, operation], 100.0 * seconds / self.whole
            lines.append(
                f"| {operation} | {program} | {count} | {seconds:.4f} | {share:.1f} |"
            )
        if others := ordered[MOST:]:
            rest = sum(seconds for _, seconds in others)
            share = 100.0 * rest / self.whole
            lines.append(f"| {len(others)} others | | | {rest:.4f} | {share:.1f} |")
        return "\n".join(lines) + "\n"


def table(folder: pathlib.Path) -> Spent:
    """Return what the newest trace below a folder says of its operations.

    Raises:
      FileNotFoundError: there is no trace.
    """
    found = sorted(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"{folder} holds no trace (*.xplane.pb)")
    data = jax.profiler.ProfileData.from_file(str(found[-1]))
    lines = (line for plane in data.planes for line in plane.lines)
    return add(_events(line.events) for line in lines)


def add(lines: Iterable[Iterable[Event]]) -> Spent:
    """Return the seconds of operations, without those of others within them.

    Args:
      lines: of events, each line those of one device's stream or of one thread.
    """
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    counts: dict[tuple[str, str], int] = collections.defaultdict(int)
    for line in lines:
        around: list[Event] = []
        for event in sorted(line, key=lambda one: (one.begun, -one.ended)):
            while around and around[-1].ended <= event.begun:
                around.pop()
            key = event.program, event.operation
            length = event.ended - event.begun
            seconds[key] += length / 1e9
            counts[key] += 1
            if around:
                seconds[around[-1].program, around[-1].operation] -= length / 1e9
            around.append(event)
    return Spent(dict(seconds), dict(counts))


def _events(given: Iterable[jax.profiler.ProfileEvent]) -> Iterator[Event]:
    """Yield the operations of programs among the events of a line."""
    for one in given:
        stats = dict(one.stats)
        if _OPERATION in stats:
            name = _NUMBER.sub("", str(stats[_OPERATION])) or str(stats[_OPERATION])
            program = (
                str(stats.get(_PROGRAM, "")).removeprefix("jit_").partition("(")[0]
            )
            yield Event(program, name, one.start_ns, one.start_ns + one.duration_ns)
