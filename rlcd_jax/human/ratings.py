"""Mean scores of two systems from un-blinded answers.

Scores are normalised so that higher is better and the two systems' sum is 9: with s
for the second system, 9 - s for the first (RLCD section 4, Table 2).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rlcd_jax import records
from rlcd_jax.human import agreement, reading
from rlcd_jax.human import study as studies
from rlcd_jax.statistics import estimates, win_rates

SHIFTS = ("none", "side", "mean")
Value = estimates.Estimate | estimates.Missing


@dataclasses.dataclass(frozen=True)
class Ratings:
    """What a study says about two systems.

    `first` is the mean score of the first system; its p-value is two-sided, of no
    difference between the systems. `scores_2` are the second system's by prompt and
    draw.
    """

    study: studies.Study
    first: Value
    second: Value
    prefer_first: Value
    scores_2: dict[str, float]
    num_judgments: int
    excluded: tuple[str, ...]
    shift: str


def rate(
    study: studies.Study,
    judgments: Sequence[reading.Judgment],
    *,
    shift: str,
    min_gold: float,
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Ratings:
    """Estimate the mean scores of both systems.

    A prompt is one observation: annotators' scores of it are averaged first. Repeats
    and gold checks do not count.

    Args:
      study: the study.
      judgments: its un-blinded answers.
      shift: correction of each annotator, see `shifted_scores`.
      min_gold: annotators who pass a smaller share of the gold checks are left out.
      seed: of the bootstrap over prompts.
      level: coverage of the intervals.
      resamples: of the bootstrap.
    """
    kept, excluded = passing(judgments, min_gold)
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for judgment, score in shifted_scores(kept, shift):
        by_prompt[records.key_of(judgment)].append(score)
    scores_2 = {p: float(np.mean(scores)) for p, scores in by_prompt.items()}
    num_judgments = sum(map(len, by_prompt.values()))
    twos = np.array(list(scores_2.values()))
    ones = reading.SUM - twos
    if twos.size < 2:
        first = second = prefer = estimates.Missing(f"{twos.size} rated prompts")
    else:
        settings = {"seed": seed, "level": level, "resamples": resamples}
        first = estimates.bootstrap_interval(ones, **settings)
        gap = estimates.paired_difference(ones, twos, **settings)
        first = dataclasses.replace(first, p_value=gap.p_value)
        second = dataclasses.replace(
            first,
            value=reading.SUM - first.value,
            low=reading.SUM - first.high,
            high=reading.SUM - first.low,
        )
        points = 0.5 + 0.5 * np.sign(np.round(ones - twos, 9))
        prefer = win_rates.win_rate(points, level=level)
    return Ratings(
        study, first, second, prefer, scores_2, num_judgments, excluded, shift
    )


def passing(
    judgments: Sequence[reading.Judgment], min_gold: float
) -> tuple[list[reading.Judgment], tuple[str, ...]]:
    """Return the judgments of annotators who pass, and who does not.

    Raises:
      ValueError: the share is outside of 0 to 1.
    """
    if not 0 <= min_gold <= 1:
        raise ValueError(f"min_gold is {min_gold}; accepted: 0 to 1")
    excluded = []
    for name, own in by_annotator(judgments).items():
        passed = agreement.gold_rate(own)
        if isinstance(passed, estimates.Estimate) and passed.value < min_gold:
            excluded.append(name)
    return [j for j in judgments if j.annotator not in excluded], tuple(excluded)


def shifted_scores(
    judgments: Sequence[reading.Judgment], shift: str
) -> list[tuple[reading.Judgment, float]]:
    """Return the second system's score of each pair, annotators' shifts removed.

    "side" removes a lean to the left or right: an annotator's mean rating over
    balanced sides should be 4.5, and what it is more or less is taken off each rating
    before it is un-blinded. "mean" moves each annotator's mean score to the mean over
    annotators; it is for annotators who judged the same pairs, as it would also remove
    what makes one annotator's own pairs different. Shifted scores may leave 1 to 8 a
    little; the two systems' still sum to 9.

    Raises:
      ValueError: there is no such shift.
    """
    if shift not in SHIFTS:
        raise ValueError(f"shift is {shift!r}; accepted: {', '.join(SHIFTS)}")
    groups = by_annotator([j for j in judgments if j.kind == "pair"])
    if not groups:
        return []
    means = {n: np.mean([j.score_2 for j in own]) for n, own in groups.items()}
    overall = np.mean(list(means.values()))
    out = []
    for name, own in groups.items():
        lean = side_lean(own)
        for judgment in own:
            sign = 1 if judgment.side_2 == "B" else -1
            off = {"none": 0.0, "side": sign * lean, "mean": means[name] - overall}
            out.append((judgment, float(judgment.score_2 - off[shift])))
    return out


def side_lean(judgments: Sequence[reading.Judgment]) -> float:
    """Return the mean rating of pairs minus 4.5: above 0 leans to the right side."""
    ratings = [j.rating for j in judgments if j.kind == "pair"]
    return float(np.mean(ratings)) - agreement.MIDDLE if ratings else 0.0


def by_annotator(
    judgments: Sequence[reading.Judgment],
) -> dict[str, list[reading.Judgment]]:
    """Return the judgments of each annotator."""
    groups: dict[str, list[reading.Judgment]] = defaultdict(list)
    for judgment in judgments:
        groups[judgment.annotator].append(judgment)
    return groups
