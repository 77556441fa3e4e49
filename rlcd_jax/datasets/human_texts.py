"""Texts that people wrote and every installation has: the language reference of Python.

The standard library brings it for `help()`. Where a run has human pairs, the replies
that people preferred are read in their place.
"""

from __future__ import annotations

import platform
from pydoc_data import topics

from rlcd_jax import seeds

SOURCE = f"the language reference that Python {platform.python_version()} brings"
LEAST, MOST = 300, 1200  # letters of a paragraph
OPENING = 8  # words of a paragraph that are given


def load(most: int) -> list[tuple[str, str]]:
    """Return paragraphs of prose, each as its first words and the rest.

    Paragraphs in the order of a hash of their text, one line each; code, lists and
    tables, which are indented or begin with a sign, are none.

    Args:
      most: paragraphs.
    """
    found = {
        " ".join(part.split())
        for text in topics.topics.values()
        for part in text.split("\n\n")
        if part[:1].isalpha() and LEAST <= len(part) <= MOST
    }
    chosen = sorted(found, key=lambda text: seeds.seed_words(0, "human_texts", text))
    return [_parted(text) for text in chosen[:most]]


def _parted(text: str) -> tuple[str, str]:
    words = text.split(" ")
    opening = " ".join(words[:OPENING])
    return opening, text[len(opening) :]
