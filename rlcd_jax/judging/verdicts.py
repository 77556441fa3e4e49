"""What judges say about systems: samples, scores and verdicts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from rlcd_jax import records, schema, seeds
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.statistics import estimates, win_rates


@dataclasses.dataclass(frozen=True)
class JudgedReply:
    """The reply of one system to one prompt; `prompt` is the plain dialogue."""

    prompt_id: str
    system: str
    prompt: str
    reply: str
    draw: int | None = schema.between(
        0, records.MOST, default=None
    )  # of the prompt; None: one

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Score:
    """What a judge of single replies gave to one reply."""

    prompt_id: str
    judge: str
    system: str
    score: float
    draw: int | None = schema.between(0, records.MOST, default=None)

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a judge said about two systems on one prompt.

    `winner` is "none" when an answer could not be read; `flips` is 1 when the choice
    changed with the order; `unparsed` counts answers that could not be read; scores
    are those of single replies, or the mean log-odds of being chosen; lengths are in
    words; `answers` are the texts of a judge that answers in text.
    """

    prompt_id: str
    judge: str
    system_1: str
    system_2: str
    winner: Literal["1", "2", "tie", "none"]
    length_1: int = schema.between(0, records.MOST)
    length_2: int = schema.between(0, records.MOST)
    score_1: float | None = None
    score_2: float | None = None
    flips: int = schema.between(0, records.MOST, default=0)
    unparsed: int = schema.between(0, records.MOST, default=0)
    answers: tuple[str, ...] = ()
    draw: int | None = schema.between(0, records.MOST, default=None)

    def __post_init__(self):
        schema.validate(self)

    @property
    def points(self) -> float:
        """Points of the first system: 1, 0, or 0.5 when there is no winner."""
        return {"1": 1.0, "2": 0.0}.get(self.winner, 0.5)


def make_verdict(
    judge: str, one: JudgedReply, two: JudgedReply, winner: str, **fields: object
) -> Verdict:
    """Return a verdict on two samples, with their names and lengths."""
    return Verdict(
        prompt_id=one.prompt_id,
        draw=one.draw,
        judge=judge,
        system_1=one.system,
        system_2=two.system,
        winner=winner,
        length_1=len(one.reply.split()),
        length_2=len(two.reply.split()),
        **fields,
    )


def orders(
    one: JudgedReply, two: JudgedReply, *, both_orders: bool
) -> tuple[bool, ...]:
    """Return in which orders two replies are shown side by side; True: `two` first.

    In both, or in one by a coin that is keyed by prompt and systems, so that each pair
    is asked about once.

    Source: RLCD Appendix F.2 for the coin.
    """
    if both_orders:
        return False, True
    names = (records.key_of(one), one.system, two.system)
    return (bool(seeds.seed_choice(2, 0, "shown", *names)),)


def side_by_side(
    samples: Iterable[JudgedReply], *, both_orders: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield what a judge of two replies is shown: the dialogue, (A) and (B).

    For each of `contests` in each of `orders`, without those that are told unjudged.
    """
    for one, two in contests(samples):
        if plain_winner(one, two):
            continue
        both = (one.reply, two.reply)
        dialogue, (first, second) = scoring_prompt.whole_turns(one.prompt, both)
        for swapped in orders(one, two, both_orders=both_orders):
            yield (dialogue, second, first) if swapped else (dialogue, first, second)


def plain_winner(one: JudgedReply, two: JudgedReply) -> Literal["1", "2", "tie"] | None:
    """Return who wins without being judged, or None where a judge must say.

    Nothing said is worse than anything said, whatever a score of nothing is; two
    replies that are empty, or the same, tie.
    """
    if is_empty(one) or is_empty(two):
        return (
            "tie" if is_empty(one) == is_empty(two) else "2" if is_empty(one) else "1"
        )
    return "tie" if one.reply == two.reply else None


def is_empty(sample: JudgedReply) -> bool:
    """Return whether nothing of a reply is seen."""
    return schema.is_blank(sample.reply)


def count_empty(samples: Iterable[JudgedReply]) -> dict[str, int]:
    """Return how many replies of each system are empty."""
    counts: dict[str, int] = {}
    for sample in samples:
        counts[sample.system] = counts.get(sample.system, 0) + is_empty(sample)
    return counts


def seen_from(verdict: Verdict, system: str) -> Verdict:
    """Return a verdict with `system` as the first of its two systems.

    Raises:
      ValueError: the verdict is about two other systems.
    """
    if verdict.system_1 == system:
        return verdict
    if verdict.system_2 != system:
        raise ValueError(
            f"the verdict on prompt {verdict.prompt_id!r} is about "
            f"{verdict.system_1!r} and {verdict.system_2!r}, not {system!r}"
        )
    return dataclasses.replace(
        verdict,
        system_1=verdict.system_2,
        system_2=verdict.system_1,
        winner={"1": "2", "2": "1"}.get(verdict.winner, verdict.winner),
        length_1=verdict.length_2,
        length_2=verdict.length_1,
        score_1=verdict.score_2,
        score_2=verdict.score_1,
    )


def equal_length_rate(
    verdicts: Sequence[Verdict], *, level: float = 0.95
) -> estimates.Estimate | estimates.Missing:
    """Estimate the win rate that is left when both replies are equally long.

    All draws and seeds of a prompt enter the regression; they are one cluster.

    Args:
      verdicts: by one judge on one first and one second system.
      level: coverage of the interval.

    Returns:
      What `win_rates.length_controlled_win_rate` says.

    Raises:
      ValueError: the verdicts are by several judges or on several pairs of systems.
    """
    sides = {(v.judge, v.system_1, v.system_2) for v in verdicts}
    if len(sides) > 1:
        raise ValueError(
            f"verdicts are about {sorted(sides)}; accepted: one judge, one first and "
            "one second system"
        )
    return win_rates.length_controlled_win_rate(
        [v.points for v in verdicts],
        [v.length_1 for v in verdicts],
        [v.length_2 for v in verdicts],
        prompts=[v.prompt_id for v in verdicts],
        level=level,
    )


def contests(samples: Iterable[JudgedReply]) -> list[tuple[JudgedReply, JudgedReply]]:
    """Return all pairs of replies to one draw of a prompt by two systems.

    Args:
      samples: each system's reply to each draw of each prompt, once, in any order.

    Returns:
      Pairs in the order in which systems and prompts first occur; the system that
      occurs first is the first of a pair.

    Raises:
      ValueError: a reply is missing or there twice, or a prompt has two texts.
    """
    table: dict[tuple[str, str], JudgedReply] = {}
    texts: dict[str, str] = {}
    systems: dict[str, None] = {}
    for sample in samples:
        prompt = records.key_of(sample)
        key = (prompt, sample.system)
        if key in table:
            raise ValueError(
                f"system {sample.system!r} has two replies to prompt {prompt!r}; give "
                "one, or number them in the field 'draw'"
            )
        if texts.setdefault(prompt, sample.prompt) != sample.prompt:
            raise ValueError(
                f"prompt {prompt!r} is shown to system {sample.system!r} with another "
                "text than to the system before; compare on one text"
            )
        table[key] = sample
        systems[sample.system] = None
    for prompt, system in itertools.product(texts, systems):
        if (prompt, system) not in table:
            raise ValueError(
                f"system {system!r} has no reply to prompt {prompt!r}; every system "
                "must answer every prompt"
            )
    return [
        (table[prompt, one], table[prompt, two])
        for one, two in itertools.combinations(systems, 2)
        for prompt in texts
    ]
