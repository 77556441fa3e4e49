"""How many replies were cut at `reply_tokens`, and what became of them, in all stages.

A reply that is still being written when there are so many tokens is cut: it has no
ending. What else ends a reply, or rejects it, is a rule of `reply_cleanup`. Texts that
are too long are counted elsewhere, in `length_counts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from absl import logging

SUMMARY = "cut_replies"  # field of a stage's summary
COUNTED = ("of", "cut", "rejected", "shortened")
LENGTH = "length"  # how a reply ends that is cut


def counts(
    of: int, *, cut: int, rejected: int = 0, shortened: int = 0
) -> Mapping[str, int]:
    """Return what became of replies, as every summary says it.

    A summary has it under `SUMMARY` for each kind of reply, where none was cut as well:
    `{"cut_replies": {"replies": {"of": 12, "cut": 3, ...}}}`.

    Args:
      of: replies that were drawn.
      cut: of them, at the most tokens of a reply.
      rejected: of those cut, not taken.
      shortened: of those cut, taken without the sentence that was not whole; all
        others are taken as they are.
    """
    return _by_name((of, cut, rejected, shortened))


def by_finish(finishes: Sequence[str]) -> Mapping[str, int]:
    """Return the counts of replies that are all taken as they are."""
    return counts(len(finishes), cut=sum(one == LENGTH for one in finishes))


def as_metrics(stage: str, numbers: Mapping[str, int]) -> dict[str, float]:
    """Return counts as the metrics of a stage: `simulate/replies_cut` and so on."""
    return {f"{stage}/replies_{name}": float(numbers[name]) for name in COUNTED}


def from_metrics(stage: str, row: Mapping[str, float]) -> Mapping[str, int]:
    """Return the counts of a row of metrics, or of sums of rows; 0 where none is."""
    names = as_metrics(stage, dict.fromkeys(COUNTED, 0))
    return _by_name(int(row.get(name, 0)) for name in names)


def added(many: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the counts of several draws together."""
    rows = [*many]
    return _by_name(sum(row[name] for row in rows) for name in COUNTED)


def _by_name(values: Iterable[int]) -> Mapping[str, int]:
    return dict(zip(COUNTED, values, strict=True))


def note(stage: str, kinds: Mapping[str, Mapping[str, int]]) -> None:
    """Say which replies of a stage were cut, if any was.

    Args:
      stage: that drew them.
      kinds: counts by kind of reply.
    """
    for what, numbers in kinds.items():
        if not numbers["cut"]:
            continue
        words = f"{numbers['cut']} of {numbers['of']} {what} were cut at reply_tokens"
        if numbers["rejected"]:
            words += f", {numbers['rejected']} of those rejected"
        if numbers["shortened"]:
            words += f", {numbers['shortened']} taken up to their last whole sentence"
        logging.info("%s: %s", stage, words)
