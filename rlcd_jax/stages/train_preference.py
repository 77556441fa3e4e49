"""Stage 2: pairs become a preference model.

A loss of compared replies, by default Bradley-Terry, on the scalar at the last token of
"prompt, reply, end mark"; labels are probabilities, hard ones being 0 or 1. With the
loss "plackett_luce" a row of training is a ranking, all replies of a draw, and not a
pair. Held-out pairs, which are pairs always, are of prompts that training never sees.
Leaves `preference/checkpoints`, the rewards of held-out pairs in
`preference/held_out.jsonl`, and `preference/summary.json`.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import records
from rlcd_jax.job import (
    lengths,
    packed_batches,
    prompt_parts,
    roles,
    setup,
    supervised,
    trainer,
    workspace,
)
from rlcd_jax.pairs import length_counts
from rlcd_jax.preference import agreement, data, model, pair_ids, rankings, rewards
from rlcd_jax.training import preferences

Params = Any


def train_preference(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Train the preference model of a run.

    Args:
      config: of the run; section `preference`.
      workdir: folder of the run, with `pairs/pairs.jsonl` unless the pairs are
        human ones.

    Returns:
      The summary: held-out accuracy with its interval, agreement with human pairs.
    """
    if workspace.finished(config, workdir, "preference"):
        return workspace.summary(workdir, "preference")
    started = time.monotonic()
    job = setup.load_job(config, role=roles.PREFERENCE)
    lengths.check(job, "preference")
    sides = data.load_pairs(config, workdir, job)
    train, held_out = to_rows(job, sides[0]), pair_ids.to_tokens(job, sides[1])
    section = config.preference
    # Read before training, so that what is wrong with them does not show after it.
    people = agreement.human_tokens(job) if section.human_pairs else None
    prompts = [*dict.fromkeys(row.prompt for rows in sides for row in rows)]
    too_long = {
        "prompts": lengths.prompts_with_room(job, "preference", prompts),
        _training_texts(job): train.too_long,
        "held-out pairs": held_out.too_long,
    }
    if people is not None:
        too_long["human pairs"] = people.too_long
    supervised.note_too_long("preference", too_long)
    updates = supervised.num_updates(
        section,
        len(train),
        "preference",
        lambda: data.lost_pairs(config, workdir, "preference", train.too_long),
    )
    program = make_trainer(job, updates)
    folder = workspace.begin(config, workdir, "preference")
    score = rewards.pair_scorer(job)
    watched = agreement.HeldOut("preference", model.ITEM, held_out, score)
    lesson = supervised.Lesson(
        stage="preference",
        cfg=job.cfg,
        rows=train,
        collate=collate(job),
        evaluate=watched.look,
        too_long=too_long,
    )
    state, shown = supervised.fit(
        config,
        workdir,
        folder,
        lesson,
        program,
        lambda: start_params(job),
    )
    watched.leave(folder)
    params = program.models(state)[model.ITEM]
    summary = {
        **_counts(train),
        "held_out_pairs": len(held_out),
        **shown,
        **watched.as_summary(),
        length_counts.SUMMARY: too_long,
    }
    if section.data == "hh_rlhf" or section.human_share:
        part = prompt_parts.load_part(config, job.task, "train", human=True)
        summary["human_pairs_in_other_parts"] = part.shared
    if people is not None:
        summary["human_agreement"] = agreement.human_agreement(job, params, people)
    summary["seconds"] = time.monotonic() - started
    return workspace.finish(config, workdir, "preference", summary)


def make_trainer(job: setup.Job, updates: int) -> trainer.Trainer:
    """Return the compiled update of the preference model.

    Args:
      job: of the stage.
      updates: of the whole training, which the schedule needs.
    """
    return supervised.make_trainer(
        job,
        "preference",
        model.ITEM,
        model.preference_loss(job),
        updates=updates,
        weight="counted",
    )


Rows = pair_ids.TokenPairs | rankings.TokenRankings


def to_rows(job: setup.Job, pairs: Sequence[data.AnyPair]) -> Rows:
    """Return what is trained on of pairs: these, or the rankings of their replies."""
    if _ranks(job):
        return rankings.to_tokens(job, pairs)
    return pair_ids.to_tokens(job, pairs)


def _ranks(job: setup.Job) -> bool:
    return job.config.preference.loss == preferences.RANKED


def _training_texts(job: setup.Job) -> str:
    """Return what is counted of the training texts that are too long."""
    return "training replies" if _ranks(job) else "training pairs"


def _counts(rows: Rows) -> dict[str, int]:
    """Return how many pairs are compared in training, and how many rankings, if any."""
    if isinstance(rows, pair_ids.TokenPairs):
        return {"train_pairs": len(rows)}
    pairs = sum(math.comb(len(row.ids), 2) for row in rows)
    return {"train_pairs": pairs, "train_rankings": len(rows)}


def training_rows(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> Rows:
    """Return the rows that a run trains on, in their order."""
    return to_rows(job, data.load_pairs(config, workdir, job)[0])


def start_params(job: setup.Job) -> Mapping[str, Params]:
    """Return the parameters before the first update."""
    return {model.ITEM: model.start_params(job)}


def collate(job: setup.Job) -> packed_batches.Collate:
    """Return how the pairs, or the rankings, of a batch become arrays."""
    section = job.config.preference
    packer = packed_batches.make_packer(
        job,
        longest=job.longest_text("preference"),
        parts=supervised.micro_batches(job, "preference"),
    )
    if _ranks(job):
        return rankings.collate(packer, job.config.pairs.samples)
    margin = float(section.margin) if section.loss == "margin" else None
    return pair_ids.collate(packer, margin=margin)


def largest_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the arrays of a batch whose texts are all as long as allowed."""
    section = job.config.preference
    ids = (0,) * section.lengths[-1]
    row = pair_ids.TokenPair(ids, ids, prob_2=1.0)
    if _ranks(job):
        most = job.config.pairs.samples
        row = rankings.TokenRanking((ids,) * most, tuple(map(float, range(most))))
    return collate(job)([row] * section.batch_size)


def num_rows(job: setup.Job, rows: Sequence[records.Pair]) -> int:
    """Return how many rows can be trained on of pairs."""
    return len(to_rows(job, rows))
