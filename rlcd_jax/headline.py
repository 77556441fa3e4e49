"""The few numbers of a step that a person looks at; the rest is in `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping

# The word that is shown, the metric, and its digits. A stage has some of them.
FIGURES = (
    ("reward", "rollout/reward_mean", 2),
    ("KL", "rollout/kl_sum_mean", 2),
    ("length", "rollout/response_length_mean", 0),
    ("loss", "preference/loss", 3),
    ("loss", "distill/loss", 3),
    ("loss", "direct/loss", 3),
    ("accuracy", "preference/accuracy", 2),
    ("accuracy", "direct/accuracy", 2),
    ("held out", "preference/held_out_accuracy", 2),
    ("held out", "direct/held_out_accuracy", 2),
    ("tokens/s", "generate/tokens_per_second", 0),
)


def of(row: Mapping[str, float]) -> str:
    """Return these numbers of one row of metrics, such as `reward 0.52, KL 1.93`."""
    return ", ".join(
        f"{word} {round(row[name], digits) + 0.0:.{digits}f}"  # + 0.0: no -0.00
        for word, name, digits in FIGURES
        if name in row
    )
