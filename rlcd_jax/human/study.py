"""Who judges what, in which order, and on which side each system is shown.

Every choice is a function of (seed, annotator, prompt id), so that a study can be made
again. The first system is on the left as often as on the right for each annotator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from rlcd_jax import done_mark, records, schema, seeds
from rlcd_jax.human import checks
from rlcd_jax.judging import verdicts

Side = Literal["A", "B"]
Kind = Literal["pair", "repeat", "gold"]

LOWEST, HIGHEST = 1, 8  # of the scale; 1: A is much better, 8: B is much better


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study asks. `identical` prompts had the same reply by both systems.

    A score says how much better the second system is: 9 minus it is the score of the
    first. `shared` of an annotator's `per_annotator` pairs are judged by everyone.
    """

    id: str = schema.filled()
    task: str = schema.filled()
    question_name: str = schema.filled()
    question: str = schema.filled()
    system_1: str = schema.filled()
    system_2: str = schema.filled()
    annotators: tuple[str, ...] = schema.filled()
    per_annotator: int = schema.between(1, records.MOST)
    shared: int = schema.between(0, records.MOST)
    repeats: int = schema.between(0, records.MOST)
    gold: int = schema.between(0, records.MOST)
    identical: int = schema.between(0, records.MOST)
    seed: int

    def __post_init__(self):
        schema.validate(self)
        if len(set(self.annotators)) < len(self.annotators):
            raise ValueError(
                f"field 'annotators' is {schema.shown(self.annotators)}; accepted: "
                "each once"
            )
        if self.system_1 == self.system_2:
            raise ValueError(
                f"field 'system_2' is {self.system_2!r}, as is 'system_1'; accepted: "
                "two systems"
            )
        if self.shared > self.per_annotator:
            raise ValueError(
                f"field 'shared' is {self.shared}; accepted: up to 'per_annotator', "
                f"{self.per_annotator}"
            )


@dataclasses.dataclass(frozen=True)
class KeyLine:
    """What an item of a sheet is; one line of the key, which no annotator sees.

    `side_2` is the side on which the second system's reply is shown or, for a gold
    check, the better reply. A repeat shows the pair of `repeat_of` with sides changed.
    """

    annotator: str
    item: str
    kind: Kind
    prompt_id: str
    side_2: Side
    repeat_of: str | None
    draw: int | None = schema.between(0, records.MOST, default=None)

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Item:
    """What an annotator is shown."""

    item: str
    prompt: str
    reply_a: str
    reply_b: str


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The items of one annotator in order, and their key."""

    annotator: str
    items: tuple[Item, ...]
    key: tuple[KeyLine, ...]


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A pair on its way into a sheet; replies of the second system, or the better."""

    kind: Kind
    prompt_id: str
    prompt: str
    reply_1: str
    reply_2: str
    side_2: Side
    draw: int | None = None


def make_study(
    samples: Iterable[verdicts.JudgedReply],
    systems: tuple[str, str],
    *,
    task: str,
    question: tuple[str, str],
    num_annotators: int,
    per_annotator: int,
    shared: int,
    repeats: int,
    gold: Sequence[checks.Gold],
    seed: int,
    show_identical: bool = False,
) -> tuple[Study, tuple[Sheet, ...]]:
    """Arrange a study.

    Args:
      samples: replies of at least the two systems. Of several draws of a prompt the
        first is used, so that prompts are independent.
      systems: names of the first and of the second system.
      task: name of the task, for the tables.
      question: name and text of what is asked.
      num_annotators: how many sheets.
      per_annotator: different pairs in each sheet, without the checks.
      shared: of these, how many are in every sheet; the others are in one sheet only.
      repeats: pairs that are shown again, sides changed, at least a sixth of the sheet
        later; at most a third of the pairs.
      gold: checks that are in every sheet.
      seed: of all choices.
      show_identical: whether two replies that are the same are judged too.

    Returns:
      The study and its sheets.

    Raises:
      ValueError: too few prompts, or a system without replies.
    """
    _check_sizes(num_annotators, per_annotator, shared, repeats)
    pairs, identical = comparisons(samples, systems, show_identical=show_identical)
    order = _order(seed, "prompts")
    shares = _shares(pairs, num_annotators, per_annotator, shared, order)
    names = tuple(f"annotator-{n}" for n in range(1, num_annotators + 1))
    made = tuple(
        _sheet(name, number, share, repeats, gold, seed)
        for number, (name, share) in enumerate(zip(names, shares, strict=True))
    )
    facts: dict[str, Any] = {
        "task": task,
        "question_name": question[0],
        "question": question[1],
        "system_1": systems[0],
        "system_2": systems[1],
        "annotators": names,
        "per_annotator": per_annotator,
        "shared": shared,
        "repeats": repeats,
        "gold": len(gold),
        "identical": identical,
        "seed": seed,
    }
    shown = [dataclasses.asdict(item) for sheet in made for item in sheet.items]
    return Study(done_mark.config_hash({**facts, "items": shown}), **facts), made


def comparisons(
    samples: Iterable[verdicts.JudgedReply],
    systems: tuple[str, str],
    *,
    show_identical: bool = False,
) -> tuple[list[tuple[verdicts.JudgedReply, verdicts.JudgedReply]], int]:
    """Return the pairs that are shown, and how many identical ones are not.

    A scale without a tie makes noise of identical replies, so that they are shown only
    where that is asked for.

    Raises:
      ValueError: the systems are not two of the samples', or one has two replies to a
        prompt.
    """
    chosen: dict[tuple[str, str], verdicts.JudgedReply] = {}
    known: dict[str, None] = {}
    seen: set[tuple[str, int | None, str]] = set()
    for sample in samples:
        known[sample.system] = None
        if sample.system not in systems:
            continue
        one = (sample.prompt_id, sample.draw, sample.system)
        if one in seen:
            raise ValueError(
                f"system {sample.system!r} has two replies to prompt "
                f"{sample.prompt_id!r}; give one, or number them in the field 'draw'"
            )
        seen.add(one)
        chosen.setdefault((sample.prompt_id, sample.system), sample)
    if systems[0] == systems[1] or not set(systems) <= known.keys():
        raise ValueError(
            f"systems are {systems[0]!r} and {systems[1]!r}; accepted: two of "
            + ", ".join(repr(name) for name in known)
        )
    ordered = [s for name in systems for s in chosen.values() if s.system == name]
    contests = verdicts.contests(ordered)
    pairs = [
        (one, two)
        for one, two in contests
        if show_identical or one.reply.strip() != two.reply.strip()
    ]
    return pairs, len(contests) - len(pairs)


def _order(seed: int, *parts: str) -> Callable[[Sequence[Any]], list[Any]]:
    """Return a function that puts pairs or entries into an order by hash."""

    def name(thing: Any) -> tuple[str, ...]:
        if isinstance(thing, _Entry):
            return thing.kind, records.key_of(thing)
        return (records.key_of(thing[0]),)

    def order(things: Sequence[Any]) -> list[Any]:
        return sorted(
            things,
            key=lambda thing: seeds.seed_words(seed, "human", *parts, *name(thing)),
        )

    return order


def _check_sizes(
    num_annotators: int, per_annotator: int, shared: int, repeats: int
) -> None:
    if num_annotators < 1:
        raise ValueError(f"annotators is {num_annotators}; accepted: 1 or more")
    if per_annotator < 1 or not 0 <= shared <= per_annotator:
        raise ValueError(
            f"per_annotator is {per_annotator} and shared is {shared}; accepted: "
            "per_annotator 1 or more, shared from 0 to per_annotator"
        )
    if not 0 <= repeats <= per_annotator // 3:
        raise ValueError(
            f"repeats is {repeats}; accepted: 0 to {per_annotator // 3}, a third of "
            f"the {per_annotator} pairs of a sheet; change repeats or per_annotator"
        )


def _shares(pairs, num_annotators: int, per_annotator: int, shared: int, order) -> list:
    """Return the pairs of each annotator: shared ones, and ones of their own."""
    own = per_annotator - shared
    needed = shared + own * num_annotators
    if needed > len(pairs):
        raise ValueError(
            f"the study needs {needed} prompts ({shared} shared, {own} for each of "
            f"{num_annotators} annotators alone) and there are {len(pairs)} with "
            "different replies; lower per_annotator, raise shared, or sample more"
        )
    ordered = order(pairs)
    common, rest = ordered[:shared], ordered[shared:]
    return [common + rest[n * own : (n + 1) * own] for n in range(num_annotators)]


def _sheet(
    name: str, number: int, pairs, repeats: int, gold: Sequence[checks.Gold], seed: int
) -> Sheet:
    """Arrange one annotator's items; annotator `number` starts with the other side."""
    pairs = _order(seed, name, "order")(pairs)
    early = pairs[: len(pairs) // 3]
    originals = _order(seed, name, "repeats")(early)[:repeats]
    taken = {one.prompt_id for one, _ in originals}
    rest = [pair for pair in pairs if pair[0].prompt_id not in taken]
    by_side = originals + _order(seed, name, "sides")(rest)
    entries = {
        one.prompt_id: _Entry(
            "pair",
            one.prompt_id,
            one.prompt,
            one.reply,
            two.reply,
            _side(n + number),
            one.draw,
        )
        for n, (one, two) in enumerate(by_side)
    }
    again = [
        dataclasses.replace(entry, kind="repeat", side_2=_other(entry.side_2))
        for entry in (entries[one.prompt_id] for one, _ in originals)
    ]
    line = [entries[one.prompt_id] for one, _ in pairs]
    half = len(line) // 2
    line = line[:half] + _order(seed, name, "later")(line[half:] + again)
    for n, check in enumerate(gold):
        entry = _Entry("gold", f"gold-{n + 1}", *_texts(check), _side(n + number))
        place = seeds.seed_choice(len(line) + 1, seed, "human", name, "gold", n)
        line.insert(place, entry)
    return _number(name, line)


def _texts(check: checks.Gold) -> tuple[str, str, str]:
    return check.prompt, check.worse, check.better


def _side(number: int) -> Side:
    return "B" if number % 2 == 0 else "A"


def _other(side: Side) -> Side:
    return "A" if side == "B" else "B"


def _number(name: str, line: Sequence[_Entry]) -> Sheet:
    """Give the entries their ids and put the replies on their sides."""
    ids = [f"{name}-{position:03d}" for position in range(1, len(line) + 1)]
    first = {e.prompt_id: i for i, e in zip(ids, line, strict=True) if e.kind == "pair"}
    items, key = [], []
    for item, entry in zip(ids, line, strict=True):
        replies = (entry.reply_1.strip(), entry.reply_2.strip())
        reply_a, reply_b = replies if entry.side_2 == "B" else replies[::-1]
        items.append(Item(item, entry.prompt.strip(), reply_a, reply_b))
        origin = first[entry.prompt_id] if entry.kind == "repeat" else None
        key.append(
            KeyLine(
                name,
                item,
                entry.kind,
                entry.prompt_id,
                entry.side_2,
                origin,
                entry.draw,
            )
        )
    return Sheet(name, tuple(items), tuple(key))
