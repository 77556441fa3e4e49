"""The table of one run: every system against the base model, with intervals.

Several replies to one prompt are one observation: they are averaged before anything
is resampled, so that the intervals are over prompts.

`TEXT_COLUMNS` is the one table of what is read off the replies themselves: a new column
is a row there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rlcd_jax.judging import judges, verdicts
from rlcd_jax.statistics import diversity, estimates, tables

BASE = "base"
NO_BASE = "the base model itself"
NOT_PLAIN = re.compile(r"[^\w.-]+", re.ASCII)  # which names of trackers may not have

Interval = Callable[[Iterable[tuple[str, float]]], tables.Cell]
Cell = Callable[[Sequence[Any], Interval], tables.Cell]


@dataclasses.dataclass(frozen=True)
class TextColumn:
    """A column that is read off the replies themselves.

    Attributes:
      column: its name, and how its numbers are shown.
      cell: returns its cell, from the replies of one system and the function that makes
        an interval of (prompt id, value) of each reply.
    """

    column: tables.Column
    cell: Cell


def _mean(value: Callable[[Any], float]) -> Cell:
    """Return cells with the mean of a number that each reply has."""
    return lambda own, interval: interval((a.prompt_id, value(a)) for a in own)


def _divergence(own: Sequence[Any], interval: Interval) -> tables.Cell:
    if own[0].system == BASE:
        return estimates.Missing(NO_BASE)
    if own[0].best_of:
        return at_most(own[0].divergence)
    return interval((a.prompt_id, a.divergence) for a in own)


def _distinct_2(own: Sequence[Any], interval: Interval) -> tables.Cell:
    del interval  # of all replies together
    return diversity.distinct_n([a.reply.split() for a in own], 2)


def at_most(nats: float) -> str:
    """Return the cell of a KL that is a bound, and not measured."""
    return f"at most {nats:.2f}"


TEXT_COLUMNS = (
    TextColumn(tables.Column("KL, nats a reply", 2), _divergence),
    TextColumn(tables.Column("tokens", 1), _mean(lambda a: a.num_tokens)),
    TextColumn(tables.Column("finished", 2), _mean(lambda a: a.finish != "length")),
    TextColumn(tables.Column("distinct-2", 3), _distinct_2),
)


def comparison_table(
    answers: Sequence[Any],
    scores: Sequence[verdicts.Score],
    judged: Sequence[verdicts.Verdict],
    *,
    caption: str,
    preference: Mapping[str, Any] | None,
    seed: int,
    level: float,
    resamples: int,
    both_orders: bool = True,
) -> tables.Table:
    """Return one row a system.

    Args:
      answers: replies of all systems, with lengths and divergences.
      scores: single scores by judges that score replies one at a time.
      judged: pairwise verdicts.
      caption: of the table.
      preference: summary of the run's preference model, noted below the table.
      seed: of the bootstrap.
      level: coverage of the intervals.
      resamples: of the bootstrap.
      both_orders: whether judges of two replies saw them in both orders.

    Returns:
      Columns: each judge's mean score, each judge's win rate over the base model and
      what is left of it at equal length, and `TEXT_COLUMNS`: KL from the base model,
      tokens a reply, share of replies that ended by themselves, distinct bigrams.
    """

    def interval(entries: Iterable[tuple[str, float]]) -> tables.Cell:
        means = list(estimates.mean_by_prompt(entries).values())
        if len(means) < 2:
            return estimates.Missing("fewer than two prompts")
        return estimates.bootstrap_interval(
            means, seed=seed, level=level, resamples=resamples
        )

    score_judges = list(dict.fromkeys(score.judge for score in scores))
    win_judges = list(dict.fromkeys(verdict.judge for verdict in judged))
    columns = [tables.Column(f"{name} score", 3) for name in score_judges]
    for name in win_judges:
        columns.append(tables.Column(f"{name} win rate", 3))
        columns.append(tables.Column(f"{name} at equal length", 3))
    rows = []
    for system in dict.fromkeys(answer.system for answer in answers):
        own = [answer for answer in answers if answer.system == system]
        cells = [interval(_scores_of(scores, judge, system)) for judge in score_judges]
        for judge in win_judges:
            cells += _win_cells(judged, judge, system, interval, level)
        cells += [text.cell(own, interval) for text in TEXT_COLUMNS]
        rows.append((system, tuple(cells)))
    return tables.Table(
        caption=caption,
        row_header="system",
        columns=(*columns, *(text.column for text in TEXT_COLUMNS)),
        rows=tuple(rows),
        notes=(
            *_notes(judged, preference, level, both_orders),
            *best_of_notes(answers),
            *_empty_note(answers),
        ),
    )


def figures(
    table: tables.Table, policy: str, under: str = "evaluate"
) -> dict[str, float]:
    """Return a table's numbers by name, for trackers; what is missing is left out.

    Args:
      table: of `comparison_table`.
      policy: name of the run's own system, which is "policy" here, so that runs of
        other methods have the same names.
      under: what all names begin with.

    Returns:
      `UNDER/SYSTEM/COLUMN`, and of an estimate with `_low`, `_high` and `_num`.
    """
    own: dict[str, float] = {}
    systems = [name for name, _ in table.rows]
    for name, cells in table.rows:
        system = "policy" if name == policy and "policy" not in systems else name
        for column, cell in zip(table.columns, cells, strict=True):
            plain = [NOT_PLAIN.sub("_", part) for part in (system, column.name)]
            path = "/".join([under, *plain])
            if isinstance(cell, estimates.Estimate):
                own[path] = cell.value
                own |= {f"{path}_low": cell.low, f"{path}_high": cell.high}
                own[f"{path}_num"] = cell.num
            elif isinstance(cell, int | float):
                own[path] = cell
    return own


def _win_cells(judged, judge: str, system: str, interval, level: float) -> list[Any]:
    """Return a system's win rates over the base model by one judge: plain, controlled.

    A verdict that could not be read is half a win, as in the paper; a note counts them.
    """
    if system == BASE:
        return [estimates.Missing(NO_BASE)] * 2
    own = [
        verdicts.seen_from(verdict, system)
        for verdict in judged
        if verdict.judge == judge
        if {verdict.system_1, verdict.system_2} == {system, BASE}
    ]
    return [
        interval((verdict.prompt_id, verdict.points) for verdict in own),
        verdicts.equal_length_rate(own, level=level),
    ]


def _scores_of(scores, judge: str, system: str) -> list[tuple[str, float]]:
    return [
        (score.prompt_id, score.score)
        for score in scores
        if score.judge == judge and score.system == system
    ]


def best_of_notes(answers: Sequence[Any]) -> list[str]:
    """Return what the best of several replies is, how far from the base, and its cost.

    Args:
      answers: of any systems, as `evaluate_policy.Answer`.
    """
    notes = []
    for num in dict.fromkeys(one.best_of for one in answers if one.best_of):
        own = [one for one in answers if one.best_of == num]
        drawn = sum(one.tokens_drawn for one in own)
        shown = sum(one.num_tokens for one in own)
        notes.append(
            f"Best of {num}: of {num} replies of the base model the one that the "
            "preference model scores highest, of equal ones the first. Its KL is the "
            f"bound log n - (n - 1) / n, a function of n alone, not measured. Cost: "
            f"{num * len(own)} replies and {drawn} tokens were drawn for {len(own)} "
            f"replies of {shown} tokens."
        )
    return notes


def _empty_note(answers: Sequence[Any]) -> tuple[str, ...]:
    counts = verdicts.count_empty(answers)
    if not any(counts.values()):
        return ()
    listed = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    return (f"Empty replies, which lose against all others: {listed}.",)


def _notes(judged, preference, level: float, both_orders: bool) -> tuple[str, ...]:
    notes = [
        f"Intervals: {level:.0%} bootstrap over prompts. Win rates are over the base "
        "model, ties count half. KL is exact over the vocabulary, along the replies."
    ]
    if judged:
        notes.append(
            "At equal length: the win rate left by a logistic regression on the "
            "difference of the lengths in words, with a "
            f"{level:.0%} sandwich interval whose clusters are prompts."
        )
    for judge in dict.fromkeys(verdict.judge for verdict in judged):
        own = [verdict for verdict in judged if verdict.judge == judge]
        if unread := sum(verdict.winner == "none" for verdict in own):
            notes.append(
                f"{judge}: {unread} of {len(own)} comparisons have an answer that "
                "could not be read, a refusal among them; each is half a win."
            )
        row = judges.row_of(judge)
        if row is None or row.reads not in (judges.LETTERS, judges.ASKED):
            continue
        if not both_orders:
            notes.append(f"{judge} is asked in one order of each pair, by a coin.")
            continue
        flips = sum(verdict.flips for verdict in own) / len(own)
        how = "takes the mean" if row.reads == judges.LETTERS else "calls a flip a tie"
        notes.append(
            f"{judge} asks in both orders and {how}; the answer flipped with the order "
            f"in {flips:.0%} of the pairs."
        )
    if preference and "held_out_accuracy" in preference:
        accuracy = preference["held_out_accuracy"]
        notes.append(
            f"Preference model: accuracy on {preference['held_out_pairs']} held-out "
            f"pairs {accuracy['value']:.3f} "
            f"[{accuracy['low']:.3f}, {accuracy['high']:.3f}]."
        )
    if preference and "human_agreement" in preference:
        human = preference["human_agreement"]
        accuracy, probability = human["accuracy"], human["mean_probability"]
        notes.append(
            f"Agreement with {human['pairs']} human pairs: accuracy "
            f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}], "
            f"mean probability {probability['value']:.3f} "
            f"[{probability['low']:.3f}, {probability['high']:.3f}]."
        )
    return tuple(notes)
