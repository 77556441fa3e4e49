"""A judge behind an OpenAI-compatible HTTP interface.

Each pair of replies is asked about in both orders, or as released in one. An answer
that cannot be read is counted apart from a tie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from rlcd_jax import tasks
from rlcd_jax.judging import chat_api, verdicts

BREAK, BLOCK = "\n\n", "\n\n\n\n"
OWN = tasks.JudgeWording()


def questions(
    samples: Sequence[verdicts.JudgedReply],
    question: str,
    *,
    both_orders: bool = True,
    wording: tasks.JudgeWording = OWN,
) -> list[str]:
    """Return the texts to ask: the orders of each contest of different replies.

    Args:
      samples: replies of all systems.
      question: the task's judge question.
      both_orders: False: in one order, of `verdicts.orders`.
      wording: around dialogue and replies, of the task.

    Raises:
      ValueError: the question is empty.
    """
    if not question.strip():
        raise ValueError("the judge question is empty; give one of the task's")
    return [
        comparison_prompt(*shown, question, wording)
        for shown in verdicts.side_by_side(samples, both_orders=both_orders)
    ]


def compare(
    samples: Sequence[verdicts.JudgedReply],
    api: chat_api.ChatApi,
    *,
    question: str,
    judge: str,
    progress: Callable[[int], None] = lambda count: None,
    both_orders: bool = True,
    wording: tasks.JudgeWording = OWN,
) -> list[verdicts.Verdict]:
    """Return a verdict for each prompt and each two systems.

    Both orders must name the same reply for it to win; another reply in another order
    is a flip and a tie; when one answer cannot be read the winner is "none". In one
    order its answer alone decides.

    Args:
      samples: replies of all systems.
      api: the model to ask; `api.estimate(questions(samples, question))` says what
        it may cost.
      question: the task's judge question.
      judge: name of the judge in the records.
      progress: called with 1 after each answer.
      both_orders: as in `questions`.
      wording: as in `questions`; the API is told its system message.

    Raises:
      ValueError, RuntimeError: see `ChatApi.ask_all`.
    """
    asked = questions(samples, question, both_orders=both_orders, wording=wording)
    answers = iter(api.ask_all(asked, progress=progress, system=wording.system))
    judged = []
    for one, two in verdicts.contests(samples):
        if plain := verdicts.plain_winner(one, two):
            judged.append(verdicts.make_verdict(judge, one, two, plain))
        else:
            shown = verdicts.orders(one, two, both_orders=both_orders)
            given = [(swapped, next(answers)) for swapped in shown]
            judged.append(read_answers(judge, one, two, given))
    return judged


def comparison_prompt(
    prompt: str,
    reply_a: str,
    reply_b: str,
    question: str,
    wording: tasks.JudgeWording = OWN,
) -> str:
    """Return the text that shows a dialogue, two replies to it and a question.

    Runs of blank lines in dialogue and replies become one line break, and each turn of
    the dialogue gets its blank line back.

    Source: RLCD Appendix F.2 for the layout; the wording is the task's, by default our
    own, without a line before the replies.
    """
    dialogue = _one_break(prompt).removesuffix("Assistant:").rstrip()
    dialogue = re.sub(r"\n(?=(Human|Assistant):)", "\n\n", dialogue)
    replies = "\n\n".join(
        f"({letter}) Assistant: {_one_break(reply)}"
        for letter, reply in (("A", reply_a), ("B", reply_b))
    )
    if wording.lead:
        replies = f"{wording.lead}\n\n{replies}"
    opening = f"{wording.intro}{BLOCK if wording.lead else BREAK}{dialogue}"
    return BLOCK.join((opening, replies, question.strip()))


def parse_answer(text: str) -> Literal["A", "B"] | None:
    """Return the letter that an answer chooses, or None when it chooses none.

    The answer starts with `(A)` or `Response (A)`; or it has the word "However",
    and after it, without `than (A)` and `than (B)`, exactly one of the letters.

    Source: RLCD Appendix F.2 and the released code.
    """
    text = text.strip()
    for letter in ("A", "B"):
        if text.startswith((f"({letter})", f"Response ({letter})")):
            return letter
    if "However" not in text:
        return None
    rest = re.sub(r"than \((A|B)\)", "", text[text.index("However") :])
    named = {letter for letter in ("A", "B") if f"({letter})" in rest}
    return named.pop() if len(named) == 1 else None


def read_answers(
    judge: str,
    one: verdicts.JudgedReply,
    two: verdicts.JudgedReply,
    given: Sequence[tuple[bool, str | None]],
) -> verdicts.Verdict:
    """Return the verdict of the answers to one contest.

    Args:
      judge: name of the judge.
      one: reply of the first system.
      two: reply of the second.
      given: for each order whether (A) was the reply of `two`, and the answer.
    """
    named = []
    for swapped, answer in given:
        letter = None if answer is None else parse_answer(answer)
        systems = {"A": "2", "B": "1"} if swapped else {"A": "1", "B": "2"}
        named.append(None if letter is None else systems[letter])
    unparsed = named.count(None)
    if unparsed:
        winner = "none"
    else:
        winner = named[0] if len(set(named)) == 1 else "tie"
    return verdicts.make_verdict(
        judge,
        one,
        two,
        winner,
        flips=int(winner == "tie"),
        unparsed=unparsed,
        answers=tuple("[no answer]" if a is None else a for _, a in given),
    )


def _one_break(text: str) -> str:
    return re.sub(r"\s*\n\s*", "\n", text.strip())
