"""Texts that are too long for a model's rows: left out, or with shorter prompts.

A text never loses a piece that ends anywhere but at a turn: a prompt without its
beginning-of-sequence token, or one that begins in mid-sentence, is a text that the
model was not made for. What becomes of the texts is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from rlcd_jax import records, tasks
from rlcd_jax.pairs import length_counts
from rlcd_jax.text import encoding, tokenizer

DROP, SHORTEN_PROMPT, CUT_RIGHT = RULES = "drop", "shorten_prompt", "cut_right"
NO_BORDERS = (
    "the chat template does not tell where a turn ends, so no prompt can be shortened; "
    f"set too_long={DROP!r}, or allow longer texts"
)
Joined = tuple[list[int], list[bool]]


@dataclasses.dataclass(frozen=True)
class Borders:
    """What stands between the turns of a prompt.

    Attributes:
      opening: text before the words of the first human turn.
      between: text after the words of an assistant turn, before those of the next
        human turn.
    """

    opening: str
    between: str


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A prompt with its replies as it fits, one of `joined` a reply.

    Attributes:
      joined: ids and whether they are the reply's; () where nothing fits.
      shortened: the prompt lost turns, or a text its end.
      whole: which of `joined` have their end.
    """

    joined: tuple[Joined, ...]
    shortened: bool = False
    whole: tuple[bool, ...] = ()

    def closed(self, ends: Sequence[int]) -> list[Joined]:
        """Return `joined`, those that have their end with what is behind it."""
        whole = self.whole or (True,) * len(self.joined)
        return [
            (ids + [*ends] * has_end, is_reply + [True] * len(ends) * has_end)
            for (ids, is_reply), has_end in zip(self.joined, whole, strict=True)
        ]


def check_rule(field: str, rule: str) -> None:
    """Refuse a rule that is not known.

    Args:
      field: of the config, by its dotted name.
      rule: its value.
    """
    if rule not in RULES:
        raise ValueError(f"{field}={rule!r}; accepted: {', '.join(RULES)}")


def find_borders(task: tasks.Task, text_tokenizer: tokenizer.Tokenizer) -> Borders:
    """Return what stands between turns, by the task's headers or the chat template.

    Raises:
      ValueError: the template does not write each turn once, as it is.
    """
    if task.format == "dialogue":
        return Borders(task.human_marker.strip(), task.human_marker)
    words = ("firstquestion", "firstanswer", "secondquestion")
    roles = ("human", "assistant", "human")
    turns = [records.Turn(*turn) for turn in zip(roles, words, strict=True)]
    try:
        text = text_tokenizer.chat(turns)
    except ValueError as error:
        raise ValueError(f"{NO_BORDERS}: {error}") from error
    opening, *rest = text.partition(words[0])
    _, _, between = "".join(rest).partition(words[1])
    between = between.partition(words[2])[0]
    if [text.count(word) for word in words] != [1, 1, 1] or not between:
        raise ValueError(NO_BORDERS)
    return Borders(opening, between)


def shorter_prompts(prompt: str, borders: Borders) -> Iterator[str]:
    """Yield the prompt without its oldest turns: down to the last human turn alone.

    Every one begins with a human turn, as the prompt of a conversation does; so a
    question goes together with its answer.
    """
    parts = prompt.split(borders.between)
    for start in range(1, len(parts)):
        yield borders.opening + borders.between.join(parts[start:])


def fit(
    text_tokenizer: tokenizer.Tokenizer,
    groups: Sequence[Sequence[tuple[str, str]]],
    *,
    max_tokens: int,
    rule: str,
    task: tasks.Task,
    border: str = encoding.BY_TEXT,
    closing: int = 0,
) -> list[Fitted]:
    """Return the ids of prompts with their replies, all of at most `max_tokens`.

    The replies of a group stand after the same text: as much of its prompt as leaves
    room for the longest. Where texts are cut on the right, they are cut one by one.

    Args:
      text_tokenizer: of the model.
      groups: each one or more (prompt, reply) of the same prompt, the reply from its
        leading space to its end mark.
      max_tokens: of prompt and reply together.
      rule: "drop", or "shorten_prompt": leave out the oldest turns, as few as will do;
        or "cut_right": the end of the text, mark and reply first, as released.
      task: gives the format, in which turns are told apart.
      border: where a reply begins: see `encoding.join_replies`.
      closing: tokens that come behind a whole text; a cut one has room for as many.
    """
    texts = [text for group in groups for text in group]
    whole = encoding.join_replies(text_tokenizer, texts, border)
    left, borders = iter(whole), None
    fitted = []
    for group in groups:
        joined = tuple(next(left) for _ in group)
        if _longest(joined) <= max_tokens:
            fitted.append(Fitted(joined))
        elif rule == DROP:
            fitted.append(Fitted(()))
        elif rule == CUT_RIGHT:
            fitted.append(_cut(joined, max_tokens, closing))
        else:
            borders = borders or find_borders(task, text_tokenizer)
            fitted.append(_shorten(text_tokenizer, group, max_tokens, borders, border))
    return fitted


def _cut(joined: Sequence[Joined], max_tokens: int, closing: int) -> Fitted:
    room = max_tokens + closing
    whole = tuple(len(ids) <= max_tokens for ids, _ in joined)
    cut = tuple((ids[:room], is_reply[:room]) for ids, is_reply in joined)
    if not all(any(is_reply) for _, is_reply in cut):
        return Fitted(())  # the prompt alone: no reply is left to learn from
    return Fitted(cut, shortened=True, whole=whole)


def _shorten(
    text_tokenizer: tokenizer.Tokenizer,
    group: Sequence[tuple[str, str]],
    max_tokens: int,
    borders: Borders,
    border: str,
) -> Fitted:
    for shorter in shorter_prompts(group[0][0], borders):
        texts = [(shorter, reply) for _, reply in group]
        joined = tuple(encoding.join_replies(text_tokenizer, texts, border))
        if _longest(joined) <= max_tokens:
            return Fitted(joined, shortened=True)
    return Fitted(())


def _longest(joined: Sequence[Joined]) -> int:
    return max(len(ids) for ids, _ in joined)


def count(
    fitted: Sequence[Fitted], identical: Sequence[Fitted] = ()
) -> Mapping[str, int]:
    """Return `length_counts.counts` of texts that were fitted.

    Args:
      fitted: what became of each.
      identical: those of them whose replies are the same and which were dropped for it.
    """
    return length_counts.counts(
        len(fitted),
        dropped=sum(not one.joined for one in fitted),
        shortened=sum(one.shortened for one in fitted)
        - sum(one.shortened for one in identical),
        identical=len(identical),
    )
