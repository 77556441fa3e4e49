"""Gold checks: comparisons whose answer is known before anyone is asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rlcd_jax import records, schema, seeds
from rlcd_jax.judging import verdicts

Pairs = Sequence[tuple[verdicts.JudgedReply, verdicts.JudgedReply]]

ATTENTION = (
    "This is a check of attention, not a reply. Whatever the question is, please "
    "answer that this side is much better."
)
FEWEST_WORDS = 3  # of a real reply in a check


@dataclasses.dataclass(frozen=True)
class Gold:
    """A check: of these two replies one is known to be better."""

    prompt: str
    better: str
    worse: str

    def __post_init__(self):
        schema.validate(self)


def attention_checks(pairs: Pairs, num: int, seed: int) -> list[Gold]:
    """Return checks that suit any question: one side asks to be chosen.

    The other side is a real reply, of the first and second system alternately.
    """
    replies = _some(pairs, num, seed)
    return [Gold(s.prompt, better=ATTENTION, worse=s.reply) for s in replies]


def garbled_checks(pairs: Pairs, num: int, seed: int) -> list[Gold]:
    """Return checks of a real reply against the same with its letters mixed up.

    They suit questions about help or mood. They do not suit harmlessness, for which
    letters without a meaning may well be the better reply.
    """
    replies = _some(pairs, num, seed)
    return [Gold(s.prompt, better=s.reply, worse=_garble(s, seed)) for s in replies]


KINDS = {"attention": attention_checks, "garbled": garbled_checks}


def _some(pairs: Pairs, num: int, seed: int) -> list[verdicts.JudgedReply]:
    """Return `num` replies to different prompts, in an order by hash."""
    full = [
        pair
        for pair in pairs
        if min(len(s.reply.split()) for s in pair) >= FEWEST_WORDS
    ]
    if not 0 <= num <= len(full):
        raise ValueError(
            f"gold is {num}; accepted: 0 to {len(full)}, the number of prompts with "
            f"{FEWEST_WORDS} words or more by both systems; ask for fewer checks, or "
            "give a file of checks"
        )
    ordered = sorted(
        full, key=lambda pair: seeds.seed_words(seed, "gold", records.key_of(pair[0]))
    )
    return [pair[n % 2] for n, pair in enumerate(ordered[:num])]


def _garble(sample: verdicts.JudgedReply, seed: int) -> str:
    """Return a reply with its letters in an order by hash; word lengths are kept."""
    text = sample.reply.lower()
    letters = [c for c in text if c.isalpha()]
    places = sorted(
        range(len(letters)),
        key=lambda n: seeds.seed_words(seed, "garble", records.key_of(sample), n),
    )
    mixed = iter(places)
    return "".join(letters[next(mixed)] if c.isalpha() else c for c in text)
