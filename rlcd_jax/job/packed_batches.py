"""Batches of examples as packed rows, of few sizes in all of a training.

A batch of a run is a function of (rows, seed, step) alone, and so is its size: that of
every batch is chosen before the first, so that what goes on computes what went before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import batching, setup
from rlcd_jax.training import packing

Row = Any


def make_packer(
    job: setup.Job, *, longest: int, parts: int, wanted: int = 0
) -> packing.Packer:
    """Return how the batches of a stage are packed.

    Args:
      job: of the stage.
      longest: text, in tokens.
      parts: in which a batch is taken.
      wanted: states of a text that are read, at most; 0: none.
    """
    return packing.Packer(
        width=packing.row_width(longest),
        parts=parts,
        ways=sharding.batch_ways(job.mesh),
        pad_id=job.text_tokenizer.pad_id,
        wanted=wanted,
    )


@dataclasses.dataclass(frozen=True)
class Collate:
    """How the examples of a stage become arrays.

    Attributes:
      packer: of the stage.
      texts: of an example, as the model reads them.
      numbers: of examples, arrays with one entry for each.
    """

    packer: packing.Packer
    texts: Callable[[Row], Sequence[packing.Text]]
    numbers: Callable[[Sequence[Row]], Mapping[str, np.ndarray]]

    def size(self, rows: Sequence[Row]) -> packing.Size:
        """Return what a batch of these examples needs."""
        return self.packer.place([self.texts(row) for row in rows]).size

    def __call__(
        self, rows: Sequence[Row], size: packing.Size | None = None
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a batch: see `packing.Packer.fill`.

        Args:
          rows: the examples.
          size: to fill; None: what they need.
        """
        examples = [self.texts(row) for row in rows]
        places = self.packer.place(examples)
        ordered = [rows[index] for index in places.order]
        filled = self.packer.fill(examples, places, size or places.size)
        return {**filled, **self.numbers(ordered)}


class Batches:
    """All batches of a training, by index from 0.

    Args:
      rows: the examples.
      collate: how they become arrays.
      seed: of the run.
      batch_size: examples of a batch.
      total: batches.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        collate: Collate,
        *,
        seed: int,
        batch_size: int,
        total: int,
    ) -> None:
        self._rows, self._collate = rows, collate
        self._chosen = [
            batching.batch_indices(len(rows), seed, batch_size, index)
            for index in range(total)
        ]
        sizes = [collate.size(self.rows(index)) for index in range(total)]
        states = max(size.states for size in sizes)
        self.sizes = [
            packing.Size(number, states)
            for number in packing.choose_rows([size.rows for size in sizes])
        ]

    def useful_share(self) -> float:
        """Return how many of the tokens of all batches are of a text, in [0, 1]."""
        packer, collate = self._collate.packer, self._collate
        tokens = sum(
            text.length
            for index in range(len(self.sizes))
            for row in self.rows(index)
            for text in collate.texts(row)
        )
        rows = sum(size.rows for size in self.sizes)
        return tokens / (packer.parts * packer.width * rows)

    def rows(self, index: int) -> list[Row]:
        """Return the examples of a batch: shuffled anew each epoch, without gaps."""
        return [self._rows[place] for place in self._chosen[index]]

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Return the arrays of a batch."""
        return self._collate(self.rows(index), self.sizes[index])
