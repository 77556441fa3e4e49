"""Batches of examples as packed rows, of few sizes in all of a training.

A batch of a run is a function of (rows, seed, step) alone, and so is its size: that of
every batch is chosen before the first, so that what goes on computes what went before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from rlcd_jax import sharding
from rlcd_jax.job import batching, curriculum, setup
from rlcd_jax.models import footprint, llama, packed
from rlcd_jax.training import packing, row_arrays

Row = Any
TRIED = 32  # batches by which the number of rows is chosen
SHUFFLED, CERTAIN = ORDERS = "shuffled", "certain_first"


def make_packer(
    job: setup.Job, *, longest: int, parts: int, wanted: int = 0, width: int = 0
) -> packing.Packer:
    """Return how the batches of a stage are packed.

    Args:
      job: of the stage.
      longest: text, in tokens.
      parts: in which a batch is taken.
      wanted: states of a text that are read, at most; 0: none.
      width: of all rows; 0: as the texts of each batch need it.
    """
    return packing.Packer(
        longest=longest,
        parts=parts,
        ways=sharding.batch_ways(job.mesh),
        pad_id=job.text_tokenizer.pad_id,
        wanted=wanted,
        width=width,
        most=packed.most_texts if job.cfg.attention == "cudnn" else None,
        work=functools.partial(
            _token_flops, dataclasses.replace(job.cfg, reach=longest)
        ),
    )


def _token_flops(cfg: llama.LlamaConfig, width: int) -> float:
    """Return the operations of a token in a row, without logits."""
    keys = footprint.keys_computed(cfg, width)
    return footprint.forward_flops(cfg, 1, keys, logit_tokens=0)


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

    def __call__(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Return the arrays of a batch, as large as it needs: see `fill`."""
        places = self.packer.place([self.texts(row) for row in rows])
        return self.fill(rows, places, places.size)

    def fill(
        self, rows: Sequence[Row], places: packing.Places, size: packing.Size
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a batch: see `row_arrays.fill`.

        Args:
          rows: the examples.
          places: of their texts.
          size: to fill, as large as `places.size` or larger.
        """
        examples = [self.texts(row) for row in rows]
        ordered = [rows[index] for index in places.order]
        return {
            **row_arrays.fill(self.packer, examples, places, size),
            **self.numbers(ordered),
        }


class Batches:
    """All batches of a training, by index from 0.

    Args:
      rows: the examples.
      collate: how they become arrays.
      seed: of the run.
      batch_size: examples of a batch.
      total: batches; kept as an attribute.
      order: one of `ORDERS`. By certainty: an epoch begins with the examples whose
        `prob_2` is farthest from 1/2; which of equal ones comes first is drawn.
      ramps: of `curriculum`, by the `method` of the examples; {}: none, and no example
        needs a method.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        collate: Collate,
        *,
        seed: int,
        batch_size: int,
        total: int,
        order: str = SHUFFLED,
        ramps: Mapping[str, curriculum.Ramp] = MappingProxyType({}),
    ) -> None:
        self._rows, self._collate, self.total = rows, collate, total
        self._ready: tuple[int, dict[str, np.ndarray]] | None = None
        self._ramps = ramps
        if ramps:
            methods = [row.method for row in rows]
            self._methods = sorted(set(methods))
            places = curriculum.order(methods, ramps, seed, total * batch_size)
            self._chosen = [
                places[n * batch_size : (n + 1) * batch_size] for n in range(total)
            ]
        elif order == CERTAIN:
            sure = [abs(2.0 * row.prob_2 - 1.0) for row in rows]
            self._chosen = batching.ranked_batches(sure, seed, batch_size, total)
        else:
            self._chosen = [
                batching.batch_indices(len(rows), seed, batch_size, index)
                for index in range(total)
            ]
        packer = collate.packer.choose(
            [self._examples(index) for index in range(min(total, TRIED))]
        )
        self._collate = dataclasses.replace(collate, packer=packer)
        self._places, self._read, self._tokens = [], 0, 0
        for index in range(total):
            examples = self._examples(index)
            self._places.append(packer.place(examples))
            tokens = sum(text.length for one in examples for text in one)
            self._tokens += tokens
            self._read += tokens - sum(self.shared(index))
        needed = [places.size for places in self._places]
        states = max(size.states for size in needed)
        widths = packing.choose_widths([size.width for size in needed])
        whole: dict[int, int] = {}  # by width
        for size, width in zip(needed, widths, strict=True):
            whole[width] = max(size.whole, whole.get(width, 0))
        self.sizes = [
            packing.Size(packer.rows, width, min(states, width), whole[width])
            for width in widths
        ]

    def useful_share(self) -> float:
        """Return how many of the tokens of all batches are of a text, in [0, 1]."""
        tokens = sum(size.rows * size.width for size in self.sizes)
        return self._read / (self._collate.packer.parts * tokens)

    def shared_share(self) -> float:
        """Return how many of the tokens of all texts need not be read, in [0, 1].

        They are of a beginning that has been read in another text of their example.
        """
        return 1 - self._read / self._tokens

    def shares(self, index: int) -> dict[str, float]:
        """Return the share of each method's rows in a batch; {} without ramps."""
        if not self._ramps:
            return {}
        own = [row.method for row in self.rows(index)]
        return {name: own.count(name) / len(own) for name in self._methods}

    def as_summary(self) -> dict[str, Any]:
        """Return how the shares of the methods went, part by part; {} without ramps."""
        if not self._ramps:
            return {}
        coming = [row.method for n in range(self.total) for row in self.rows(n)]
        left = -len(coming) % len(self._rows)
        return {
            "curriculum": curriculum.shares(coming),
            "rows_in_no_whole_batch": left,
        }

    def numbers(self, index: int) -> list[int]:
        """Return which of the examples a batch has, counted from 0."""
        return list(map(int, self._chosen[index]))

    def rows(self, index: int) -> list[Row]:
        """Return the examples of a batch: shuffled anew each epoch, without gaps."""
        return [self._rows[place] for place in self._chosen[index]]

    def _examples(self, index: int) -> list[Sequence[packing.Text]]:
        return [self._collate.texts(row) for row in self.rows(index)]

    def texts(self, index: int) -> list[packing.Text]:
        """Return the texts of a batch, all examples' one after the other."""
        return [text for one in self._examples(index) for text in one]

    def shared(self, index: int) -> list[int]:
        """Return the tokens of each beginning of a batch that is not read again."""
        places, examples = self._places[index], self._examples(index)
        return [
            int(tokens)
            for place, tokens in zip(places.order, places.shared, strict=True)
            if tokens
            for _ in range(sum(text.length > 0 for text in examples[place]) - 1)
        ]

    def prepare(self, index: int) -> None:
        """Have the arrays of a batch ready for `arrays`; beyond the last there is none.

        For the host's time while devices are busy with the batch before.
        """
        if index < self.total:
            self._ready = index, self.arrays(index)

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Return the arrays of a batch."""
        if self._ready is not None and self._ready[0] == index:
            return self._ready[1]
        return self._collate.fill(
            self.rows(index), self._places[index], self.sizes[index]
        )
