"""Texts side by side in rows, read without padding, and what is read off each text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlcd_jax import processes, progress_bar, sharding
from rlcd_jax.job import batching, packed_batches, setup
from rlcd_jax.scoring import reading
from rlcd_jax.training import packing

READ = ("tokens", "segments", "states", "at", "counted")  # what a program gets
STEP = 16  # of states of a text: few programs


def longest_of(texts: Sequence[packing.Text]) -> int:
    """Return the tokens that a text may have in programs that read these."""
    return batching.rising_lengths(max((text.length for text in texts), default=1))[-1]


def parts(
    job: setup.Job, texts: Sequence[packing.Text]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield which texts a part has, [B], and the rows `READ` that it is read from.

    All parts have one size. What the last ones lack are copies of the shortest text off
    which nothing is read; their numbers are beyond the last text's.

    Args:
      job: of the stage.
      texts: one at least.
    """
    longest, ways = longest_of(texts), sharding.batch_ways(job.mesh)
    count = -(-len(texts) // reading.rows_at(job)(longest, len(texts)))
    at_once = -(-len(texts) // (count * ways)) * ways
    shortest = min(texts, key=lambda text: text.length)
    spare = [packing.Text(shortest.ids)] * (count * at_once - len(texts))
    most = max(len(text.wanted) for text in texts)
    packer = packed_batches.make_packer(
        job, longest=longest, parts=count, wanted=max(1, -(-most // STEP)) * STEP
    )
    for which, rows in packer.by_part((*texts, *spare)):
        yield which, {name: rows[name] for name in READ}


def map_texts(
    job: setup.Job,
    program: Callable[..., np.ndarray],
    texts: Sequence[packing.Text],
    what: str,
) -> np.ndarray:
    """Run a program over all texts and keep their order.

    Args:
      job: of the stage, whose mesh is set.
      program: (*rows, those of `READ`, on the devices) -> [B], a number a text.
      texts: any number.
      what: what is done, for a progress bar.

    Returns:
      [len(texts)] float32.
    """
    out = np.zeros(len(texts), np.float32)
    if not texts:
        return out
    with progress_bar.Progress(what, len(texts), unit="texts") as bar:
        for which, rows in parts(job, texts):
            found = processes.fetch(program(*reading.placed(job, *rows.values())))
            real = which < len(texts)
            out[which[real]] = found[real]
            bar.advance(int(real.sum()))
    return out
