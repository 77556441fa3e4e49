"""Tables of a study: ratings in the paper's layout, annotators, other judges."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from rlcd_jax import record_files
from rlcd_jax.human import agreement, ratings, reading
from rlcd_jax.judging import verdicts
from rlcd_jax.statistics import estimates, tables

RESULTS = "results"
ALPHA_NOTE = (
    "alpha: Krippendorff's, between annotators, on the scores as given, without "
    "repeats and gold checks; intervals: bootstrap over prompts."
)


def rating_table(
    rated: ratings.Ratings, judgments: Sequence[reading.Judgment], *, seed: int
) -> tables.Table:
    """Return one row: the paper's cell, the preferred share, and how far all agree."""
    study, first = rated.study, rated.first
    kept = [j for j in judgments if j.annotator not in rated.excluded]
    matrix = agreement.rating_matrix(kept)
    level = first.level if isinstance(first, estimates.Estimate) else 0.95
    alphas = [
        agreement.krippendorff_alpha(matrix, metric=metric, seed=seed, level=level)
        for metric in ("ordinal", "interval")
    ]
    p_value = first
    if isinstance(first, estimates.Estimate):
        p_value = f"{first.p_value:.2g}"
    cells = (
        paper_cell(rated),
        first,
        rated.second,
        p_value,
        rated.prefer_first,
        *alphas,
        rated.num_judgments,
    )
    columns = (
        tables.Column("Rating"),
        tables.Column(study.system_1),
        tables.Column(study.system_2),
        tables.Column("p"),
        tables.Column(f"Prefer {study.system_1}, %", digits=1, percent=True),
        tables.Column("alpha, ordinal"),
        tables.Column("alpha, interval"),
        tables.Column("Judgments"),
    )
    row = (f"{study.system_1} vs {study.system_2}", cells)
    caption = f"Human ratings, {study.task}: {study.question_name}"
    return tables.Table(caption, "Comparison", columns, (row,), _notes(rated))


def _notes(rated: ratings.Ratings) -> tuple[str, ...]:
    study = rated.study
    notes = [
        "Ratings from 1 to 8, higher is better; the two systems' sum to 9, so the "
        "second interval mirrors the first. Intervals: bootstrap over prompts.",
        "p: two-sided sign-flip test over prompts of equal means.",
        ALPHA_NOTE,
    ]
    if rated.num_judgments == len(rated.scores_2):
        notes.append("Each pair was judged once, so alpha cannot be known.")
    if study.identical:
        notes.append(
            f"{study.identical} prompts with the same reply by both systems were not "
            "shown and do not count."
        )
    if rated.shift != "none":
        notes.append(f"Annotators' shifts were removed: {rated.shift}.")
    if rated.excluded:
        notes.append(
            "Left out, too few gold checks passed: " + ", ".join(rated.excluded) + "."
        )
    return tuple(notes)


def paper_cell(rated: ratings.Ratings) -> estimates.Missing | str:
    """Return a cell in the paper's layout, such as `5.62 / 3.38 [5.40, 5.84]`.

    The interval is that of the first figure.
    """
    first, second = rated.first, rated.second
    if isinstance(first, estimates.Missing):
        return first
    interval = f"[{first.low:.2f}, {first.high:.2f}]"
    return f"{first.value:.2f} / {second.value:.2f} {interval}"


def paper_table(studies: Sequence[ratings.Ratings]) -> tables.Table:
    """Return studies in the layout of the paper's Table 2.

    Args:
      studies: one for each comparison and question, at most.

    Returns:
      A row for each comparison, a column for each task and question; combinations
      without a study are missing.

    Raises:
      ValueError: two studies are about the same.
    """
    cells: dict[tuple[str, str], estimates.Missing | str] = {}
    for one in studies:
        study = one.study
        place = (
            f"{study.system_1} vs {study.system_2}",
            f"{study.task}: {study.question_name}",
        )
        if place in cells:
            raise ValueError(f"two studies are about {' on '.join(place)}; give one")
        cells[place] = paper_cell(one)
    rows = list(dict.fromkeys(row for row, _ in cells))
    names = list(dict.fromkeys(column for _, column in cells))
    none = estimates.Missing("no study")
    return tables.Table(
        "Human ratings",
        "Comparison",
        tuple(tables.Column(name) for name in names),
        tuple((r, tuple(cells.get((r, name), none) for name in names)) for r in rows),
        (
            "First / second system, on a scale on which the two sum to 9; brackets: "
            "interval of the first figure.",
        ),
    )


def annotator_table(
    judgments: Sequence[reading.Judgment], *, level: float = 0.95
) -> tables.Table:
    """Return one row for each annotator: checks passed, leans, time taken."""
    rows = []
    for name, own in ratings.by_annotator(judgments).items():
        same, apart = agreement.self_consistency(own, level=level)
        pairs = [j for j in own if j.kind == "pair"]
        seconds = [j.seconds for j in own if j.seconds is not None]
        none = estimates.Missing("no pair was answered")
        mean = (
            reading.SUM - float(np.mean([j.score_2 for j in pairs])) if pairs else none
        )
        cells = (
            agreement.gold_rate(own, level=level),
            same,
            apart,
            mean,
            ratings.side_lean(own) if pairs else none,
            float(np.median(seconds)) if seconds else estimates.Missing("not recorded"),
            len(own),
        )
        rows.append((name, cells))
    columns = (
        tables.Column("Gold passed, %", digits=0, percent=True),
        tables.Column("Same choice again, %", digits=0, percent=True),
        tables.Column("Points apart"),
        tables.Column("Mean of first system"),
        tables.Column("Lean to the right"),
        tables.Column("Median seconds", digits=0),
        tables.Column("Answers"),
    )
    notes = (
        "Same choice again: share of repeated pairs, sides changed, in which the same "
        "system was chosen; points apart: mean distance of the two scores.",
        "Lean to the right: mean rating minus 4.5, over sides that are balanced.",
    )
    return tables.Table("Annotators", "Annotator", columns, tuple(rows), notes)


def judge_table(
    rated: ratings.Ratings, judged: Sequence[verdicts.Verdict], *, level: float = 0.95
) -> tables.Table:
    """Return one row for each other judge: how often it agrees with the people.

    Raises:
      ValueError: no verdict is about the two systems.

    Source: RLCD Table 23.
    """
    systems = {rated.study.system_1, rated.study.system_2}
    judges = dict.fromkeys(
        v.judge for v in judged if {v.system_1, v.system_2} == systems
    )
    if not judges:
        raise ValueError(
            f"no verdict is about {rated.study.system_1!r} and "
            f"{rated.study.system_2!r}; give the verdicts on the same samples"
        )
    rows = tuple(
        (
            judge,
            (
                agreement.judge_agreement(
                    rated.study, rated.scores_2, judged, judge=judge, level=level
                ),
            ),
        )
        for judge in judges
    )
    return tables.Table(
        "Agreement with the human ratings",
        "Judge",
        (tables.Column("Agreement, %", digits=1, percent=True),),
        rows,
        ("Prompts without a clear choice by the judge or by the people are left out.",),
    )


def write_results(
    folder: str | os.PathLike[str],
    made: Mapping[str, tables.Table],
    judgments: Sequence[reading.Judgment],
) -> pathlib.Path:
    """Write tables, and the un-blinded answers as `ratings.jsonl`."""
    place = pathlib.Path(folder) / RESULTS
    for stem, table in made.items():
        tables.write_table(table, place, stem)
    record_files.write_jsonl(place / "ratings.jsonl", judgments)
    return place
