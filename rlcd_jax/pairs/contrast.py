"""Contrast prompts: one dialogue asked for an attribute and for its opposite."""

from rlcd_jax import records, tasks
from rlcd_jax.text import dialogue_format


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
    return (
        dialogue_format.render_dialogue(prompt.turns, task, positive, negative),
        dialogue_format.render_dialogue(prompt.turns, task, negative, positive),
    )
