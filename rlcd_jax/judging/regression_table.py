"""The table that says what alignment cost: closed questions and perplexity.

Every system is compared with the base model on the same questions and texts, so the
interval of the difference is of pairs, and much narrower than those of the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlcd_jax import schema
from rlcd_jax.datasets import closed_questions
from rlcd_jax.judging import evaluation_table
from rlcd_jax.statistics import estimates, tables

STEM = "regression"  # of the table's files and of the readings
TEXTS = "texts"  # the subject of readings of human texts
ALL = "all questions"
PERPLEXITY = "perplexity"
AGAINST = " against base"  # ends the name of a column of differences


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a system made of a question or a text; one line of `regression.jsonl`.

    `value` is 1 of a question that it gets right, else 0, and of a text nats a token;
    `scores` are those of the choices, the right one first.
    """

    prompt_id: str
    system: str
    subject: str
    value: float
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        schema.validate(self)


def answered(question: closed_questions.Question, nats: Sequence[float]) -> Reading:
    """Return how a question is answered, without a prompt id and a system.

    It is right when the first choice is likelier than each other one; a tie is wrong.
    Of subjects in `closed_questions.BY_BYTE` log-probabilities are divided by the
    bytes of the choices, of others they are compared whole.

    Args:
      question: with its choices.
      nats: log P(choice | context) of each.

    Source: the division by bytes is "acc_norm" of EleutherAI's
      lm-evaluation-harness; minimal pairs by whole log-probabilities are as in BLiMP
      (Warstadt et al. 2020).
    """
    scores = [float(value) for value in nats]
    if question.subject in closed_questions.BY_BYTE:
        sizes = [len(choice.encode()) for choice in question.choices]
        scores = [nat / size for nat, size in zip(scores, sizes, strict=True)]
    is_right = scores[0] > max(scores[1:])
    return Reading("", "", question.subject, float(is_right), tuple(scores))


def table(
    readings: Sequence[Reading],
    *,
    caption: str,
    notes: Sequence[str],
    seed: int,
    level: float,
    resamples: int,
) -> tables.Table:
    """Return one row a system: what it does, and the paired difference to the base.

    Args:
      readings: of all systems, the base model among them, on the same things.
      caption: of the table.
      notes: on where the texts are from and what was left out.
      seed: of the bootstrap.
      level: coverage of the intervals.
      resamples: of the bootstrap.

    Returns:
      A column a subject with the share of right answers (Wilson's interval), one of all
      questions, and the perplexity: exp of the mean, over texts, of their nats a token.
      Behind each is the difference to the base model, in points, or of the perplexity
      in per cent; both over the same questions and texts.
    """
    how = {"level": level, "resamples": resamples, "seed": seed}
    given = list(dict.fromkeys(one.subject for one in readings))
    asked = [name for name in closed_questions.SUBJECTS if name in given]
    columns, rows = [], []
    groups = [(name, (name,)) for name in asked] + [(ALL, tuple(asked))] * bool(asked)
    for name, _ in groups:
        columns.append(tables.Column(name, 1, percent=True))
        columns.append(tables.Column(name + AGAINST, 1, percent=True))
    if TEXTS in given:
        columns.append(tables.Column(PERPLEXITY, 2))
        columns.append(tables.Column(PERPLEXITY + AGAINST, 1, percent=True))
    for system in dict.fromkeys(one.system for one in readings):
        cells: list[tables.Cell] = []
        for _, subjects in groups:
            own, base = _paired(readings, system, subjects)
            cells.append(estimates.proportion_interval(sum(own), len(own), level=level))
            cells.append(_against(system, own, base, estimates.paired_difference, how))
        if TEXTS in given:
            own, base = _paired(readings, system, (TEXTS,))
            cells.append(_perplexity(own, how))
            cells.append(_against(system, own, base, _relative, how))
        rows.append((system, tuple(cells)))
    made = tables.Table(caption, "system", tuple(columns), tuple(rows))
    told = [cost(tables.as_json(made), system) for system, _ in rows]
    return dataclasses.replace(made, notes=(*filter(None, told), *notes))


def notes(source: str, left_out: int) -> tuple[str, ...]:
    """Return what is to be known of the table.

    Args:
      source: of the human texts.
      left_out: of these, because they are too long.
    """
    told = [
        "Questions: the share in which the first choice is the likeliest, per byte of "
        f"the choice in {' and '.join(closed_questions.BY_BYTE)}; guessing has 50 % in "
        "agreement and 25 % in the others. Our own small set, for differences only.",
        f"Perplexity: exp of the mean nats a token over texts, of {source}.",
        "Against base: paired, over the same questions and texts; points, and of the "
        "perplexity per cent.",
    ]
    if left_out:
        told.append(f"{left_out} human texts are left out: too long for the model.")
    return tuple(told)


def _paired(
    readings: Sequence[Reading], system: str, subjects: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Return the values of a system and of the base model on the same things."""
    sides = [
        {
            one.prompt_id: one.value
            for one in readings
            if one.system == name and one.subject in subjects
        }
        for name in (system, evaluation_table.BASE)
    ]
    if sides[0].keys() != sides[1].keys():
        raise ValueError(
            f"{system!r} and {evaluation_table.BASE!r} have not read the same "
            f"questions and texts of {', '.join(subjects)}; every system must"
        )
    return list(sides[0].values()), [sides[1][name] for name in sides[0]]


def _against(
    system: str,
    own: Sequence[float],
    base: Sequence[float],
    compare: Callable[..., estimates.Estimate],
    how: Mapping[str, Any],
) -> tables.Cell:
    if system == evaluation_table.BASE:
        return estimates.Missing(evaluation_table.NO_BASE)
    if len(own) < 2:
        return estimates.Missing("fewer than two")
    return compare(own, base, **how)


def _perplexity(nats: Sequence[float], how: Mapping[str, Any]) -> tables.Cell:
    if len(nats) < 2:
        return estimates.Missing("fewer than two")
    return estimates.bootstrap_interval(nats, statistic=_exp_mean, **how)


def _exp_mean(nats: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(np.mean(nats, axis=axis))


def _relative(
    own: Sequence[float], base: Sequence[float], **how: Any
) -> estimates.Estimate:
    """Estimate by what part the perplexity is above that of the base model."""

    def above(nats: np.ndarray, axis: int) -> np.ndarray:
        return np.expm1(np.mean(nats, axis=axis))

    return estimates.bootstrap_interval(np.subtract(own, base), statistic=above, **how)


def cost(data: Mapping[str, Any], system: str) -> str:
    """Return in a sentence what alignment cost a system; "" where it is not told.

    A loss is shown when the whole interval is on its side.

    Args:
      data: the table, as `tables.as_json` makes it.
      system: name of its row.
    """
    cells = next((r["cells"] for r in data["rows"] if r["name"] == system), {})
    points, share = cells.get(ALL + AGAINST), cells.get(ALL)
    texts = cells.get(PERPLEXITY + AGAINST)
    told, lost = [], False
    if _known(points) and _known(share):
        lost |= points["high"] < 0
        told.append(
            f"of {share['num']} closed questions {system} has "
            f"{100 * share['value']:.1f} % right, {_signed(points)} points against "
            "the base model"
        )
    if _known(texts):
        lost |= texts["low"] > 0
        told.append(
            f"its perplexity of {texts['num']} human texts is {_signed(texts)} % "
            "against the base model's"
        )
    if not told:
        return ""
    verdict = "a loss is shown" if lost else "no loss is shown"
    return f"What alignment cost: {verdict}: {'; '.join(told)}."


def _known(cell: Any) -> bool:
    return isinstance(cell, Mapping) and {"value", "low", "high", "num"} <= cell.keys()


def _signed(cell: Mapping[str, Any]) -> str:
    value, low, high = (100 * cell[name] for name in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
