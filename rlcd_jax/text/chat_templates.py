"""What a model's own chat template writes, and how it closes an assistant's turn."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence

from absl import logging

from rlcd_jax.text import rendering

RENDERER = rendering.Renderer()
# For the date of today, which would make ids depend on the day that a stage runs: the
# one that LLaMA 3's templates write where they know none.
TODAY = datetime.datetime(2024, 7, 26)
CLOCK = re.compile(
    r"""\bstrftime_now\(\s*(?P<mark>["'])(?P<form>[^"']*)(?P=mark)\s*\)"""
)
LOOSE = re.compile(r"\bstrftime_now\s*\(|\|\s*random\b")
REPLY = "Fine, thank you."  # a text that trimming or splitting leaves as it is
USER = {"role": "user", "content": "How are you today?"}
AGAIN = {"role": "user", "content": "I am glad to hear that."}
SYSTEM = {"role": "system", "content": "Answer briefly."}
ASSISTANT = {"role": "assistant", "content": REPLY}


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    names: Mapping[str, str],
    *,
    ask: bool = False,
) -> str:
    """Return the text that a template writes for a conversation.

    Args:
      template: in Jinja, as transformers' `apply_chat_template` takes it.
      messages: with "role" and "content".
      names: special tokens that the template may write, such as "bos_token".
      ask: end the text where the assistant's reply begins.

    Raises:
      ValueError: the template is damaged, refuses such a conversation, takes more
        time or memory than any does, or writes what is not the same at all times.
    """
    template = settled(template)
    said = [dict(message) for message in messages]
    try:
        return RENDERER.render(template, messages=said, names=dict(names), ask=ask)
    except ValueError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the model's chat template fails on turns of {roles}: {error}; use a task "
            "in the dialogue format, or turns that the template takes (some take no "
            "system message)"
        ) from error


def settled(template: str) -> str:
    """Return a template with `TODAY` for the day on which it is rendered.

    Raises:
      ValueError: what it writes depends on the clock in another way, or on chance.
    """
    fixed = CLOCK.sub(lambda call: json.dumps(TODAY.strftime(call["form"])), template)
    if fixed != template:
        told = "The chat template writes the date of today: it is always given as %s"
        logging.log_first_n(logging.INFO, told, 1, TODAY.date())
    if loose := LOOSE.search(fixed):
        line = fixed.count("\n", 0, loose.start()) + 1
        raise ValueError(
            f"line {line} of the model's chat template has {loose.group()!r}: a "
            "conversation would have other ids another time; write a fixed text "
            "there, or use a task in the dialogue format"
        )
    return fixed


def check_complete(text: str, messages: Sequence[Mapping[str, str]]) -> None:
    """Refuse a text in which the template left out or changed a message.

    Raises:
      ValueError: one of the contents is not in the text.
    """
    for message in messages:
        if message["content"].strip() not in text:
            raise ValueError(
                f"the model's chat template leaves out or changes a message of role "
                f"{message['role']!r} ({message['content'][:40]!r}); use a task or an "
                "affix position that needs no such message, or the dialogue format"
            )


def closing_token(
    template: str,
    names: Mapping[str, str],
    *,
    tokens: Sequence[str],
    ends: Sequence[str],
) -> str | None:
    """Return the token with which a template closes an assistant's turn.

    Args:
      template: as in `render`.
      names: as in `render`.
      tokens: the texts of tokens that may close a turn.
      ends: those of them that end a text. A template that closes no last turn closes
        those amid a conversation with one of these, or with plain text.

    Returns:
      The first of the tokens after the turn, or None where there is none.

    Raises:
      ValueError: the template takes no conversation with an assistant's turn, or writes
        more than white space between the turn and the token.
    """
    last, amid = _closings(template, names)
    for text, accepted in ((last, tokens), (amid, ends)):
        longest_first = sorted(filter(None, tokens), key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        match = re.search(pattern, text)
        if match is None or match.group() not in accepted:
            continue
        before = text[: match.start()].strip()
        if before:
            raise ValueError(
                f"the chat template closes an assistant's turn with the text "
                f"{before!r} before {match.group()!r}; accepted: a token alone; use a "
                "task in the dialogue format"
            )
        return match.group()
    return None


def reply_opening(template: str, names: Mapping[str, str]) -> str:
    """Return the blanks that a template writes before the words of a reply.

    They stand after the text that asks for the reply, " " in LLaMA 2, and so they are
    the first characters that its models were taught to write. "" where there are none,
    or where the template tells no more than that.
    """
    for before in ([USER], [SYSTEM, USER]):
        try:
            asked = render(template, before, names, ask=True)
            whole = render(template, [*before, ASSISTANT], names)
        except ValueError:
            continue
        if whole.startswith(asked) and REPLY in whole[len(asked) :]:
            opening = whole[len(asked) :].partition(REPLY)[0]
            return opening if opening.isspace() else ""
    return ""


def _closings(template: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return what a template writes after an assistant's turn, last and amid others.

    Each is empty when the template writes nothing, or only opens another turn.
    """
    last = _after_reply(template, names, [USER, ASSISTANT])
    amid = _after_reply(template, names, [USER, ASSISTANT, AGAIN])
    if last is None and amid is None:
        # It says why. Some templates take no system message, some want one.
        render(template, [USER, ASSISTANT], names)
        raise ValueError(
            "the model's chat template does not write an assistant's turn as it is "
            "given, so that its end cannot be found; use a task in the dialogue format"
        )
    opening = _opening(template, names)
    if last is not None and opening and last.lstrip().startswith(opening):
        last = ""
    return last or "", (amid or "").partition(AGAIN["content"])[0]


def _after_reply(
    template: str, names: Mapping[str, str], turns: list[dict[str, str]]
) -> str | None:
    for messages in (turns, [SYSTEM, *turns]):
        try:
            text = render(template, messages, names)
        except ValueError:
            continue
        if REPLY in text:
            return text.rpartition(REPLY)[2]
    return None


def _opening(template: str, names: Mapping[str, str]) -> str:
    """Return what opens an assistant's turn."""
    try:
        closed = render(template, [USER], names)
        asked = render(template, [USER], names, ask=True)
    except ValueError:
        return ""
    if asked == closed:  # it always asks, or never: what follows the user's text
        return ""
    return asked.removeprefix(closed).strip()
