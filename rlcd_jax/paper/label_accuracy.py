"""What a preference model says of pairs that it was not trained on.

One stage serves two tables: with the run's own pairs and a preference model of human
pairs it measures how often the labels of simulated pairs are right (RLCD Table 36);
with human pairs and the run's preference model, how well that model agrees with people
(Table 5). Leaves `pair_rewards.jsonl`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import processes, record_files, records, schema
from rlcd_jax.job import lengths, roles, setup, workspace
from rlcd_jax.pairs import length_counts
from rlcd_jax.preference import data, model, pair_ids, rewards

FILE = "pair_rewards.jsonl"


@dataclasses.dataclass(frozen=True)
class PairRewards:
    """The rewards of a pair's two replies beside the pair's label."""

    id: str
    prompt_id: str
    prob_2: float = schema.between(0.0, 1.0)
    reward_1: float
    reward_2: float

    def __post_init__(self):
        schema.validate(self)

    @property
    def right(self) -> float | None:
        """1 when label and rewards prefer the same reply, else 0; None: no label.

        Equal rewards are wrong, as in the paper.
        """
        if self.prob_2 == 0.5:
            return None
        margin = self.reward_2 - self.reward_1
        return float(margin * (2 * self.prob_2 - 1) > 0)

    @property
    def probability(self) -> float:
        """The model's probability of the reply that the label prefers."""
        margin = self.reward_2 - self.reward_1
        signed = margin if self.prob_2 > 0.5 else -margin
        return float(0.5 + 0.5 * np.tanh(signed / 2))


def read_rewards(folder: pathlib.Path) -> list[PairRewards]:
    """Return the rewards that the node of a folder has left."""
    return record_files.read_jsonl(folder / FILE, PairRewards)


def read_pairs(folder: pathlib.Path) -> list[records.Pair]:
    """Return the pairs that the node of a folder has drawn or labelled."""
    path = workspace.stage_folder(folder, "simulate") / "pairs.jsonl"
    return record_files.read_jsonl(path, records.Pair)


def reward_pairs(
    config: ConfigDict, workdir: str | pathlib.Path, *, human: bool
) -> dict[str, Any]:
    """Reward both replies of each pair.

    Args:
      config: of the run; `preference.human_pairs` limits the human pairs, 0: all.
      workdir: folder with `preference/checkpoints`, and with `pairs/pairs.jsonl`
        unless the pairs are human ones.
      human: take human pairs.

    Returns:
      The summary: how many pairs there were, and what became of those over
      `preference.lengths`.
    """
    job = setup.load_job(config, role=roles.PREFERENCE)
    lengths.check(job, "preference")
    if human:
        limit = config.preference.human_pairs
        rows = data.human_pairs(config, job, limit, "agreement")
    else:
        rows = read_pairs(pathlib.Path(workdir))
    tokens = pair_ids.to_tokens(job, rows)
    both = rewards.pair_scorer(job)(model.restore(job, workdir), tokens)
    scored = [
        PairRewards(row.id, row.prompt_id, float(row.prob_2), float(one), float(two))
        for row, (one, two) in zip(tokens.rows, both, strict=True)
    ]
    if processes.is_writer():
        record_files.write_jsonl(pathlib.Path(workdir) / FILE, scored)
    return {"pairs": len(scored), length_counts.SUMMARY: {"pairs": tokens.too_long}}
