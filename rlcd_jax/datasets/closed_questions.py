"""Closed questions: a context, the right continuation, and wrong ones.

A small set of our own making, which the package ships, for what a model could do before
it was aligned and may have lost. Five subjects, 120 questions each:

    agreement    minimal pairs: verb, noun, reflexive and participle; 2 choices
    words        opposites, kinds of things, names of professions; 4
    facts        capitals, continents, elements, languages, authors, school facts; 4
    arithmetic   sums, differences and products, after four worked ones; 4
    copying      the next word of a list that is said again; 4

They are plain and easy, made for the paired difference of two models and not for a
place among published scores, with which no number of theirs can be compared.
"""

from __future__ import annotations

import dataclasses
from importlib import resources

from rlcd_jax import jsonl, schema

FILE = "closed_questions.jsonl"
SUBJECTS = ("agreement", "words", "facts", "arithmetic", "copying")
# Whose choices are compared by the byte: they are of many lengths. Those of the others
# are as long as each other, or the two forms of a word.
BY_BYTE = ("words", "facts")


@dataclasses.dataclass(frozen=True)
class Question:
    """A question; `choices` begin with a blank, and the first is the right one."""

    subject: str
    context: str
    choices: tuple[str, ...]

    def __post_init__(self) -> None:
        schema.validate(self)


def load(most: int) -> dict[str, list[Question]]:
    """Return the questions of each subject, in the order of the file, a mixed one.

    Args:
      most: of each subject.
    """
    source = resources.files(__name__.rpartition(".")[0]).joinpath(FILE)
    groups: dict[str, list[Question]] = {name: [] for name in SUBJECTS}
    for number, line in enumerate(source.read_bytes().splitlines(), start=1):
        row = jsonl.parse_object(line, f"{FILE}:{number}")
        question = Question(row["subject"], row["context"], tuple(row["choices"]))
        if len(groups[question.subject]) < most:
            groups[question.subject].append(question)
    return groups
