"""Rows of TRL's preference format: prompt, chosen, rejected.

The three are texts, or lists of messages (conversational); without `prompt`, chosen and
rejected are whole dialogues that begin alike (implicit prompt).

Source: "Dataset formats and types" of TRL's documentation, version 1.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import records, row_files
from rlcd_jax.text import dialogue_format

COLUMNS = ("prompt", "chosen", "rejected")
NEEDED = COLUMNS[1:]
ROLES = {"user": "human", "assistant": "assistant"}
TOLD = {role: name for name, role in ROLES.items()}
Taken = tuple[tuple[records.Turn, ...], str, str, float]


def take(row: Mapping[str, Any]) -> Taken:
    """Return turns, the chosen reply, the rejected one, and 0: the first is better.

    Raises:
      ValueError: it names the field that is wrong.
    """
    if row.get("prompt") is None:
        sides = [_whole(row[name], name) for name in ("chosen", "rejected")]
        (turns, chosen), (others, rejected) = sides
        if turns != others:
            raise ValueError(
                "'chosen' and 'rejected' do not begin with the same dialogue; give it "
                "as 'prompt', and the replies alone"
            )
        return turns, chosen, rejected, 0.0
    turns = prompt_turns(row["prompt"])
    replies = [_reply(row, name, turns) for name in ("chosen", "rejected")]
    return turns, *replies, 0.0


def prompt_turns(prompt: Any) -> tuple[records.Turn, ...]:
    """Return the turns of a prompt, as text or messages.

    Raises:
      ValueError: it is neither, or a message has another role.
    """
    if isinstance(prompt, str):
        return dialogue_format.read_prompt(prompt)
    return tuple(_turn(message, "prompt") for message in _listed(prompt, "prompt"))


def _whole(value: Any, name: str) -> tuple[tuple[records.Turn, ...], str]:
    """Return the turns and the last reply of a dialogue, as text or messages."""
    if isinstance(value, str):
        try:
            return dialogue_format.parse_dialogue(value)
        except ValueError as error:
            raise ValueError(f"{name!r} without a 'prompt': {error}") from error
    *before, last = (_turn(message, name) for message in _listed(value, name))
    if last.role != "assistant" or not before:
        raise ValueError(
            f"{name!r} without a 'prompt' ends with a turn of the {last.role} after "
            f"{len(before)} others; accepted: a dialogue that the assistant ends"
        )
    return tuple(before), last.text


def _reply(row: Mapping[str, Any], name: str, turns: Sequence[records.Turn]) -> str:
    """Return the reply beside a prompt: a text, or messages of which it is the last."""
    value = row[name]
    if isinstance(value, str):
        prompt = row["prompt"]
        if isinstance(prompt, str) and prompt.strip() and value.startswith(prompt):
            raise ValueError(
                f"{name!r} begins with the whole prompt; accepted: the reply alone, or "
                "whole dialogues and no column 'prompt'"
            )
        return value.strip()
    *before, last = (_turn(message, name) for message in _listed(value, name))
    if last.role != "assistant" or (before and tuple(before) != tuple(turns)):
        raise ValueError(
            f"{name!r} is no reply to the prompt; accepted: one message of the "
            "assistant, after the messages of the prompt or alone"
        )
    return last.text


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"field {name!r} is {row_files.show(value)}; accepted: a text, or a list "
            'of messages as {"role": "user", "content": "..."}'
        )
    return value


def _turn(message: Any, name: str) -> records.Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= {*message}:
        raise ValueError(
            f"field {name!r} holds {row_files.show(message)}; accepted: messages with "
            "the fields role and content"
        )
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str):
        raise ValueError(
            f"field {name!r} holds a message of role {row_files.show(role)} with "
            f"{row_files.show(content)}; accepted: text of {' or '.join(ROLES)} (a "
            "system message has no place in the dialogue; put it into the task)"
        )
    return records.Turn(ROLES[role], content.strip())


def _sides(row: records.Pair | records.HumanPair) -> tuple[str, str]:
    """Return the better reply and the other."""
    replies = (row.reply_1, row.reply_2)
    return replies[::-1] if row.prob_2 > 0.5 else replies


def as_texts(row: records.Pair | records.HumanPair) -> dict[str, Any]:
    """Return a pair as a row of texts; a reply begins with the blank before it."""
    chosen, rejected = (f" {reply.strip()}" for reply in _sides(row))
    return {"prompt": row.prompt, "chosen": chosen, "rejected": rejected}


def as_messages(row: records.Pair | records.HumanPair) -> dict[str, Any]:
    """Return a pair as a row of lists of messages.

    Raises:
      ValueError: the prompt is no dialogue of turns, as in a chat template's format.
    """
    try:
        turns, _ = dialogue_format.parse_dialogue(row.prompt)
    except ValueError as error:
        raise ValueError(
            f"pair {row.id!r}: its prompt is no dialogue of turns ({error}); write it "
            "as text, not as messages"
        ) from error
    chosen, rejected = (_message("assistant", reply) for reply in _sides(row))
    prompt = [_message(turn.role, turn.text) for turn in turns]
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": TOLD[role], "content": text.strip()}
