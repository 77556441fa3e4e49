"""Stage 2: pairs become a preference model.

Bradley-Terry on the scalar at the last token of "prompt, reply, end mark"; labels are
probabilities, hard ones being 0 or 1. Held-out pairs are of prompts that training
never sees. Leaves `preference/checkpoints`, the rewards of held-out pairs in
`preference/held_out.jsonl`, and `preference/summary.json`.
"""

from __future__ import annotations

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
    setup,
    supervised,
    trainer,
    workspace,
)
from rlcd_jax.pairs import length_counts
from rlcd_jax.preference import agreement, data, model, pair_ids, rewards

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
    job = setup.load_job(config)
    lengths.check(job, "preference")
    sides = data.load_pairs(config, workdir, job)
    train, held_out = (pair_ids.to_tokens(job, rows) for rows in sides)
    section = config.preference
    # Read before training, so that what is wrong with them does not show after it.
    people = agreement.human_tokens(job) if section.human_pairs else None
    prompts = [*dict.fromkeys(row.prompt for rows in sides for row in rows)]
    too_long = {
        "prompts": lengths.prompts_with_room(job, "preference", prompts),
        "training pairs": train.too_long,
        "held-out pairs": held_out.too_long,
    }
    if people is not None:
        too_long["human pairs"] = people.too_long
    supervised.note_too_long("preference", too_long)
    lost = too_long["training pairs"]
    updates = supervised.num_updates(
        section,
        len(train),
        "preference",
        lambda: data.lost_pairs(config, workdir, "preference", lost),
    )
    program = make_trainer(job, updates)
    folder = workspace.begin(config, workdir, "preference")
    score = rewards.pair_scorer(job)
    watched = agreement.HeldOut("preference", model.ITEM, held_out, score)
    lesson = supervised.Lesson(
        stage="preference",
        rows=train,
        collate=collate(job),
        evaluate=watched.look,
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
        "train_pairs": len(train),
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


def training_rows(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> Sequence[pair_ids.TokenPair]:
    """Return the rows that a run trains on, in their order."""
    return pair_ids.to_tokens(job, data.load_pairs(config, workdir, job)[0])


def start_params(job: setup.Job) -> Mapping[str, Params]:
    """Return the parameters before the first update."""
    return {model.ITEM: model.start_params(job)}


def collate(job: setup.Job) -> packed_batches.Collate:
    """Return how the pairs of a batch become arrays."""
    packer = packed_batches.make_packer(
        job,
        longest=job.config.preference.lengths[-1],
        parts=supervised.micro_batches(job, "preference"),
    )
    return pair_ids.collate(packer)


def largest_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the arrays of a batch whose texts are all as long as allowed."""
    section = job.config.preference
    ids = (0,) * section.lengths[-1]
    row = pair_ids.TokenPair(ids, ids, prob_2=1.0)
    return collate(job)([row] * section.batch_size)


def num_rows(job: setup.Job, rows: Sequence[records.Pair]) -> int:
    """Return how many of the pairs can be trained on."""
    return len(pair_ids.to_tokens(job, rows))
