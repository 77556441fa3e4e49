"""How often a preference model is right: on held-out pairs, and on those of people.

What it said of each held-out pair is left in `held_out.jsonl` of its stage.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlcd_jax import processes, record_files, records
from rlcd_jax.job import setup
from rlcd_jax.preference import data, pair_ids, rewards
from rlcd_jax.statistics import estimates, win_rates

Params = Any
Score = Callable[[Params, Sequence[pair_ids.TokenPair]], np.ndarray]


class HeldOut:
    """Pairs that a training never sees, and how right it was about them at last.

    A pair is right when the likelier reply has the higher reward, a tie is wrong;
    pairs with the label 1/2 are left out of the accuracy.

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
        # Of the last look: both rewards of each pair, and an entry a decided pair.
        self._rewards = np.zeros((0, 2))
        self._right = np.zeros(0)

    def look(self, models: Mapping[str, Params]) -> dict[str, float]:
        """Return metrics of the models as they are; {} where no pair is decided."""
        labels = self._labels
        decided = labels != 0.5
        if not decided.any():
            return {}
        self._rewards = self._score(models[self._item], self._rows)
        margins = np.diff(self._rewards, axis=1)[:, 0]
        cross_entropy = np.logaddexp(0.0, margins) - labels * margins
        self._right = (margins * (2 * labels - 1) > 0)[decided].astype(float)
        return {
            f"{self._stage}/held_out_loss": float(cross_entropy.mean()),
            f"{self._stage}/held_out_accuracy": float(self._right.mean()),
        }

    def as_summary(self) -> dict[str, Any]:
        """Return the accuracy of the last look with its interval; {} without pairs."""
        right = self._right
        if not len(right):
            return {}
        accuracy = estimates.proportion_interval(float(right.sum()), len(right))
        return {"held_out_accuracy": dataclasses.asdict(accuracy)}

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
