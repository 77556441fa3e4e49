"""Rewards of pairs and of single replies by a preference model."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlcd_jax.job import lengths
from rlcd_jax.preference import model, pair_ids
from rlcd_jax.scoring import reading, rewards
from rlcd_jax.stages import inputs

Params = Any


def pair_scorer(
    found: inputs.Inputs,
) -> Callable[[Params, Sequence[pair_ids.TokenPair]], np.ndarray]:
    """Return a function from parameters and pairs to both rewards, [B, 2] float32."""
    score = rewards.reward_scorer(found, found.config.preference.lengths)

    def both(params: Params, rows: Sequence[pair_ids.TokenPair]) -> np.ndarray:
        ids = [ids for row in rows for ids in (row.ids_1, row.ids_2)]
        return score(reading.frozen(found, params), ids).reshape(-1, 2)

    return both


def preference_judge(
    found: inputs.Inputs, workdir: str | pathlib.Path
) -> Callable[[list[tuple[str, str]]], list[float]]:
    """Return the scores of (prompt, reply) by the preference model in a workdir.

    Replies are read whole, also beyond the lengths that the model was trained with.
    """
    params = reading.frozen(found, model.restore(found, workdir))
    score = rewards.reward_scorer(found, found.config.preference.lengths)

    def judge(shown: list[tuple[str, str]]) -> list[float]:
        rows = pair_ids.reply_ids(found, shown)
        longest = max(map(len, rows), default=0)
        lengths.refuse_over(found, longest, "a prompt with its reply", "leave it out")
        return [float(reward) for reward in score(params, rows)]

    return judge
