"""Which pairs are left out although both replies are there: by the model's own score.

A score asks the generator which reply is the better (RLCD-Rescore). Where it says the
other than the affixes did, or hardly says anything, a pair may teach little. What is
left out is kept beside the pairs with its reason, and counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from rlcd_jax import records, schema

DISAGREES, SMALL = "score disagrees", "small margin"


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is left out.

    Attributes:
      drop_disagreeing: contrast and graded pairs whose positive side the score finds
        worse; a score of exactly 1/2 finds neither.
      min_margin: pairs whose `margin` is below it.
    """

    drop_disagreeing: bool
    min_margin: float = schema.between(0.0, 1.0)

    def __post_init__(self):
        schema.validate(self)

    @property
    def asks(self) -> bool:
        """Whether anything may be left out, so that all pairs must be scored."""
        return self.drop_disagreeing or self.min_margin > 0


def margin(pair: records.Pair) -> float:
    """Return |2 p - 1| for the scored probability p of the second reply, in [0, 1].

    Raises:
      ValueError: the pair was not scored.
    """
    return abs(2.0 * _probability(pair) - 1.0)


def reason(pair: records.Pair, rules: Rules) -> str:
    """Return why a pair is left out; "": it is not.

    Raises:
      ValueError: there is a rule, and the pair was not scored.
    """
    if not rules.asks:
        return ""
    better = 1.0 if pair.side_2 == "positive" else -1.0
    found = (_probability(pair) - 0.5) * better
    asked = pair.sampling in records.CONTRASTING
    if rules.drop_disagreeing and asked and found < 0:
        return DISAGREES
    return SMALL if margin(pair) < rules.min_margin else ""


def part(
    pairs: Sequence[records.Pair], rules: Rules
) -> tuple[list[records.Pair], list[records.Filtered]]:
    """Return the pairs that stay and those that do not, each in their order.

    The rows of one pair of replies stay or go together: they share the score.
    """
    kept, left_out = [], []
    for pair in pairs:
        why = reason(pair, rules)
        if why:
            left_out.append(records.Filtered(why, pair))
        else:
            kept.append(pair)
    return kept, left_out


def count(left_out: Sequence[records.Filtered]) -> dict[str, dict[str, int]]:
    """Return how many rows were left out, by cell of the grid and reason."""
    counts: dict[str, Counter] = {}
    for one in left_out:
        cell = f"{one.pair.sampling}-{one.pair.labels}"
        counts.setdefault(cell, Counter())[one.reason] += 1
    return {cell: dict(sorted(found.items())) for cell, found in counts.items()}


def said(counts: dict[str, dict[str, int]]) -> str:
    """Return these counts in words, such as "3 of contrast-construction (score …)"."""
    return ", ".join(
        f"{number} of {cell} ({why})"
        for cell, found in counts.items()
        for why, number in found.items()
    )


def _probability(pair: records.Pair) -> float:
    if not pair.scoring or "prob_2" not in pair.scoring:
        raise ValueError(
            f"pair {pair.id!r} was not scored, so that no rule of its score can be "
            "followed; draw the pairs with this rule set"
        )
    return pair.scoring["prob_2"]
