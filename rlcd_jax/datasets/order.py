"""Which items come when, and on which host; an order never depends on the hosts."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rlcd_jax import records

Item = TypeVar("Item")
Line = TypeVar("Line", records.Pair, records.Dropped)


def epoch_order(num: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the indices 0 to num - 1 in the order of one epoch.

    It depends on (seed, epoch, num) alone, on every platform and with every number of
    hosts. A host of several takes the places of each global batch that are its own.
    """
    keys = [records.seed_words(seed, "order", epoch, index) for index in range(num)]
    return tuple(sorted(range(num), key=keys.__getitem__))


def shard(items: Sequence[Item], process_index: int, process_count: int) -> list[Item]:
    """Return the items of a process: those whose index is its own modulo the count."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process {process_index} of {process_count}; accepted: 0 to count - 1"
        )
    return list(items[process_index::process_count])


def in_prompt_order(
    lines: Iterable[Line], dialogues: Sequence[records.Prompt]
) -> list[Line]:
    """Return the records of several processes in the order of the prompts."""
    place = {prompt.id: i for i, prompt in enumerate(dialogues)}
    return sorted(lines, key=lambda line: place[line.prompt_id])
