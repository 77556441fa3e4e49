"""The text in which a model is asked which of two replies is better, and its answer."""

import re

from rlcd_jax.tasks import layout

BLOCK = "\n\n\n\n"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # headers of a plain dialogue
LETTERS = ("continuation", "bare")  # as what A and B are read: see `scoring.letters`
ANSWER = "The answer is: ("  # a letter follows
REASON = "Give the reason in one sentence, then the answer. Reason:"  # words follow
# What ends an answer in words, wherever it stands in them.
ENDS = ("answer is: (A", "answer is: (B", "answer is (A", "answer is (B", BLOCK)
_SAID = re.compile(r"answer is:? \(([AB])")


def whole_turn(prompt: str, reply: str) -> tuple[str, str]:
    """Return a dialogue up to its last header, and the whole turn that follows.

    Where a task lets the reply continue a lead-in, such as "One possible outline:
    1.", the lead-in is shown with each reply and no longer ends the dialogue.

    Source: the released script that asks GPT-4 about outlines.
    """
    before, header, lead_in = prompt.rpartition(ASSISTANT)
    if not header or not lead_in.strip() or HUMAN in lead_in:
        return prompt, reply
    return before + header, f"{lead_in.strip()} {reply.strip()}"


def whole_turns(prompt: str, pair: tuple[str, str]) -> tuple[str, tuple[str, str]]:
    """Return a dialogue and both replies to it as `whole_turn` does."""
    (plain, first), (_, second) = (whole_turn(prompt, reply) for reply in pair)
    return plain, (first, second)


def scoring_prompt(
    plain: str,
    reply_a: str,
    reply_b: str,
    instruction: str,
    opening: str = layout.SCORING_OPENING,
    last: str = ANSWER,
) -> str:
    """Return the text whose next token, A or B, says which reply is better.

    Args:
      plain: the dialogue without affixes, ending in its assistant header.
      reply_a: reply shown as (A).
      reply_b: reply shown as (B).
      instruction: what to decide, from the task.
      opening: the first line, the task's; our own wording unless it has the official.
      last: what the model goes on from: `ANSWER`, or `REASON` for an answer in words.

    Source: RLCD section 4 (layout as released).
    """
    blocks = (
        opening,
        plain.strip(),
        instruction.strip(),
        "Options:",
        f"(A) {reply_a}",
        f"(B) {reply_b}",
        last,
    )
    return BLOCK.join(blocks)


def solved(letter: str, reason: str = "") -> str:
    """Return what follows a scoring prompt whose answer is known.

    Args:
      letter: A or B.
      reason: in a sentence, where the prompt ends in `REASON`.
    """
    return f" {reason} {ANSWER}{letter})" if reason else f"{letter})"


def read_answer(words: str) -> str:
    """Return the letter that an answer in words comes to; "": it does not say one.

    The first "answer is: (A" or "(B" counts, before the block ends. Letters that stand
    anywhere else are no answer: reasons speak of both replies.
    """
    found = _SAID.search(words.partition(BLOCK)[0])
    return found[1] if found else ""
