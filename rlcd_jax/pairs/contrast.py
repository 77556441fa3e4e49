"""Contrast prompts: one dialogue asked for an attribute, in two ways or by grades.

They are made of turns; of a prompt that keeps its text as its source writes it, by
replacements in that text, as the released code makes them.
"""

from rlcd_jax import records, tasks
from rlcd_jax.text import dialogue_format

UNSEEN_END = "PROMPT_END"  # what the released code searches the last header by


def contrast_prompts(
    prompt: records.Prompt,
    task: tasks.Task,
    index: int,
    chat: dialogue_format.Chat | None = None,
) -> tuple[str, str]:
    """Return the positive and the negative prompt of one affix pair.

    In the dialogue format the reply's header carries the side's affix and every
    earlier assistant header the opposite one. In the chat format the system message
    carries the contrast.

    Args:
      prompt: a dialogue.
      task: gives the affix pairs or the system messages.
      index: which pair, the same for both sides.
      chat: as in `plain_prompt`.

    Raises:
      ValueError: the task has no such affix pair.

    Source: RLCD section 3.2; the released code's treatment of earlier turns.
    """
    if not 0 <= index < len(task.affixes):
        raise ValueError(
            f"affix index {index}; task {task.name!r} accepts 0 to "
            f"{len(task.affixes) - 1}"
        )
    if task.format == "chat":
        positive, negative = (
            dialogue_format.render_chat(prompt.turns, task, system, chat)
            for system in task.systems[index]
        )
        return positive, negative
    positive, negative = task.affixes[index]
    if prompt.as_written:
        marker = task.assistant_marker
        return (
            replaced(prompt.as_written, marker, positive, negative),
            replaced(prompt.as_written, marker, negative, positive),
        )
    return (
        dialogue_format.render_dialogue(prompt.turns, task, positive, negative),
        dialogue_format.render_dialogue(prompt.turns, task, negative, positive),
    )


def graded_prompts(
    prompt: records.Prompt,
    task: tasks.Task,
    index: int,
    chat: dialogue_format.Chat | None = None,
) -> list[str]:
    """Return the prompts of one scale, from the most of the attribute to the least.

    As `contrast_prompts`, which is that of two grades: the header of the reply carries
    the affix of its grade, and every earlier assistant header that of the grade as far
    from the other end of the scale.

    Args:
      prompt: a dialogue.
      task: gives the scales.
      index: which scale.
      chat: as in `plain_prompt`.

    Raises:
      ValueError: the task has no such scale.
    """
    if not 0 <= index < len(task.scales):
        raise ValueError(
            f"scale {index}; task {task.name!r} has {len(task.scales)}: give its file "
            "[[scales]]"
        )
    scale = task.scales[index]
    if task.format == "chat":
        return [
            dialogue_format.render_chat(prompt.turns, task, system, chat)
            for system in scale.systems
        ]
    both = zip(scale.affixes, scale.affixes[::-1], strict=True)
    if prompt.as_written:
        return [
            replaced(prompt.as_written, task.assistant_marker, *one) for one in both
        ]
    return [dialogue_format.render_dialogue(prompt.turns, task, *one) for one in both]


def replaced(text: str, marker: str, final: str, earlier: str) -> str:
    """Return a text with affixes in its headers, by replacement, flaws included.

    Where the text does not end with the marker, blank line and all, every header has
    the affix of the earlier ones, and the mark of the search stays in the prompt.

    Args:
      text: a dialogue that waits for the assistant.
      marker: the header of the assistant with its blank line.
      final: affix of the last header.
      earlier: affix of all others.

    Source: `create_prompts` of the released simulation script.
    """
    header = marker.removesuffix(":")
    text = (text + UNSEEN_END).replace(marker + UNSEEN_END, f"{header} ({final}):")
    return text.replace(marker, f"{header} ({earlier}):")
