"""What a chat completion says: an answer, a refusal, or nothing yet."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from absl import logging

THOUGHT = re.compile(r"\A\s*<(think|thinking)>.*?(</\1>\s*|\Z)", re.DOTALL)
THOUGHT_END = re.compile(r"</(?:think|thinking)>")
TEXT_PARTS = ("text", "output_text")
REFUSED = "[refused]"
MOST_TOKENS = 10**8  # of one question or answer, far above any


@dataclasses.dataclass(frozen=True)
class Completion:
    """What came back for one question.

    Attributes:
      text: the answer without the model's thoughts; "" when it said nothing.
      is_cut: no word of the answer was reached: the thoughts took all tokens.
      given: tokens read, as the server counts them, or None.
      written: tokens written, thoughts included, or None.
    """

    text: str
    is_cut: bool
    given: int | None
    written: int | None


def read_completion(reply: Any) -> Completion:
    """Return what a parsed reply of the interface says.

    Args:
      reply: the JSON of the reply.

    Raises:
      ValueError: it is no chat completion, or one without an answer to a question,
        such as a call of a tool.
    """
    if not isinstance(reply, Mapping):
        raise ValueError("not a chat completion")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        error = reply.get("error")
        raise ValueError("an error as an answer" if error else "no choices")
    if len(choices) > 1:
        raise ValueError(f"{len(choices)} choices where one was asked for")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise ValueError("a choice without a message")
    if message.get("role") not in ("assistant", None):
        raise ValueError("a message that is not the assistant's")
    if not isinstance(choice.get("finish_reason"), str | None):
        raise ValueError("a finish_reason that is no text")
    content = _content(message.get("content"))
    text = without_thoughts(content)
    finish = choice.get("finish_reason")
    usage = reply.get("usage")
    counts = [_count(usage, f"{name}_tokens") for name in ("prompt", "completion")]
    thought = message.get("reasoning_content") or message.get("reasoning")
    thought = thought or content.strip()
    if not text.strip():
        text, refusal = "", message.get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            text = f"{REFUSED} {refusal.strip()}"
        elif finish in ("content_filter", "refusal"):
            text = f"{REFUSED} by a filter of the interface"
        elif message.get("tool_calls") or message.get("function_call"):
            raise ValueError("a call of a tool in place of an answer")
    is_cut = not text and (finish in ("length", "max_tokens") or bool(thought))
    return Completion(text, is_cut, *counts)


def _content(content: Any) -> str:
    """Return the text of a message's content, which may be a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, Mapping) for p in content):
        texts = [p.get("text") for p in content if p.get("type") in TEXT_PARTS]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise ValueError("the content is no text")


def without_thoughts(text: str) -> str:
    """Return an answer without what a reasoning model thought before it.

    Thoughts stand between "<think>" and "</think>"; some servers leave the first mark
    out, and an answer cut among its thoughts has no second one.
    """
    while THOUGHT.match(text):
        text = THOUGHT.sub("", text)
    ends = list(THOUGHT_END.finditer(text))
    return text[ends[-1].end() :].lstrip() if ends else text


def _count(usage: Any, name: str) -> int | None:
    """Return a number of tokens as the interface tells it."""
    value = usage.get(name) if isinstance(usage, Mapping) else usage
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return value
    told = "the server counts %s as %.40r: the price of its answers is estimated"
    logging.log_first_n(logging.WARNING, told, 5, name, value)
    return None
