"""Rewards of pairs and of single replies by a preference model."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlcd_jax.job import lengths, setup
from rlcd_jax.preference import model, pair_ids
from rlcd_jax.scoring import reading, rewards

Params = Any


def pair_scorer(
    job: setup.Job,
) -> Callable[[Params, Sequence[pair_ids.TokenPair]], np.ndarray]:
    """Return a function from parameters and pairs to both rewards, [B, 2] float32."""
    score = rewards.reward_scorer(job, job.config.preference.lengths)

    def both(params: Params, rows: Sequence[pair_ids.TokenPair]) -> np.ndarray:
        ids = [ids for row in rows for ids in (row.ids_1, row.ids_2)]
        return score(reading.frozen(job, params), ids).reshape(-1, 2)

    return both


def preference_judge(
    job: setup.Job, workdir: str | pathlib.Path
) -> Callable[[list[tuple[str, str]]], list[float]]:
    """Return the scores of (prompt, reply) by the preference model in a workdir.

    Replies are read whole, also beyond the lengths that the model was trained with.

    Args:
      job: of the stage, with the model that the preference model was made of.
      workdir: of its run.
    """
    params = reading.frozen(job, model.restore(job, workdir))
    score = rewards.reward_scorer(job, job.config.preference.lengths)

    def judge(shown: list[tuple[str, str]]) -> list[float]:
        rows = pair_ids.reply_ids(job, shown)
        longest = max(map(len, rows), default=0)
        lengths.refuse_over(job, longest, "a prompt with its reply", "leave it out")
        return [float(reward) for reward in score(params, rows)]

    return judge
