"""Dialogues as text: parsed into turns once, and rendered from turns.

A dialogue is a tuple of turns, so an affix lands in a header because it is a header,
not because a search found a string.

Source: RLCD (arXiv 2307.12950) sections 3 and 4 and the code released with it; where
this module differs from the released code, its docstrings say so.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from rlcd_jax import records, tasks
from rlcd_jax.text import headers

# (turns, system), and with a lead-in the first words of the reply, -> text.
Chat = Callable[..., str]

LOOSE_ASSISTANT = re.compile(r"\bAssistant:")


def parse_dialogue(text: str) -> tuple[tuple[records.Turn, ...], str]:
    r"""Return the turns before the last assistant reply of a dialogue, and that reply.

    A header is "Human:" or "Assistant:" at the start of a line. After a blank line it
    opens a turn; without one, only if it is the other role's, and no last human turn
    that nothing follows. A marker inside a line is the turn's own words. Lines end in
    any way that the systems know, become "\n", and may begin with what is not seen:
    blanks, or characters of no width. Neighbouring turns of one role are one turn, so a
    reply that holds a second "Assistant:" header stays one reply. Only where the last
    human turn has no header after it is its last "Assistant:" taken as one.

    Args:
      text: a dialogue in the format of hh-rlhf, or a prompt that ends in "Assistant:".

    Returns:
      The turns, the last one human, and the reply ("" for a prompt).

    Raises:
      ValueError: the text is not a dialogue in which the assistant has a turn.

    Source: the released code cuts after the last "Assistant:" in the text and leaves
      its search mark in the prompt when no blank line is before it.
    """
    sections = headers.read_sections(text)
    turns: list[records.Turn] = []
    for section in sections:
        _add_turn(turns, section.role, section.words)
    if turns[-1].role == "human":
        loose = list(LOOSE_ASSISTANT.finditer(turns[-1].text))
        if loose:
            words, cut = turns.pop().text, loose[-1]
            _add_turn(turns, "human", words[: cut.start()])
            _add_turn(turns, "assistant", words[cut.end() :])
        elif sections[-1].loose:  # nobody answers it: it is the reply's own words
            turns.pop()
            words = f"{turns.pop().text}\n{sections[-1].header}{sections[-1].words}"
            _add_turn(turns, "assistant", words)
        else:
            raise ValueError(
                f"the dialogue ends with {text[-30:]!r} and the assistant has no turn "
                "there; accepted: a dialogue whose last header is 'Assistant:'"
            )
    reply = turns.pop().text
    if not turns:
        raise ValueError(
            f"the dialogue {text[:30]!r} has no human turn; accepted: at least one"
        )
    return tuple(turns), reply


def read_prompt(text: str) -> tuple[records.Turn, ...]:
    """Return the turns of a dialogue that waits for the assistant.

    Of a text that is no such dialogue, one human turn.
    """
    try:
        turns, reply = parse_dialogue(text)
    except ValueError:
        turns, reply = (), ""
    if turns and not reply:
        return turns
    return (records.Turn("human", text.strip()),)


def _add_turn(turns: list[records.Turn], role: str, words: str) -> None:
    words = words.strip()
    if turns and turns[-1].role == role:
        words = "\n\n".join(t for t in (turns.pop().text, words) if t)
    turns.append(records.Turn(role, words))


def _header(marker: str, affix: str | None) -> str:
    """Return "Assistant:" or "Assistant (affix):" with the marker's blank line."""
    return marker if affix is None else f"{marker.removesuffix(':')} ({affix}):"


def _filled(turns: Sequence[records.Turn], task: tasks.Task) -> list[records.Turn]:
    """Return the turns with the last one put into the task's template."""
    *earlier, last = turns
    text = task.prompt_template.replace("{text}", last.text)
    return [*earlier, dataclasses.replace(last, text=text)]


def render_dialogue(
    turns: Sequence[records.Turn],
    task: tasks.Task,
    final_affix: str | None = None,
    earlier_affix: str | None = None,
) -> str:
    """Return a dialogue as text that ends where the reply begins.

    Args:
      turns: the turns, the last one human.
      task: gives the markers, the template of the last turn and the lead-in.
      final_affix: text in parentheses in the header of the reply to come.
      earlier_affix: the same for the headers of all earlier assistant turns.

    Returns:
      Text that ends in "Assistant:", "Assistant (affix):" or the lead-in, without
      outer blanks.
    """
    text = ""
    for turn in _filled(turns, task):
        human = turn.role == "human"
        marker = task.human_marker if human else task.assistant_marker
        words = turn.text.strip()
        text += _header(marker, None if human else earlier_affix)
        text += f" {words}" if words else ""
    return (text + _header(task.assistant_marker, final_affix) + task.lead_in).strip()


def render_chat(
    turns: Sequence[records.Turn],
    task: tasks.Task,
    system: str | None,
    chat: Chat | None,
) -> str:
    """Return turns in the chat format, up to where the reply begins.

    Raises:
      ValueError: there is no chat template.
    """
    if chat is None:
        raise ValueError(
            f"task {task.name!r} is in the chat format and no chat template was given; "
            "pass the tokenizer's chat function, or use the dialogue format"
        )
    begun = [task.lead_in.lstrip()] if task.lead_in.strip() else []
    return chat(_filled(turns, task), system, *begun)


def plain_prompt(
    prompt: records.Prompt, task: tasks.Task, chat: Chat | None = None
) -> str:
    """Return the prompt without an affix: what RLAIF samples from and the policy sees.

    Args:
      prompt: a dialogue.
      task: gives the format.
      chat: `(turns, system) -> text`, the tokenizer's; needed for the chat format.
    """
    if task.format == "chat":
        return render_chat(prompt.turns, task, None, chat)
    return plain_dialogue(prompt, task)


def plain_dialogue(prompt: records.Prompt, task: tasks.Task) -> str:
    """Return the prompt without an affix in the dialogue format, whatever the task's.

    A prompt that keeps its text has it as it is.
    """
    return prompt.as_written or render_dialogue(prompt.turns, task)


def prompt_as_written(text: str) -> str:
    """Return the prompt in the text of a dialogue: up to its last "Assistant:".

    Source: the released scripts, which read neither lines nor turns.
    """
    return text[: text.rindex("Assistant:") + len("Assistant:")].strip()
