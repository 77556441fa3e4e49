"""How rewards, margins and lengths are spread, by side of the pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import records
from rlcd_jax.report import panels, plots, reading, table_files
from rlcd_jax.statistics.estimates import Missing

SIDES = ("positive", "negative")
BETTER, OTHER = "better", "other"
OF = {
    "preference": "by the preference model, held-out pairs",
    "direct": "beta log policy / reference, held-out pairs",
}


def histograms(run: reading.Run) -> dict[str, Any]:
    """Return plots of reward, margin and length, and notes on those not there."""
    drawn: list[plots.Svg | None] = []
    notes = []
    pairs = {} if isinstance(run.pairs, Missing) else {p.id: p for p in run.pairs}
    learners = [n for n in OF if run.stage(n).state != "not part of this run"]
    for name in learners:
        read = run.held_out[name]
        if isinstance(read, Missing):
            notes.append(f"Rewards and margins of {name}: missing: {read.reason}.")
            continue
        drawn += _rewards(read, pairs, OF[name])
    if isinstance(run.pairs, Missing):
        notes.append(f"Lengths: missing: {run.pairs.reason}.")
    else:
        drawn.append(_lengths(run.pairs))
    drawn.append(_dev_rewards(run))
    return {"plots": [svg for svg in drawn if svg], "notes": notes}


def _rewards(
    read: Sequence[records.HeldOutPair], pairs: Mapping[str, records.Pair], unit: str
) -> list[plots.Svg | None]:
    """Return rewards by side, and margins of the better reply over the other."""
    by_side: dict[str, list[float]] = {}
    margins = []
    for one in read:
        pair = pairs.get(one.id)
        for side, reward in zip(
            _sides(one, pair), (one.reward_1, one.reward_2), strict=True
        ):
            by_side.setdefault(side, []).append(reward)
        if one.prob_2 != 0.5:
            sign = 1 if one.prob_2 > 0.5 else -1
            margins.append(sign * (one.reward_2 - one.reward_1))
    right = sum(margin > 0 for margin in margins)
    label = f"{right} of {len(margins)} right"
    return [
        plots.histogram("Reward by side", _counted(by_side), unit=unit),
        plots.histogram(
            "Margin: better less other",
            [panels.Counted(label, margins)],
            unit=unit,
            reference=0,
        ),
    ]


def _sides(one: records.HeldOutPair, pair: records.Pair | None) -> tuple[str, str]:
    """Return the sides of a pair: those of its prompts, else those of its label."""
    if pair is not None and pair.sampling == "contrast":
        return pair.side_1, pair.side_2
    if one.prob_2 == 0.5:
        return "undecided", "undecided"
    return (OTHER, BETTER) if one.prob_2 > 0.5 else (BETTER, OTHER)


def _lengths(pairs: Sequence[records.Pair]) -> plots.Svg | None:
    by_side: dict[str, list[float]] = {}
    for pair in pairs:
        for n in "12":
            side = getattr(pair, f"side_{n}")
            by_side.setdefault(side, []).append(getattr(pair, f"num_tokens_{n}"))
    return plots.histogram("Length by side", _counted(by_side), unit="tokens a reply")


def _dev_rewards(run: reading.Run) -> plots.Svg | None:
    """Return rewards of the policy's replies at the first and the last saved step."""
    if isinstance(run.policy_samples, Missing):
        return None
    steps = sorted(run.policy_samples)
    kinds = [
        panels.Counted(
            f"step {step}",
            [
                row["score"]
                for row in run.policy_samples[step]
                if table_files.is_number(row.get("score"))
            ],
        )
        for step in dict.fromkeys((steps[-1], steps[0]))
    ]
    return plots.histogram("Reward of the policy", kinds, unit="dev replies")


def _counted(by_side: Mapping[str, Sequence[float]]) -> list[panels.Counted]:
    """Return the sides in one order, so that a side has one colour."""
    order = (*SIDES, BETTER, OTHER)
    names = sorted(by_side, key=lambda n: order.index(n) if n in order else len(order))
    return [panels.Counted(name, by_side[name]) for name in names]
