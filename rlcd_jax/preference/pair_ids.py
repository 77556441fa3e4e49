"""Replies and pairs as the ids that a model reads: whole texts to the mark.

The text of a reply is its prompt, the reply as `pairs.reply_text` ends it, and nothing
else, whether the reply was simulated, sampled by a policy or written by a person. A
policy that learns from pairs reads the end of the text behind it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from rlcd_jax import records
from rlcd_jax.job import lengths, packed_batches, setup
from rlcd_jax.pairs import grid, shortening, training_texts
from rlcd_jax.text import encoding
from rlcd_jax.training import packing

AnyPair = records.Pair | records.HumanPair


@dataclasses.dataclass(frozen=True)
class TokenPair:
    """A pair as a model reads it.

    Attributes:
      ids_1: of the first text, prompt and reply.
      ids_2: of the second.
      prob_2: probability that the second reply is the better.
      starts: places of the first token of either reply.
      distance: how far apart the replies are known to be, see `distance`.
      method: whose row it is, see `grid.method_of`.
    """

    ids_1: tuple[int, ...]
    ids_2: tuple[int, ...]
    prob_2: float
    starts: tuple[int, int] = (1, 1)
    distance: float = 1.0
    method: str = ""


@dataclasses.dataclass(frozen=True)
class TokenPairs(Sequence):
    """The pairs that fit a stage's lengths, in the order of the rows given.

    Attributes:
      pairs: those that fit.
      rows: what each was made of.
      too_long: how many rows were dropped, shortened, or dropped because both texts
        are the same; for a summary.
    """

    pairs: tuple[TokenPair, ...]
    rows: tuple[AnyPair, ...]
    too_long: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def reply_ids(job: setup.Job, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Return what a preference model reads of each (prompt, reply)."""
    task, turn = job.task, job.chat_turn
    whole = [
        prompt + training_texts.reply_text(reply, task, turn) for prompt, reply in texts
    ]
    return encoding.encode_texts(job.text_tokenizer, whole)


def to_tokens(
    job: setup.Job, rows: Sequence[AnyPair], stage: str = "preference"
) -> TokenPairs:
    """Return pairs as token ids of the two whole texts.

    Rows over the stage's `lengths` are treated by its `too_long`: dropped, or both
    texts lose the same oldest turns, or each its end. A row of two equal texts compares
    nothing: it would teach nothing and count as an error, so it is left out wherever it
    is from.

    Args:
      job: of the run.
      rows: the pairs.
      stage: that reads them.
    """
    section, task = job.config[stage], job.task
    shortening.check_rule(f"{stage}.too_long", section.too_long)
    ends = lengths.closing_ids(job, stage)
    fitted = shortening.fit(
        job.text_tokenizer,
        [
            training_texts.preference_texts(
                row, task, job.chat_turn, csv_missing=job.config.pairs.csv_missing
            )
            for row in rows
        ],
        max_tokens=lengths.text_tokens(job, stage),
        rule=section.too_long,
        task=task,
        closing=len(ends),
    )
    made, kept, equal = [], [], []
    for row, one in zip(rows, fitted, strict=True):
        if not one.joined:
            continue
        ids_1, ids_2 = (tuple(ids) for ids, _ in one.closed(ends))
        if ids_1 == ids_2:
            equal.append(one)
            continue
        first, second = (is_reply.index(True) for _, is_reply in one.joined)
        made.append(
            TokenPair(
                ids_1,
                ids_2,
                float(row.prob_2),
                (first, second),
                distance(row),
                grid.method_of(row),
            )
        )
        kept.append(row)
    too_long = shortening.count(fitted, equal)
    return TokenPairs(tuple(made), tuple(kept), too_long)


def distance(row: AnyPair) -> float:
    """Return how far apart the replies of a pair are known to be, from 0.

    In grades where they have some; else by the label, |2 prob_2 - 1|: 1 of a hard one.
    """
    if getattr(row, "grade_1", None) is not None:
        return abs(row.grade_2 - row.grade_1)
    return abs(2.0 * row.prob_2 - 1.0)


def collate(
    packer: packing.Packer, *, margin: float | None = None
) -> packed_batches.Collate:
    """Return how pairs become arrays: two texts each, and "prob_2" [B].

    Args:
      packer: of the stage.
      margin: of two replies at distance 1; with it there is "margin" [B] too.
    """
    numbers = functools.partial(_numbers, margin=margin)
    return packed_batches.Collate(packer, _texts, numbers)


def _texts(pair: TokenPair) -> tuple[packing.Text, packing.Text]:
    return packing.Text(pair.ids_1), packing.Text(pair.ids_2)


def _numbers(
    rows: Sequence[TokenPair], margin: float | None
) -> Mapping[str, np.ndarray]:
    numbers = {
        "prob_2": np.array([row.prob_2 for row in rows], np.float32),
        "counted": np.ones(len(rows), bool),
    }
    if margin is not None:
        apart = np.array([row.distance for row in rows], np.float32)
        numbers["margin"] = np.float32(margin) * apart
    return numbers
