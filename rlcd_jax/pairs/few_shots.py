"""Solved examples before a scoring prompt: few-shot RLAIF, RLCD Appendix C.

The paper's shots are not published. What is asked for is "task": those of the task's
file; "human:N": so many human pairs of hh-rlhf, asked as the task asks; or a file,
whose text is put before each question as it stands.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from rlcd_jax import records, tasks
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.tasks import layout
from rlcd_jax.text import dialogue_format

TASK = "task"
HUMAN = "human:"  # and a count: so many human pairs


def human_count(shots: str) -> int:
    """Return how many human pairs `shots` asks for; 0 where it is anything else.

    Raises:
      ValueError: the count is none.
    """
    if not shots.startswith(HUMAN):
        return 0
    count = shots.removeprefix(HUMAN)
    if not (count.isdecimal() and int(count)):
        raise ValueError(
            f"shots {shots!r}; accepted: {HUMAN}N with N from 1, {TASK}, or a text"
        )
    return int(count)


def path_of(asked: str) -> str:
    """Return the path that `shots` names; "" where it names none."""
    return "" if asked == TASK or human_count(asked) else asked


def read(asked: str, field: str = "pairs.shots") -> str:
    """Return the text of a file of shots, or what was asked for instead of a file.

    Args:
      asked: "" for none, "task", "human:N" or a path.
      field: that asks, for messages.

    Raises:
      ValueError: there is no such file, or no text in it.
    """
    if not path_of(asked):
        return asked
    try:
        text = pathlib.Path(asked).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{field}={asked!r} cannot be read ({error}); accepted: a file of solved "
            f"examples in UTF-8, {TASK}, or {HUMAN}N"
        ) from error
    if not text.strip():
        raise ValueError(f"{field}={asked} is empty; accepted: solved examples")
    return text


def known_text(shots: str, task: tasks.Task, *, words: bool) -> str:
    """Return the text of shots as far as it is known without human pairs.

    Args:
      shots: as `read` returns them.
      task: of the run.
      words: whether answers are in words: the task's shots then give their reasons.

    Returns:
      The text; "" for human pairs, and where there are none.

    Raises:
      ValueError: the task has no shots.
    """
    if human_count(shots):
        return ""
    if shots != TASK:
        return shots.strip()
    if not task.shots:
        raise ValueError(
            f"pairs.shots={TASK!r}, and task {task.name!r} has no solved examples; "
            "give its file [[shots]], or name a file of solved examples"
        )
    examples = [_example(task, number) for number in range(len(task.shots))]
    reasons = [shot.reason for shot in task.shots] if words else ()
    return solved(examples, task.scoring_instructions, task.scoring_opening, reasons)


def known_of(section: Any, task: tasks.Task) -> str:
    """Return `known_text` of what the section `pairs` of a config asks for."""
    return known_text(read(section.shots), task, words=section.votes > 0)


def _example(task: tasks.Task, number: int) -> records.HumanPair:
    shot, name = task.shots[number], f"{task.name}/shot/{number}"
    turns = (records.Turn("human", shot.prompt),)
    plain = dialogue_format.plain_dialogue(records.Prompt(name, turns), task)
    return records.HumanPair(name, name, plain, shot.better, shot.worse, prob_2=0.0)


def solved(
    examples: Sequence[records.HumanPair],
    instructions: Sequence[str],
    opening: str = layout.SCORING_OPENING,
    reasons: Sequence[str] = (),
) -> str:
    """Return labelled pairs as scoring prompts with their answers.

    The better reply is shown as (A) and as (B) in turns, so that the letters tell
    nothing; the instructions take turns as well.

    Args:
      examples: pairs with labels.
      instructions: questions for scored labels.
      opening: the line that a scoring prompt opens with.
      reasons: one of each, where answers are in words; () elsewhere.
    """
    last = scoring_prompt.REASON if reasons else scoring_prompt.ANSWER
    blocks = []
    for number, pair in enumerate(examples):
        both = (pair.reply_1, pair.reply_2)
        plain, replies = scoring_prompt.whole_turns(pair.prompt, both)
        better = round(pair.prob_2)
        place = number % 2
        shown = replies if better == place else replies[::-1]
        question = instructions[number // 2 % len(instructions)]
        asked = scoring_prompt.scoring_prompt(plain, *shown, question, opening, last)
        reason = reasons[number] if reasons else ""
        blocks.append(asked + scoring_prompt.solved("AB"[place], reason))
    return scoring_prompt.BLOCK.join(blocks)
