"""Labels by scoring: what is asked about a pair, and what the answers make of it.

A pair is asked about once, or by several questions, and each question in one order of
the replies or in both. An answer is the logits of the letters, or votes: so many
answers in words, each for one of the letters or for none. The label is the mean over
all that was asked of the probability that reply_2 is better.

Why probabilities, and not log-odds: a loss is linear in its label, so that this mean is
what a label by one question drawn at random, as RLAIF draws it, comes to in
expectation; the noise of the draw is gone and nothing else has changed. The mean of
log-odds is another label, which the one answer that is surest decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlcd_jax import records, seeds, tasks
from rlcd_jax.pairs import scoring_prompt

INDEX, MORE = "instruction_index", "more_instructions"  # of the record of a score
ORDERS = (("", 1), ("swapped_", -1))  # prefix of an order, and whom (B) is for


class Logits(NamedTuple):
    """Of the letters A and B as the next token."""

    logit_a: float
    logit_b: float

    @property
    def lean(self) -> float:
        """2 p - 1 for the probability p of (B), exactly opposite for opposite logits.

        sigmoid(x) = (1 + tanh(x / 2)) / 2.
        """
        return math.tanh((self.logit_b - self.logit_a) / 2)


class Votes(NamedTuple):
    """Answers in words to one question: for A, for B, and that name neither."""

    votes_a: int
    votes_b: int
    votes_unread: int

    @property
    def lean(self) -> float:
        """2 p - 1 for the share p of (B) of the votes; 0 where there is none."""
        read = self.votes_a + self.votes_b
        return (self.votes_b - self.votes_a) / read if read else 0.0


Answer = Logits | Votes


@dataclasses.dataclass(frozen=True)
class Asking:
    """How a pair is asked about.

    Attributes:
      both_orders: each question with reply_1 as (A), then with reply_2 as (A).
      instructions: questions a pair.
      shots: solved examples, before each question; "": none.
      words: the answers are words, not a letter.
    """

    both_orders: bool
    instructions: int = 1
    shots: str = ""
    words: bool = False


def choose(first: int, num: int, wanted: int, seed: int, key: str) -> dict[str, Any]:
    """Return the record of a pair that is to be asked about: which questions, in order.

    Args:
      first: the question that is asked when there is one: of the affix pair, or drawn.
      num: of the task's questions.
      wanted: how many are asked.
      seed: root seed.
      key: of the draw of the prompt; the others are drawn by it, none twice.
    """
    others = [index for index in range(num) if index != first]
    others.sort(key=lambda index: seeds.seed_words(seed, "instructions", key, index))
    scoring: dict[str, Any] = {INDEX: first}
    if wanted > 1:
        scoring[MORE] = [{INDEX: index} for index in others[: wanted - 1]]
    return scoring


def too_many(task: tasks.Task, wanted: int) -> str:
    """Return why so many questions cannot be asked; "": they can."""
    known = len(task.all_instructions)
    if wanted <= known:
        return ""
    return (
        f"pairs.instructions={wanted}, and task {task.name!r} has {known} questions "
        "for scored labels; set it to that or less, or write more of them in "
        "'instructions' of the task's file"
    )


def texts(
    pair: records.Pair, plain: str, task: tasks.Task, asking: Asking
) -> list[str]:
    """Return the questions about a pair, orders of one question together.

    Args:
      pair: with the record that `choose` makes.
      plain: the dialogue without affixes.
      task: has the questions and the opening.
      asking: how.
    """
    both = (pair.reply_1, pair.reply_2)
    plain, replies = scoring_prompt.whole_turns(plain, both)
    orders = (replies, replies[::-1]) if asking.both_orders else (replies,)
    before = asking.shots and asking.shots + scoring_prompt.BLOCK
    last = scoring_prompt.REASON if asking.words else scoring_prompt.ANSWER
    return [
        before
        + scoring_prompt.scoring_prompt(
            plain,
            *shown,
            task.all_instructions[one[INDEX]],
            task.scoring_opening,
            last,
        )
        for one in _asked(pair.scoring)
        for shown in orders
    ]


def _asked(scoring: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield scoring
    yield from scoring.get(MORE, ())


def scored_pair(
    pair: records.Pair, answers: Sequence[Answer | tuple[float, float]], hard: bool
) -> records.Pair:
    """Return the pair with its score, which is its label unless it has another.

    Args:
      pair: a pair with its instructions.
      answers: to the questions of `texts`, in their order; two numbers are logits.
      hard: round the label to 0 or 1, a tie to 0.

    Raises:
      ValueError: a score is not finite, or there are not as many for each question.
    """
    answers = [one if isinstance(one, Votes) else Logits(*one) for one in answers]
    if not all(math.isfinite(x) for one in answers for x in one):
        raise ValueError(f"score gave {answers} for pair {pair.id!r}; accepted: finite")
    asked = list(_asked(pair.scoring))
    orders = len(answers) // len(asked)
    if len(answers) != len(asked) * orders or not 1 <= orders <= len(ORDERS):
        raise ValueError(
            f"{len(answers)} answers to {len(asked)} questions about {pair.id!r}; "
            "accepted: one or two a question"
        )
    told, leans = [], []
    for number, one in enumerate(asked):
        own = answers[orders * number :][:orders]
        facts = dict(one)
        for (name, sign), answer in zip(ORDERS, own, strict=False):
            facts |= {f"{name}{field}": x for field, x in answer._asdict().items()}
            leans.append(sign * answer.lean)
        told.append(facts)
    scoring = told[0] | ({MORE: told[1:]} if told[1:] else {})
    prob_2 = 0.5 + sum(leans) / (2 * len(leans))
    label = float(prob_2 > 0.5) if hard else prob_2
    if pair.labels == "construction":
        label = pair.prob_2
    return dataclasses.replace(pair, prob_2=label, scoring=scoring | {"prob_2": prob_2})


def count_votes(pairs: Sequence[records.Pair]) -> dict[str, int]:
    """Return what became of the votes about pairs; {} where there was no voting.

    Returns:
      `drawn` answers, `unread` ones of them, `questions_without` a vote, whose say is
      1/2, and pairs that come to a tie.
    """
    counts = dict.fromkeys(("drawn", "unread", "questions_without", "ties"), 0)
    seen = False
    for pair in pairs:
        for one in _asked(pair.scoring or {}):
            for name, _ in ORDERS:
                own = [one.get(f"{name}{field}") for field in Votes._fields]
                if None in own:
                    continue
                seen = True
                counts["drawn"] += sum(own)
                counts["unread"] += own[2]
                counts["questions_without"] += not own[0] + own[1]
        counts["ties"] += bool(pair.scoring) and pair.scoring.get("prob_2") == 0.5
    return counts if seen else {}


def said_of_votes(counts: Mapping[str, int]) -> str:
    """Return in words that votes say little: `count_votes` of a cell; "": they do."""
    drawn, unread = counts.get("drawn", 0), counts.get("unread", 0)
    if 2 * unread <= drawn:
        return ""
    return (
        f"{unread} of {drawn} answers name no letter, and "
        f"{counts['questions_without']} questions have no vote at all, which says 1/2; "
        "show solved examples (pairs.shots), raise pairs.vote_tokens, or set "
        "pairs.votes=0 to read the letters"
    )
