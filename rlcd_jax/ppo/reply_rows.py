"""Prompts and replies as the packed rows that the models of PPO read.

A reply lies behind its prompt, and the state before each of its tokens is read: for
the first one that is the last of the prompt. Rollout and update take them from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.job import packed_batches, setup, trainer
from rlcd_jax.training import packing, row_arrays

Ids = Sequence[int]
READ = ("tokens", "segments", "states", "at")  # what a program that only reads gets


def rows_of_update(section: ConfigDict) -> int:
    """Return of how many replies an update is made.

    All of `policy.update_batch`; or as released `policy.lone_rows` of them, the last,
    since the gradients of all others are cleared.
    """
    return min(section.lone_rows or section.update_batch, section.update_batch)


def rows_at_once(job: setup.Job) -> int:
    """Return how many replies go through a model at once, in rollout and update."""
    section = job.config.policy
    parts = trainer.micro_batches(
        "policy",
        rows_of_update(section),
        section.micro_batch,
        sharding.batch_ways(job.mesh),
    )
    return rows_of_update(section) // parts


def text(job: setup.Job, prompt: Ids, reply: Ids) -> packing.Text:
    """Return a prompt with its reply as the models read it.

    Under statistics "padded" the padding of a reply has values too, so it is computed.

    Raises:
      ValueError: the prompt is empty: no state predicts the first token.
    """
    if not prompt:
        raise ValueError(
            "a prompt has no token: there is no state to predict its reply from; "
            "give it a beginning-of-sequence token or drop it"
        )
    section = job.config.policy
    whole = section.reply_tokens if section.statistics == "padded" else len(reply)
    return packing.Text(
        (*prompt, *reply),
        wanted=range(len(prompt), len(prompt) + whole),
        unseen=whole - len(reply),
    )


def read_parts(
    job: setup.Job, texts: Sequence[packing.Text]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield which texts a part has, [rows_at_once], and the rows that it is read from.

    Args:
      job: of the stage.
      texts: as many as some whole parts have.
    """
    at_once = rows_at_once(job)
    parts = len(texts) // at_once
    packer = _packer(job, parts)
    examples = [[one] for one in texts]
    places = packer.place(examples)
    filled = row_arrays.fill(
        packer, examples, places, packer.stepped(places.size, at_once)
    )
    for part in range(parts):
        mine = slice(part, None, parts)
        yield places.order[mine], {name: filled[name][mine] for name in READ}


def update_batches(
    job: setup.Job, texts: Sequence[packing.Text], orders: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield which texts stand at each place of an update's arrays, and its rows.

    All updates of a step have one size.

    Args:
      job: of the stage.
      texts: of the step.
      orders: by update, which of the texts it takes.
    """
    section, at_once = job.config.policy, rows_at_once(job)
    packer = _packer(job, rows_of_update(section) // at_once)
    batches = [[[texts[index]] for index in order] for order in orders]
    places = [packer.place(batch) for batch in batches]
    size = packing.Size(
        rows=places[0].size.rows,
        width=max(one.size.width for one in places),
        states=max(one.size.states for one in places),
    )
    size = packer.stepped(size, at_once)
    for order, batch, place in zip(orders, batches, places, strict=True):
        filled = row_arrays.fill(packer, batch, place, size)
        yield order[place.order], {name: filled[name] for name in READ}


def _packer(job: setup.Job, parts: int) -> packing.Packer:
    return packed_batches.make_packer(
        job,
        longest=job.longest_text("policy"),
        parts=parts,
        wanted=job.config.policy.reply_tokens,
    )
