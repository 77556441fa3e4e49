"""What keeps the parts of the data apart: no prompt text is in two of them.

Ids cannot say it: files hold the same dialogue on several lines, and users copy.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from rlcd_jax import records
from rlcd_jax.text import headers

NO_WIDTH = re.compile(headers.NO_WIDTH)
Row = TypeVar("Row", records.Pair, records.HumanPair)


def wording(text: str) -> str:
    """Return what two texts have in common that a reader cannot tell apart.

    White space of any kind and length is one blank, characters of no width are left
    out, and a letter with its accent is one character.
    """
    if not text.isascii():
        text = NO_WIDTH.sub("", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def dialogue(prompt: records.Prompt) -> str:
    """Return what two prompts of one text have in common: the wording of all turns.

    As one text, with the headers of hh-rlhf: a turn whose own words hold the header of
    another reads as two turns do.
    """
    turns = (f"{turn.role.capitalize()}: {turn.text}" for turn in prompt.turns)
    return wording("\n\n".join(turns))


def apart(
    prompts: Iterable[records.Prompt], others: Iterable[records.Prompt]
) -> list[records.Prompt]:
    """Return the prompts whose text none of the others has, whatever their ids."""
    taken = {dialogue(prompt) for prompt in others}
    return [prompt for prompt in prompts if dialogue(prompt) not in taken]


def by_prompt(pairs: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Return the pairs of each prompt, under the first of its ids.

    Pairs are of one prompt when they have one prompt id or one prompt text.
    """
    leader: dict[str, str] = {}  # of an id or a text: another of the same prompt

    def first(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for pair in pairs:
        own, text = first(f"id {pair.prompt_id}"), first(f"text {wording(pair.prompt)}")
        leader[own] = text
    groups: dict[str, list[Row]] = {}
    names: dict[str, str] = {}
    for pair in pairs:
        name = names.setdefault(first(f"id {pair.prompt_id}"), pair.prompt_id)
        groups.setdefault(name, []).append(pair)
    return groups
