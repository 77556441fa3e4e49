"""How many texts were too long and what became of them, in the words of all stages."""

from __future__ import annotations

import re
from collections.abc import Mapping

SUMMARY = "too_long"  # field of a stage's summary
COUNTED = ("of", "dropped", "shortened", "identical")


def counts(
    of: int, *, dropped: int, shortened: int = 0, identical: int = 0
) -> Mapping[str, int]:
    """Return what became of texts that are too long, as every summary says it.

    A summary has it under `SUMMARY` for each kind of text, where nothing was too long
    as well: `{"too_long": {"prompts": {"of": 12, "dropped": 1, ...}}}`.

    Args:
      of: texts that there were.
      dropped: of them, left out.
      shortened: of them, that lost turns and were taken.
      identical: of them, left out because both replies are the same as they are read.
    """
    values = (of, dropped, shortened, identical)
    return dict(zip(COUNTED, values, strict=True))


def as_metrics(stage: str, kinds: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Return counts by kind of text as metrics: `preference/held_out_pairs_dropped`."""
    return {
        f"{stage}/{re.sub(r'[^a-z]+', '_', what)}_{name}": float(numbers[name])
        for what, numbers in kinds.items()
        for name in COUNTED
    }


def lost(numbers: Mapping[str, int]) -> Mapping[str, int]:
    """Return what of `counts` was not taken as it is, without what is 0."""
    return {name: num for name, num in numbers.items() if name != "of" and num}


def became(numbers: Mapping[str, int]) -> str:
    """Return `lost` in words: "3 dropped, 1 shortened"; "" where nothing was."""
    return ", ".join(f"{num} {name}" for name, num in lost(numbers).items())
