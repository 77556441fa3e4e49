"""The paper's figures as data, with the numbers of their tables.

Only figures that were read in a source which names their table; every other one is
unknown here, and `show` says so. Win rates and accuracies are in percent.

Source: RLCD (arXiv 2307.12950), tables as named in each row.
"""

from __future__ import annotations

import dataclasses

UNKNOWN = "not known here"
GENERATORS = ("7B", "30B")  # sizes of the models that made the pairs
COLUMNS = ("harmless", "harmless_helpful", "helpful", "outline")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One cell of the paper.

    Attributes:
      table: its number, or the section where a number is not known.
      size: of the model that made the pairs, "7B" or "30B".
      measure: what is measured.
      column: the task, or "harmless_helpful": helpfulness on the prompts of harmless.
      systems: the method, or the two that are compared.
      values: of the systems in their order, or the parts of one figure.
      note: what is uncertain about it.
    """

    table: str
    size: str
    measure: str
    column: str
    systems: tuple[str, ...]
    values: tuple[float, ...]
    note: str = ""


def _row(table, size, measure, systems, *values, note=""):
    """Return the figures of one row, in the order of COLUMNS; None leaves one out."""
    return tuple(
        Figure(table, size, measure, column, systems, value, note)
        for column, value in zip(COLUMNS, values, strict=False)
        if value is not None
    )


_RLAIF = ("rlcd", "rlaif")
_RESCORE = ("rlcd", "rescore")
_MIXED = "which judge and the order of the columns are inferred"

FIGURES: tuple[Figure, ...] = (
    *_row(
        *("2", "7B", "human", _RLAIF),
        *((5.62, 3.38), (4.64, 4.36), (5.88, 3.12), (5.97, 3.03)),
    ),
    *_row(
        *("2", "30B", "human", _RLAIF),
        *((4.71, 4.29), (4.50, 4.50), (4.51, 4.49), (4.76, 4.24)),
    ),
    *_row(
        *("3", "7B", "win rate", _RLAIF),
        *((84.8, 15.2), (71.0, 29.0), (85.4, 14.6), (78.5, 21.5)),
    ),
    *_row(
        *("3", "30B", "win rate", _RLAIF),
        *((60.3, 39.7), (55.3, 44.7), (47.8, 52.2), (35.9, 64.1)),
    ),
    *_row(
        *("6", "7B", "win rate", _RESCORE),
        *((86.0, 14.0), (75.8, 24.2), (86.3, 13.7), (88.8, 11.2)),
    ),
    *_row(
        *("6", "30B", "win rate", _RESCORE),
        *((54.6, 45.4), (53.2, 46.8), (47.3, 52.7), (36.4, 63.6)),
    ),
    *_row(
        *("16", "30B", "win rate", ("rlcd", "rlaif_few")),
        *((42.1, 57.9), (56.9, 43.1)),
    ),
    *_row(
        *("40", "7B", "win rate", ("rlcd_human20", "rlaif_human20")),
        *((68.9, 31.1), (59.4, 40.6), (55.8, 44.2)),
        note=_MIXED,
    ),
    # Accuracy in percent and mean probability on 2,000 human pairs.
    *_row("5", "7B", "human pairs", ("rlaif",), (35.6, 0.492), None, (60.6, 0.508)),
    *_row("5", "7B", "human pairs", ("rlcd",), (52.4, 0.516), None, (64.4, 0.601)),
    *_row("5", "30B", "human pairs", ("rlaif",), (45.7, 0.489), None, (66.2, 0.551)),
    *_row("5", "30B", "human pairs", ("rlcd",), (55.9, 0.542), None, (66.7, 0.628)),
    *_row("23", "7B", "agreement", _RLAIF, None, None, (74.7,), (77.5,)),
    *_row("23", "30B", "agreement", _RLAIF, None, None, (62.8,), (59.0,)),
    *_row("36", "7B", "label accuracy", ("rlaif",), (44.0,), None, (56.0,)),
    *_row("36", "7B", "label accuracy", ("rlcd",), (54.0,), None, (68.0,)),
    *_row("36", "30B", "label accuracy", ("rlaif",), (46.0,), None, (66.0,)),
    *_row("36", "30B", "label accuracy", ("rlcd",), (60.0,), None, (74.0,)),
    # Dist-1, Dist-2, Dist-3 in percent.
    *_row("App. J.3", "7B", "diversity", ("rlcd",), (11.0, 42.5, 66.4)),
    # Mean tokens, and the standard deviation where it was read.
    *_row(
        *("34-35", "7B", "length", ("rlcd",)),
        *((66.5,), None, (118.0,), (115.9,)),
    ),
    *_row(
        *("34-35", "7B", "length", ("rlaif",)),
        *((42.1,), None, (35.4,), (54.8,)),
    ),
    *_row(
        *("34-35", "30B", "length", ("rlcd",)),
        *((73.3, 56.1), None, (108.3, 71.4), (138.7, 66.9)),
    ),
    *_row(
        *("34-35", "30B", "length", ("rlaif",)),
        *((78.1,), None, (84.7,), (88.6,)),
    ),
    *_row(
        *("34-35", "30B", "length", ("distill",)),
        *((30.5,), None, (37.7,), (59.3,)),
    ),
)


def find(
    measure: str, size: str, column: str, systems: tuple[str, ...]
) -> Figure | None:
    """Return the paper's figure, with the systems in the order asked for, or None.

    Win rates and ratings with the two systems exchanged are turned round.
    """
    for figure in FIGURES:
        if (figure.measure, figure.size, figure.column) != (measure, size, column):
            continue
        if figure.systems == systems:
            return figure
        if len(systems) == 2 and figure.systems == systems[::-1]:
            turned = figure.values if measure == "agreement" else figure.values[::-1]
            return dataclasses.replace(figure, systems=systems, values=turned)
    return None


def show(measure: str, size: str, column: str, systems: tuple[str, ...]) -> str:
    """Return the paper's figure as a cell, such as `84.8 / 15.2 (Table 3)`."""
    figure = find(measure, size, column, systems)
    if figure is None:
        return UNKNOWN
    numbers = " / ".join(f"{value:g}" for value in figure.values)
    place = figure.table if figure.table.startswith("App") else f"Table {figure.table}"
    return f"{numbers} ({place}{'; ' + figure.note if figure.note else ''})"
