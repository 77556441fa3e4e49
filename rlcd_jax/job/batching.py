"""Which rows make a batch, and the few lengths that programs are made for."""

from __future__ import annotations

from collections.abc import Sequence

import grain

from rlcd_jax import seeds


def batch_indices(num: int, seed: int, batch_size: int, index: int) -> list[int]:
    """Return which of `num` rows batch `index` of an endless input takes.

    All rows come again and again, each epoch in a new order, and batches take them
    without gaps. Grain is read by index, so a batch depends on the arguments alone:
    the number of the step is all that a resumed run needs.
    """
    rows = grain.MapDataset.source(range(num)).seed(seed).shuffle().repeat()
    first = index * batch_size
    return [rows[place] for place in range(first, first + batch_size)]


def ranked_batches(
    ranks: Sequence[float], seed: int, batch_size: int, total: int
) -> list[list[int]]:
    """Return which rows each of `total` batches takes, the highest rank first.

    All rows come again and again, each epoch from the highest rank to the lowest; equal
    ones in an order keyed by (seed, epoch, row). Batches take them without gaps, and so
    do not know how many there will be.

    Args:
      ranks: of the rows.
      seed: root seed.
      batch_size: rows of a batch.
      total: batches.
    """
    num = len(ranks)
    order: list[int] = []
    for epoch in range(-(-total * batch_size // max(num, 1))):
        keys = [seeds.seed_words(seed, "order", epoch, row) for row in range(num)]
        order += sorted(range(num), key=lambda row: (-ranks[row], keys[row]))  # noqa: B023
    return [order[n * batch_size : (n + 1) * batch_size] for n in range(total)]


def lengths_up_to(longest: int, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return rising lengths with further ones behind, until one holds `longest`.

    Each further one is half as long again, in steps of 16.
    """
    out = list(lengths)
    while out[-1] < longest:
        out.append(-(-(out[-1] * 3 // 2) // 16) * 16)
    return tuple(out)


def rising_lengths(longest: int) -> tuple[int, ...]:
    """Return lengths 64, 96, 128, 192, … up to the first that holds `longest`.

    Each is a third or a half above the one before: few programs for texts of all sizes.

    Args:
      longest: of the texts, in tokens.
    """
    lengths = [64]
    while lengths[-1] < longest:
        power = 64 << len(lengths) // 2
        lengths.append(power if len(lengths) % 2 == 0 else power * 3 // 2)
    return tuple(lengths)
