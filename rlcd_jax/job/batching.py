"""Which rows make a batch, and how rows of many lengths fit programs of few shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import grain
import numpy as np

from rlcd_jax import processes, progress_bar, seeds

Ids = Sequence[int]


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


def pad_left(
    rows: Sequence[Ids], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens [B, T] int32 and mask [B, T] bool, each row at the right end.

    Raises:
      ValueError: a row is longer; it is not for padding to say what is cut.
    """
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for index, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(
                f"row {index} has {len(row)} tokens and the width is {length}; leave "
                "it out, shorten its text, or allow a longer width"
            )
        if len(row):
            tokens[index, -len(row) :] = row
            mask[index, -len(row) :] = True
    return tokens, mask


def fitting_length(longest: int, lengths: Sequence[int]) -> int:
    """Return the first of rising lengths that holds `longest`.

    Raises:
      ValueError: none does.
    """
    for length in lengths:
        if length >= longest:
            return length
    raise ValueError(
        f"a row has {longest} tokens and the widths are {tuple(lengths)}; leave it "
        "out, shorten its text, or allow a longer width"
    )


def lengths_up_to(longest: int, lengths: Sequence[int]) -> tuple[int, ...]:
    """Return rising lengths with further ones behind, until one holds `longest`.

    Each further one is half as long again, in steps of 16.
    """
    out = list(lengths)
    while out[-1] < longest:
        out.append(-(-(out[-1] * 3 // 2) // 16) * 16)
    return tuple(out)


def rising_lengths(longest: int, smallest: int = 64) -> tuple[int, ...]:
    """Return lengths 64, 96, 128, 192, … up to the first that holds `longest`.

    Each is a third or a half above the one before: few programs, and little padding.

    Args:
      longest: of the rows, in tokens.
      smallest: the first length, even.
    """
    lengths = [smallest]
    while lengths[-1] < longest:
        power = smallest << len(lengths) // 2
        lengths.append(power if len(lengths) % 2 == 0 else power * 3 // 2)
    return tuple(lengths)


def map_rows(
    program: Callable[..., np.ndarray],
    rows: Sequence[Ids],
    *extras: np.ndarray,
    rows_at: Callable[[int, int], int],
    lengths: Sequence[int],
    pad_id: int,
    what: str = "",
) -> np.ndarray:
    """Run a program over all rows, alike lengths together, and keep their order.

    Args:
      program: (tokens [B, T] int32, mask [B, T] bool, *extras [B, …]) -> [B, …],
        left-padded rows.
      rows: token ids, of the last length at most.
      *extras: arrays [len(rows), …] of numbers that go with the rows.
      rows_at: (T, rows that are left) -> B; the last batch is filled with copies of
        its last row.
      lengths: rising, the values that T may take: each is compiled once.
      pad_id: fills the rest.
      what: what is done, for a progress bar; "": none is shown.

    Returns:
      [len(rows), …], row i of the result for row i.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    pieces, start = [], 0
    with contextlib.ExitStack() as stack:
        bar = progress_bar.Progress(what, len(rows), unit="texts") if what else None
        if bar:
            stack.enter_context(bar)
        while start < len(order):
            chosen, length = _next_batch(rows, order[start:], rows_at, lengths)
            spare = rows_at(length, len(chosen)) - len(chosen)
            filled = chosen + chosen[-1:] * spare
            tokens, mask = pad_left([rows[i] for i in filled], length, pad_id)
            beside = [extra[np.array(filled)] for extra in extras]
            out = processes.fetch(program(tokens, mask, *beside))
            pieces.append(out[: len(chosen)])
            start += len(chosen)
            if bar:
                bar.advance(len(chosen))
    if not pieces:
        return np.zeros((0,), np.float32)
    result = np.concatenate(pieces)
    return result[np.argsort(order, kind="stable")]


def _next_batch(
    rows: Sequence[Ids],
    order: Sequence[int],
    rows_at: Callable[[int, int], int],
    lengths: Sequence[int],
) -> tuple[list[int], int]:
    """Return the first of `order` that go together, and their length.

    Rows rise in length, so a batch may need a length at which fewer are taken.
    """
    num = rows_at(fitting_length(len(rows[order[0]]), lengths), len(order))
    while True:
        chosen = list(order[:num])
        length = fitting_length(len(rows[chosen[-1]]), lengths)
        if len(chosen) <= rows_at(length, len(order)):
            return chosen, length
        num = rows_at(length, len(order))
