"""What a model makes of closed questions and of texts that people wrote."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlcd_jax import leaving
from rlcd_jax.datasets import closed_questions
from rlcd_jax.job import lengths, roles, setup, trained_form
from rlcd_jax.judging import regression_table
from rlcd_jax.scoring import likelihoods, reading
from rlcd_jax.statistics import tables
from rlcd_jax.text import encoding
from rlcd_jax.weights import scalar

Params = Any
LONGEST = 1024  # tokens of a text with what is given of it
CHOICE_TOKENS, TEXT_TOKENS = 48, 256  # about, with what is given: for plans


@dataclasses.dataclass(frozen=True)
class Suite:
    """What every system reads, as ids.

    Attributes:
      questions: by id.
      texts: ids of each human text and how many of them are read, by id.
      choices: the same of each choice of each question, in their order.
      source: of the texts, in words.
      left_out: texts over `LONGEST` or the positions of the model.
    """

    questions: dict[str, closed_questions.Question]
    texts: dict[str, tuple[list[int], int]]
    choices: Sequence[tuple[list[int], int]]
    source: str
    left_out: int


def make_suite(
    job: setup.Job, most: int, texts: Sequence[tuple[str, str]], source: str
) -> Suite:
    """Return the suite for a job's tokenizer.

    Questions are texts as they stand, without the format of a dialogue.

    Args:
      job: of the stage.
      most: questions of each subject.
      texts: what is given and what is read of each human text.
      source: of these, in words.

    Raises:
      ValueError: the model has too few positions for a question.
    """
    questions = {
        f"{subject}/{number:03}": question
        for subject, own in closed_questions.load(most).items()
        for number, question in enumerate(own)
    }
    joined = [
        (question.context, choice)
        for question in questions.values()
        for choice in question.choices
    ]
    choices = _counted(job, joined)
    longest = max((len(ids) for ids, _ in choices), default=0)
    what = "evaluate.regression: the longest closed question"
    lengths.refuse_over(job, longest, what, "set evaluate.regression=0")
    read = {f"texts/{n:03}": one for n, one in enumerate(_counted(job, texts))}
    most_tokens = min(LONGEST, job.cfg.max_positions)
    kept = {
        name: (ids, num)
        for name, (ids, num) in read.items()
        if num and len(ids) <= most_tokens
    }
    return Suite(questions, kept, choices, source, len(read) - len(kept))


def _counted(
    job: setup.Job, texts: Sequence[tuple[str, str]]
) -> list[tuple[list[int], int]]:
    joined = encoding.join_replies(job.text_tokenizer, texts)
    return [(ids, sum(is_reply)) for ids, is_reply in joined]


def read_all(
    job: setup.Job,
    suite: Suite,
    policies: Mapping[str, pathlib.Path | None],
    base: Params,
) -> list[regression_table.Reading]:
    """Return what all systems make of the suite, one after the other.

    Args:
      job: of the stage.
      suite: of `make_suite`.
      policies: the checkpoints of each system, by name; None: the base model.
      base: its parameters.
    """
    readings = []
    for name, folder in policies.items():
        leaving.leave_if_asked("the regression suite keeps nothing before its end")
        params = base
        if folder is not None:
            params = trained_form.restore(job, folder, scalar.POLICY)
        readings += read(job, suite, name, params)
    return readings


def table(
    job: setup.Job, suite: Suite, readings: Sequence[regression_table.Reading]
) -> tables.Table:
    """Return the table of what alignment cost, by the section `evaluate`."""
    config = job.config
    model = roles.spec_of(config.model, roles.POLICY)
    return regression_table.table(
        readings,
        caption=f"What alignment cost: {model}, {config.name}",
        notes=regression_table.notes(suite.source, suite.left_out),
        seed=config.seed,
        level=config.evaluate.interval,
        resamples=config.evaluate.resamples,
    )


def read(
    job: setup.Job, suite: Suite, system: str, params: Params
) -> list[regression_table.Reading]:
    """Return what a system makes of the suite.

    Args:
      job: of the stage.
      suite: of `make_suite`.
      system: its name.
      params: of a language model, training form.
    """
    score, params = likelihoods.ids_scorer(job), reading.frozen(job, params)

    def nats(rows: Sequence[tuple[list[int], int]]) -> np.ndarray:
        found = score(params, [ids for ids, _ in rows], [num for _, num in rows])
        return found.astype(float)

    # Choices are short: in rows for texts each would look at all of a long row.
    of_choices, of_texts = nats(suite.choices), nats([*suite.texts.values()])
    made, start = [], 0
    for name, question in suite.questions.items():
        own = of_choices[start : start + len(question.choices)]
        start += len(own)
        answered = regression_table.answered(question, own)
        made.append(dataclasses.replace(answered, prompt_id=name, system=system))
    for (name, (_, num)), total in zip(suite.texts.items(), of_texts, strict=True):
        value = -float(total) / num
        made.append(
            regression_table.Reading(name, system, regression_table.TEXTS, value)
        )
    return made
