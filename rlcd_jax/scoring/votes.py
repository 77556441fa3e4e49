"""Which of two replies a model says is better in its own words: votes on pairs.

Self-consistency (arXiv 2203.11171): several answers with a reason are drawn by the
decode engine, and the share of those for a reply is its chance of being the better one.
An answer is keyed by the root seed, the question and its number, so it does not depend
on what else is asked, and a question asked again has the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from rlcd_jax import seeds
from rlcd_jax.decode import requests
from rlcd_jax.job import generation, lengths, setup
from rlcd_jax.pairs import scored_labels, scoring_prompt
from rlcd_jax.text import encoding

Params = Any


def vote_scorer(
    job: setup.Job, params: Params, shots: str = ""
) -> Callable[[Sequence[str]], list[scored_labels.Votes]]:
    """Return a function from questions, which end in `REASON`, to votes.

    Args:
      job: of the run; section `pairs` says how many answers are drawn, and how.
      params: of the model that is asked; the engine has a copy of its own.
      shots: what all questions begin with.
    """
    section = job.config.pairs
    room = lengths.question_tokens(job, shots)
    sampler = generation.make_engine(job, room, section.vote_tokens)
    generation.load(sampler, params, job.mesh)

    def score(texts: Sequence[str]) -> list[scored_labels.Votes]:
        rows = encoding.encode_texts(job.text_tokenizer, texts)
        # Ids that were drawn may spell a text shorter than its own encoding.
        long = {place for place, row in enumerate(rows) if len(row) > room}
        if long:
            told = "votes: %d of %d questions are over %d tokens and have no answer"
            logging.warning(told, len(long), len(texts), room)
        asked = [
            make_request(job, text, tuple(row), place, number)
            for place, (text, row) in enumerate(zip(texts, rows, strict=True))
            for number in range(section.votes)
            if place not in long
        ]
        said = generation.generate(sampler, asked, "votes") if asked else []
        answers = {one.id: scoring_prompt.read_answer(one.raw) for one in said}
        return [
            _count(
                [answers.get(f"{place}/{n}", "") for n in range(section.votes)],
            )
            for place in range(len(texts))
        ]

    return score


def make_request(
    job: setup.Job, text: str, ids: tuple[int, ...], place: int, number: int
) -> requests.Request:
    """Return what one answer to a question is drawn by.

    Args:
      job: of the run.
      text: of the question.
      ids: the same in tokens.
      place: of the question among those that are asked together, for the id alone.
      number: of the answer, from 0.
    """
    section = job.config.pairs
    return requests.Request(
        id=f"{place}/{number}",
        tokens=ids,
        seed=seeds.seed_words(job.config.seed, "vote", text, number),
        max_new_tokens=section.vote_tokens,
        temperature=float(section.vote_temperature),
        stop_strings=scoring_prompt.ENDS,
    )


def _count(letters: Sequence[str]) -> scored_labels.Votes:
    return scored_labels.Votes(*(letters.count(one) for one in ("A", "B", "")))
