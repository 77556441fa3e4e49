"""Tables of the readings of pairs: by side, by cell of the grid, by affix pair.

Several pairs of one prompt are one observation: they are averaged before an interval
is made. Means have bootstrap intervals over prompts, shares have Wilson's, which stay
honest at 0 and 1. A figure whose ingredient is not there says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlcd_jax import records, seeds, tasks
from rlcd_jax.diagnosis import pair_readings
from rlcd_jax.pairs import draws
from rlcd_jax.statistics import diversity, estimates, tables, wording
from rlcd_jax.statistics.estimates import Missing

Reading = pair_readings.Reading
Value = Callable[[Any], float | None]

NO_LIKELIHOOD = Missing("no likelihoods were computed")
NO_SCORES = Missing("no scored labels of these replies")
NO_PAIR = Missing("no such pair")
ONE_PROMPT = Missing("both replies are of one prompt")
OWN_LABEL = Missing("the score is the label")


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How intervals are made: seed and size of the bootstrap, coverage."""

    seed: int
    resamples: int
    level: float

    def mean(self, entries: Iterable[tuple[str, float | None]]) -> tables.Cell:
        """Return the mean over prompts of (prompt id, value); None is left out."""
        means = list(estimates.mean_by_prompt(entries).values())
        if len(means) < 2:
            return Missing(f"too few prompts ({len(means)})")
        return estimates.bootstrap_interval(
            means, seed=self.seed, level=self.level, resamples=self.resamples
        )

    def share(self, entries: Iterable[tuple[str, float | None]]) -> tables.Cell:
        """Return the share over prompts of (prompt id, 0 or 1); None is left out."""
        means = list(estimates.mean_by_prompt(entries).values())
        if not means:
            return NO_PAIR
        return estimates.proportion_interval(sum(means), len(means), level=self.level)


def sides_table(readings: Sequence[Reading], how: Intervals) -> tables.Table:
    """Return one row for each side of each cell: what its replies are like."""
    groups: dict[str, list[tuple[Reading, pair_readings.Side]]] = {}
    for reading in readings:
        for name, side in reading.sides:
            groups.setdefault(f"{reading.cell}, {name}", []).append((reading, side))
    cut = wording.equal_amounts(
        [[wording.words(side.text) for _, side in group] for group in groups.values()]
    )
    rows = []
    for (name, group), texts in zip(groups.items(), cut, strict=True):

        def of(value: Value, group=group) -> list[tuple[str, float | None]]:
            return [(reading.prompt_id, value(side)) for reading, side in group]

        same = group[0][0].sampling == "same"
        cells: list[tables.Cell] = [
            len(group),
            how.mean(of(lambda side: side.tokens)),
            how.share(of(lambda side: side.finish == "length")),
            how.share(of(lambda side: side.refuses)),
            *(diversity.distinct_n(texts, n) for n in (1, 2, 3)),
            how.mean(of(lambda side: side.distinct_2)),
            ONE_PROMPT if same else how.share(of(lambda side: bool(side.leaked))),
            ONE_PROMPT if same else how.share(of(lambda side: side.quotes)),
        ]
        rows.append((name, tuple(cells)))
    columns = (
        tables.Column("replies"),
        tables.Column("tokens", 1),
        tables.Column("unfinished, %", 1, percent=True),
        tables.Column("refusals, %", 1, percent=True),
        *(tables.Column(f"distinct-{n}", 3) for n in (1, 2, 3)),
        tables.Column("distinct-2 in a reply", 3),
        tables.Column("words of its affix, %", 1, percent=True),
        tables.Column("its whole affix, %", 1, percent=True),
    )
    amount = sum(map(len, cut[0])) if cut else 0
    notes = (
        f"distinct-n is pooled over the first {amount} words of each row.",
        f"Refusals: an opening with one of {len(wording.REFUSALS)} phrases.",
        "Words of its affix: replies with a word that only their own affix has.",
    )
    return tables.Table("Replies by side", "side", columns, tuple(rows), notes)


def pairs_table(readings: Sequence[Reading], how: Intervals) -> tables.Table:
    """Return one row for each cell: how far apart its two sides are."""
    cells: dict[str, list[Reading]] = {}
    for reading in readings:
        cells.setdefault(reading.cell, []).append(reading)
    judges = _judges(readings)
    columns = [
        tables.Column("pairs"),
        *_contrast_columns(),
        tables.Column("scored: first is better, %", 1, percent=True),
        tables.Column("scored: probability", 3),
        tables.Column("scored: order flips it, %", 1, percent=True),
    ]
    for judge in judges:
        columns.append(tables.Column(f"{judge} agrees with label, %", 1, percent=True))
        columns.append(tables.Column(f"{judge} difference", 3))
    rows = []
    for name, group in cells.items():
        row = [len(group), *_contrast_cells(group, how), *_scored_cells(group, how)]
        for judge in judges:
            row.append(how.share(_of(group, lambda r, j=judge: _agrees(r, j))))
            row.append(how.mean(_of(group, lambda r, j=judge: r.outside[j])))
        rows.append((name, tuple(row)))
    notes = [
        "First side: positive in contrast cells, preferred by the label in others. "
        "Differences are first less second; equal scores and labels of 0.5 are left "
        "out of agreements.",
        "Margins: how many nats likelier a reply is under its own prompt; told apart: "
        "pairs whose two margins have a positive sum.",
    ]
    if not judges:
        notes.append("Agreement with an outside score: missing, none was given.")
    return tables.Table(
        "Pairs by cell", "cell", tuple(columns), tuple(rows), tuple(notes)
    )


def drops_table(
    readings: Sequence[Reading], dropped: Sequence[records.Dropped], how: Intervals
) -> tables.Table:
    """Return one row for each side of each sampling: what the clean-up cost it."""
    rows = []
    for sampling in dict.fromkeys(r.sampling for r in [*readings, *dropped]):
        kept = pair_readings.one_each([r for r in readings if r.sampling == sampling])
        lost = [d for d in dropped if d.sampling == sampling]
        long = {records.key_of(d) for d in lost if d.reason == draws.TOO_LONG}
        contrasts = sampling in records.CONTRASTING
        sides = ("positive", "negative") if contrasts else ("plain",)
        if contrasts and any(d.side == "plain" for d in lost):
            sides += ("plain",)  # the grade between, of which no pair says the tries
        for number, side in enumerate(sides):
            tries = [
                (r.prompt_id, float(r.sides[n][1].tries))
                for r in kept
                for n in ((number,) if contrasts else (0, 1))
                if n < 2
            ]
            cells = (drop_rate(kept, lost, side, how), how.mean(tries), len(long))
            rows.append((f"{sampling}, {side}", cells))
    columns = (
        tables.Column("dropped for it, %", 1, percent=True),
        tables.Column("tries of the kept", 2),
        tables.Column("prompts too long"),
    )
    notes = (
        "Dropped: prompts lost because no try at this side gave a clean reply, of all "
        "that were sampled. Unequal sides mean that the pairs are a selection.",
    )
    return tables.Table("Drops by side", "side", columns, tuple(rows), notes)


def affixes_table(
    readings: Sequence[Reading],
    dropped: Mapping[int, Sequence[records.Dropped]] | None,
    task: tasks.Task,
    how: Intervals,
) -> tables.Table:
    """Return one row for each affix pair: what its contrast does.

    Args:
      readings: of a run; only contrast pairs count, and each pair of replies once.
      dropped: sides that gave no reply, by affix index, from `dropped_by_affix`; None:
        not known.
      task: of the run.
      how: to make intervals.
    """
    contrast = pair_readings.one_each([r for r in readings if r.sampling == "contrast"])
    judges = _judges(contrast)
    columns = [tables.Column("pairs"), *_contrast_columns()]
    for what in ("refusals", "words of its affix", "dropped"):
        for sign in "+-":
            columns.append(tables.Column(f"{what} {sign}, %", 1, percent=True))
    columns.append(tables.Column("scored: positive is better, %", 1, percent=True))
    columns += [tables.Column(f"{judge} difference", 3) for judge in judges]
    rows = []
    for index in range(len(task.affixes)):
        group = [r for r in contrast if r.affix_index == index]
        positive, negative = pair_readings.contrast_texts(task, index)
        row = [len(group), *_contrast_cells(group, how)]
        for value in (lambda side: side.refuses, lambda side: bool(side.leaked)):
            row.append(how.share(_of(group, lambda r, v=value: v(r.first))))
            row.append(how.share(_of(group, lambda r, v=value: v(r.second))))
        for side in ("positive", "negative"):
            row.append(
                Missing("affixes of dropped prompts are not known")
                if dropped is None
                else drop_rate(group, dropped.get(index, ()), side, how)
            )
        row.append(_scored_cells(group, how)[0])
        row += [how.mean(_of(group, lambda r, j=j: r.outside[j])) for j in judges]
        rows.append((f"{index}: {positive} / {negative}", tuple(row)))
    return tables.Table("Affix pairs", "affix pair", tuple(columns), tuple(rows))


def dropped_by_affix(
    pairs: Sequence[records.Pair], dropped: Sequence[records.Dropped], task: tasks.Task
) -> dict[int, list[records.Dropped]] | None:
    """Return the dropped sides of contrast prompts by affix index, if it can be known.

    The affix of a prompt is a keyed draw, so it can be drawn again from the run's seed;
    None when the pairs that were kept do not have the affixes that this gives.
    """
    contrast = [pair for pair in pairs if pair.sampling == "contrast"]
    if len({pair.seed for pair in contrast}) != 1:
        return None
    seed, num = contrast[0].seed, len(task.affixes)

    def draw(of: records.Pair | records.Dropped) -> int:
        return seeds.seed_choice(num, seed, "affix", records.key_of(of))

    if any(draw(pair) != pair.affix_index for pair in contrast):
        return None
    groups: dict[int, list[records.Dropped]] = {}
    for one in dropped:
        if one.sampling == "contrast":
            groups.setdefault(draw(one), []).append(one)
    return groups


def drop_rate(
    kept: Sequence[Reading],
    dropped: Sequence[records.Dropped],
    side: str,
    how: Intervals,
) -> tables.Cell:
    """Return the share of sampled prompts that gave no pair because of one side.

    Prompts that were too long to be sampled do not count.
    """
    failed = [d for d in dropped if d.reason != draws.TOO_LONG]
    tried = {records.key_of(one): one.prompt_id for one in (*kept, *failed)}
    lost = {records.key_of(d) for d in failed if d.side == side}
    return how.share((tried[key], key in lost) for key in sorted(tried))


def _judges(readings: Sequence[Reading]) -> list[str]:
    return list(dict.fromkeys(name for r in readings for name in r.outside))


def _of(group: Sequence[Reading], value: Value) -> list[tuple[str, float | None]]:
    return [(reading.prompt_id, value(reading)) for reading in group]


def _contrast_columns() -> list[tables.Column]:
    return [
        tables.Column("length gap, tokens", 1),
        tables.Column("overlap", 3),
        tables.Column("margin of first, nats", 2),
        tables.Column("margin of second, nats", 2),
        tables.Column("told apart, %", 1, percent=True),
    ]


def _contrast_cells(group: Sequence[Reading], how: Intervals) -> list[tables.Cell]:
    """Return length gap, overlap and the figures of likelihood."""
    gap = how.mean(_of(group, lambda r: r.first.tokens - r.second.tokens))
    overlap = how.mean(_of(group, lambda r: r.overlap))
    if not group:
        return [NO_PAIR] * 5
    if group[0].sampling == "same":
        return [gap, overlap, ONE_PROMPT, ONE_PROMPT, ONE_PROMPT]
    known = [r for r in group if r.first.margin is not None]
    if not known:
        return [gap, overlap, NO_LIKELIHOOD, NO_LIKELIHOOD, NO_LIKELIHOOD]
    return [
        gap,
        overlap,
        how.mean(_of(known, lambda r: r.first.margin)),
        how.mean(_of(known, lambda r: r.second.margin)),
        how.share(_of(known, _told_apart)),
    ]


def _told_apart(reading: Reading) -> float:
    total = reading.first.margin + reading.second.margin
    return 0.5 if total == 0 else float(total > 0)


def _scored_cells(group: Sequence[Reading], how: Intervals) -> list[tables.Cell]:
    """Return what a scoring model says of the pairs, and how often it flips."""
    known = [r for r in group if r.scored is not None]
    if not group:
        return [NO_PAIR] * 3
    if not known:
        return [NO_SCORES, NO_SCORES, NO_SCORES]
    flips = how.share(_of(known, lambda r: r.flipped))
    if isinstance(flips, Missing):
        flips = Missing("asked in one order only")
    if known[0].sampling == "same":
        return [OWN_LABEL, how.mean(_of(known, lambda r: r.scored)), flips]
    clear = [r for r in known if r.scored != 0.5]
    return [
        how.share(_of(clear, lambda r: r.scored > 0.5)),
        how.mean(_of(known, lambda r: r.scored)),
        flips,
    ]


def _agrees(reading: Reading, judge: str) -> float | None:
    """Return whether the label and an outside score choose the same side."""
    gap = reading.outside[judge]
    if gap == 0 or reading.label == 0.5:
        return None
    return float((gap > 0) == (reading.label > 0.5))
