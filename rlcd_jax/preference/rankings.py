"""Draws of several replies as the ids that a model reads: rankings of K texts.

The pairs of a draw hold each of its replies several times; here they are put together
again, so that each text is read once and all are compared at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rlcd_jax import records
from rlcd_jax.job import lengths, packed_batches, setup
from rlcd_jax.pairs import shortening, training_texts
from rlcd_jax.training import packing

DIGITS = 9  # of a grade: sums in another order are the same grade


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The distinct replies to a prompt in one draw, and how good each is.

    Attributes:
      prompt: without affix.
      replies: two or more.
      grades: of the replies, higher is better; equal ones are ties.
    """

    prompt: str
    replies: tuple[str, ...]
    grades: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TokenRanking:
    """A ranking as a model reads it.

    Attributes:
      ids: of each text, prompt and reply.
      grades: of each.
    """

    ids: tuple[tuple[int, ...], ...]
    grades: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TokenRankings(Sequence):
    """The rankings of which two replies or more fit a stage's lengths.

    Attributes:
      rankings: those.
      too_long: how many replies of all were dropped, shortened, or left out because
        they are another one's text; for a summary.
    """

    rankings: tuple[TokenRanking, ...]
    too_long: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rankings)

    def __getitem__(self, index):
        return self.rankings[index]


def group(rows: Iterable[records.Pair]) -> list[Ranking]:
    """Return the ranking of each draw and cell, in the order of their first pairs.

    A reply that was asked for by a grade has that grade; another has the mean
    probability that it is better than the others, by the labels of its pairs (Borda's
    count, of soft votes). A text that came several times is one reply, of the mean
    grade.
    """
    cells: dict[tuple[str, ...], list[records.Pair]] = {}
    for row in rows:
        name = (records.key_of(row), row.sampling, row.labels)
        cells.setdefault(name, []).append(row)
    return [_ranking(own) for own in cells.values()]


def _ranking(rows: Sequence[records.Pair]) -> Ranking:
    votes: dict[str, list[float]] = {}
    for row in rows:
        asked = row.grade_1 is not None
        first = row.grade_1 if asked else 1.0 - row.prob_2
        second = row.grade_2 if asked else row.prob_2
        votes.setdefault(row.reply_1, []).append(first)
        votes.setdefault(row.reply_2, []).append(second)
    means = (round(float(np.mean(own)), DIGITS) for own in votes.values())
    return Ranking(rows[0].prompt, tuple(votes), tuple(means))


def to_tokens(job: setup.Job, rows: Iterable[records.Pair]) -> TokenRankings:
    """Return the rankings of pairs as token ids of whole texts.

    Replies over `preference.lengths` are treated by `preference.too_long`: dropped
    alone, or the prompt of all loses its oldest turns, as few as leave room for the
    longest that can have room. Of texts that are read alike the first one counts.
    """
    given, task = group(rows), job.task
    texts = [
        [
            (one.prompt, training_texts.reply_text(reply, task, job.chat_turn))
            for reply in one.replies
        ]
        for one in given
    ]
    fitted = _fit(job, texts)
    made, equal = [], []
    for one, own in zip(given, fitted, strict=True):
        distinct: dict[tuple[int, ...], float] = {}
        for text, grade in zip(own, one.grades, strict=True):
            for ids, _ in text.joined:
                if tuple(ids) in distinct:
                    equal.append(text)
                distinct.setdefault(tuple(ids), grade)
        if len(distinct) > 1:
            made.append(TokenRanking(tuple(distinct), tuple(distinct.values())))
    too_long = shortening.count([text for own in fitted for text in own], equal)
    return TokenRankings(tuple(made), too_long)


def _fit(
    job: setup.Job, groups: Sequence[Sequence[tuple[str, str]]]
) -> list[list[shortening.Fitted]]:
    """Return each text of each group as it fits, behind the same prompt as the others.

    Args:
      job: of the run.
      groups: each the (prompt, reply) texts of one prompt.
    """
    rule = job.config.preference.too_long
    shortening.check_rule("preference.too_long", rule)
    fit = functools.partial(
        shortening.fit,
        job.text_tokenizer,
        max_tokens=lengths.text_tokens(job, "preference"),
        rule=rule,
        task=job.task,
    )
    alone = iter(fit([[text] for own in groups for text in own]))
    fitted = [[next(alone) for _ in own] for own in groups]
    # Where one text has a shorter prompt, all have that of the longest.
    again = [n for n, own in enumerate(fitted) if any(one.shortened for one in own)]
    kept = [
        [text for text, one in zip(groups[n], fitted[n], strict=True) if one.joined]
        for n in again
    ]
    for n, both in zip(again, fit(kept), strict=True):
        joined = iter(both.joined)
        fitted[n] = [
            shortening.Fitted((next(joined),), shortened=True) if one.joined else one
            for one in fitted[n]
        ]
    return fitted


def collate(packer: packing.Packer, most: int) -> packed_batches.Collate:
    """Return how rankings become arrays: K texts each, "grades" and "are_replies".

    Both are [B, K], the second False where a ranking has no reply more; its text there
    is empty and takes no token.

    Args:
      packer: of the stage.
      most: K, replies of a ranking at most.
    """

    def texts(row: TokenRanking) -> tuple[packing.Text, ...]:
        more = most - len(row.ids)
        if more < 0:
            raise ValueError(
                f"a draw has {len(row.ids)} replies and pairs.samples={most}; the "
                "pairs are of another config: set pairs.samples to what drew them"
            )
        return (*map(packing.Text, row.ids), *[packing.Text(())] * more)

    def numbers(rows: Sequence[TokenRanking]) -> Mapping[str, np.ndarray]:
        grades = np.zeros((len(rows), most), np.float32)
        for index, row in enumerate(rows):
            grades[index, : len(row.grades)] = row.grades
        counts = np.array([len(row.grades) for row in rows])
        return {
            "grades": grades,
            "are_replies": np.arange(most) < counts[:, None],
            "counted": np.ones(len(rows), bool),
        }

    return packed_batches.Collate(packer, texts, numbers)
