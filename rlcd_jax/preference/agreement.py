"""How often a preference model is right: on held-out pairs, and on those of people.

What it said of each held-out pair is left in `held_out.jsonl` of its stage.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from rlcd_jax import processes, record_files, records
from rlcd_jax.job import setup
from rlcd_jax.preference import data, pair_ids, rewards
from rlcd_jax.statistics import estimates, forecasts, win_rates

Params = Any
Score = Callable[[Params, Sequence[pair_ids.TokenPair]], np.ndarray]


class HeldOut:
    """Pairs that a training never sees, and how right it was about them at last.

    A pair is right when the likelier reply has the higher reward, a tie is wrong;
    pairs with the label 1/2 are left out of the accuracy. "Positive" is a pair whose
    second reply is the better one. The loss is the cross entropy of sigmoid(reward_2 -
    reward_1), and calibration is of that chance, whatever loss is trained with.

    Args:
      stage: whose metrics these are.
      item: which of its models gives the rewards.
      rows: the pairs.
      score: (parameters, rows) -> both rewards, [B, 2].
    """

    def __init__(
        self, stage: str, item: str, rows: pair_ids.TokenPairs, score: Score
    ) -> None:
        self._stage, self._item, self._rows, self._score = stage, item, rows, score
        self._labels = np.array([row.prob_2 for row in rows])
        self._rewards = np.zeros((0, 2))  # both of each pair, of the last look

    def look(self, models: Mapping[str, Params]) -> dict[str, float]:
        """Return metrics of the models as they are; {} where no pair is decided.

        A rate of which there is no pair, as of true positives, is not among them.
        """
        labels = self._labels
        if not (labels != 0.5).any():
            return {}
        self._rewards = self._score(models[self._item], self._rows)
        margins = self._margins
        cross_entropy = np.logaddexp(0.0, margins) - labels * margins
        rates, reliability = self._rates(), self._reliability()
        shown = {
            "loss": float(cross_entropy.mean()),
            "accuracy": float(self._right().mean()),
            "label_2_rate": rates.label_positive,
            "predicted_2_rate": rates.predicted_positive,
            "true_positive_rate": rates.true_positive,
            "false_positive_rate": rates.false_positive,
            "brier": reliability.brier,
            "calibration_error": reliability.error,
        }
        return {
            f"{self._stage}/held_out_{name}": value
            for name, value in shown.items()
            if value is not None
        }

    def as_summary(self) -> dict[str, Any]:
        """Return what the last look says of decided pairs; {} without any.

        Their accuracy with its interval, the rates, and the reliability diagram.
        """
        if not len(self._rewards):
            return {}
        right = self._right()
        accuracy = estimates.proportion_interval(float(right.sum()), len(right))
        return {
            "held_out_accuracy": dataclasses.asdict(accuracy),
            "held_out_rates": dataclasses.asdict(self._rates()),
            "held_out_calibration": dataclasses.asdict(self._reliability()),
        }

    @property
    def _margins(self) -> np.ndarray:
        """How far the second reply of each pair is ahead, [B]."""
        return np.diff(self._rewards, axis=1)[:, 0]

    def _right(self) -> np.ndarray:
        """Return [decided pairs] 1.0 where the likelier reply has the higher reward."""
        labels = self._labels
        return (self._margins * (2 * labels - 1) > 0)[labels != 0.5].astype(float)

    def _rates(self) -> forecasts.Rates:
        return forecasts.rates(special.expit(self._margins), self._labels)

    def _reliability(self) -> forecasts.Reliability:
        return forecasts.reliability(special.expit(self._margins), self._labels)

    def leave(self, folder: pathlib.Path) -> None:
        """Write the rewards of the last look, a pair a line; nothing without one."""
        if not (len(self._rewards) and processes.is_writer()):
            return
        read = [
            records.HeldOutPair(row.id, float(row.prob_2), float(first), float(second))
            for row, (first, second) in zip(self._rows.rows, self._rewards, strict=True)
        ]
        record_files.write_jsonl(folder / records.HELD_OUT, read)


def human_tokens(job: setup.Job) -> pair_ids.TokenPairs:
    """Return the human pairs that the config asks for, to be read after training.

    Pairs over `preference.lengths` are treated as in training, and counted.

    Raises:
      ValueError: there are too few for an interval; so ask before training.
    """
    config = job.config
    limit = config.preference.human_pairs
    rows = data.human_pairs(config, job, limit, "agreement")
    tokens = pair_ids.to_tokens(job, rows)
    if len(tokens) < 2:
        raise ValueError(
            f"preference.human_pairs={config.preference.human_pairs}: of {len(rows)} "
            f"pairs {len(tokens)} fit preference.lengths[-1]="
            f"{config.preference.lengths[-1]}, and agreement needs 2; raise one of "
            "them, or set preference.human_pairs=0"
        )
    return tokens


def human_agreement(
    job: setup.Job, params: Params, tokens: pair_ids.TokenPairs
) -> dict[str, Any]:
    """Return how often the model prefers what a human preferred, with intervals.

    Args:
      job: of the stage.
      params: of the preference model.
      tokens: of `human_tokens`.
    """
    both = rewards.pair_scorer(job)(params, tokens)
    prefers_2 = np.array([row.prob_2 > 0.5 for row in tokens]).astype(int)
    chosen = both[np.arange(len(tokens)), prefers_2]
    rejected = both[np.arange(len(tokens)), 1 - prefers_2]
    accuracy, probability = win_rates.human_agreement(
        chosen, rejected, seed=job.config.seed
    )
    return {
        "pairs": len(tokens),
        "accuracy": dataclasses.asdict(accuracy),
        "mean_probability": dataclasses.asdict(probability),
    }
