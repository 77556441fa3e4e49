"""A part of the work of one simulation: number k of n, in no order and with no leader.

The split is static. What a part has to do follows from its number alone, so parts may
run at once or one after the other, on one host or on many, and know nothing of each
other.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, order=True)
class WorkPart:
    """Part `number` of `count`, from 1; written "3/8"."""

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise ValueError(
                f"part {self.number}/{self.count}; accepted: K/N with K from 1 to N, "
                "such as 3/8"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this part's items: every `count`-th one."""
        return items[self.number - 1 :: self.count]

    def within(self, index: int, count: int) -> WorkPart:
        """Return part `index`, from 0, of `count` of this part: a process's own."""
        return WorkPart(self.number + index * self.count, self.count * count)


WHOLE = WorkPart(1, 1)


def read(text: str) -> WorkPart:
    """Return the part that a text such as "3/8" names.

    Raises:
      ValueError: it names none.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not match:
        raise ValueError(
            f"part {text!r}; accepted: K/N, part K of N, with K from 1 to N, such as "
            "3/8"
        )
    return WorkPart(*map(int, match.groups()))
