"""Stage 2c: a policy from the pairs themselves, without a preference model.

DPO, IPO or KTO on the pairs that the preference model would learn from, the held-out
ones kept out alike. The reference is the base model; what it says of each reply is read
once, before the first update, so one model is trained and none stands beside it. Leaves
`direct/checkpoints`, and its rewards of held-out pairs in `direct/held_out.jsonl`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import records
from rlcd_jax.job import (
    lengths,
    packed_batches,
    setup,
    supervised,
    trained_form,
    trainer,
    workspace,
)
from rlcd_jax.models import heads, llama
from rlcd_jax.pairs import length_counts
from rlcd_jax.preference import agreement, data, pair_ids
from rlcd_jax.scoring import likelihoods, reading
from rlcd_jax.training import masked, packing, preferences, row_arrays

Params = Any
ITEM = "policy"  # name of the parameters in a checkpoint: a policy, like PPO's
STAGE = "direct"


@dataclasses.dataclass(frozen=True)
class ReadPair:
    """A pair, and what the reference says of its replies.

    Attributes:
      pair: as the policy reads it.
      reference: log P(reply | prompt) of both, nats, as `reply_scorer` gives it.
    """

    pair: pair_ids.TokenPair
    reference: tuple[float, float]

    @property
    def prob_2(self) -> float:
        """The label: the probability that the second reply is the better."""
        return self.pair.prob_2

    @property
    def method(self) -> str:
        """Whose row it is in a mixture."""
        return self.pair.method


def train_directly(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Train a policy on the pairs of a run.

    Args:
      config: of the run; section `direct`, and `preference` for which pairs they are.
      workdir: folder of the run, with `pairs/pairs.jsonl` unless the pairs are
        somebody else's.

    Returns:
      The summary: pairs, updates, the last loss, held-out accuracy of its rewards.
    """
    if workspace.finished(config, workdir, STAGE):
        return workspace.summary(workdir, STAGE)
    started = time.monotonic()
    job = setup.load_job(config)
    lengths.check(job, STAGE)
    sides = data.load_pairs(config, workdir, job)
    train, held_out = (pair_ids.to_tokens(job, rows, STAGE) for rows in sides)
    prompts = [*dict.fromkeys(row.prompt for rows in sides for row in rows)]
    too_long = {
        "prompts": lengths.prompts_with_room(job, STAGE, prompts),
        "training pairs": train.too_long,
        "held-out pairs": held_out.too_long,
    }
    supervised.note_too_long(STAGE, too_long)
    updates = supervised.num_updates(
        config.direct,
        len(train),
        STAGE,
        lambda: data.lost_pairs(config, workdir, STAGE, train.too_long),
    )
    program = make_trainer(job, updates)
    folder = workspace.begin(config, workdir, STAGE)
    score = reply_scorer(job)
    rows, read = read_pairs(job, score, train, held_out)
    rewards = functools.partial(implicit_rewards, job, score, read)
    watched = agreement.HeldOut(STAGE, ITEM, held_out, rewards)
    lesson = supervised.Lesson(
        stage=STAGE,
        cfg=job.cfg,
        rows=rows,
        collate=collate(job),
        evaluate=watched.look,
        too_long=too_long,
    )
    _, shown = supervised.fit(
        config, workdir, folder, lesson, program, lambda: start_params(job)
    )
    watched.leave(folder)
    summary = {
        "train_pairs": len(train),
        "held_out_pairs": len(held_out),
        length_counts.SUMMARY: too_long,
        "updates": updates,
        **shown,
        **watched.as_summary(),
        "seconds": time.monotonic() - started,
    }
    return workspace.finish(config, workdir, STAGE, summary)


def make_trainer(job: setup.Job, updates: int) -> trainer.Trainer:
    """Return the compiled update of the policy.

    Args:
      job: of the stage.
      updates: of the whole training, which the schedule needs.
    """
    return supervised.make_trainer(
        job,
        STAGE,
        ITEM,
        direct_loss(job),
        updates=updates,
        weight="weighs",
    )


def training_rows(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> Sequence[ReadPair]:
    """Return the rows that a run trains on, in their order."""
    rows, _ = data.load_pairs(config, workdir, job)
    tokens = pair_ids.to_tokens(job, rows, STAGE)
    (read,) = read_pairs(job, reply_scorer(job), tokens)
    return read


def start_params(job: setup.Job) -> Mapping[str, Params]:
    """Return the parameters before the first update."""
    return {ITEM: trained_form.start_policy(job)}


Score = Callable[[Params, Sequence[pair_ids.TokenPair]], np.ndarray]


def reply_scorer(job: setup.Job) -> Score:
    """Return a function from frozen parameters and pairs to log P(reply | prompt).

    [B, 2] in nats, summed over the tokens of a reply and of what ends it, or their mean
    where `direct.per_token` asks for it.
    """
    score = likelihoods.ids_scorer(job, per_token=job.config.direct.per_token)

    def both(params: Params, pairs: Sequence[pair_ids.TokenPair]) -> np.ndarray:
        rows = [ids for pair in pairs for ids in (pair.ids_1, pair.ids_2)]
        starts = [start for pair in pairs for start in pair.starts]
        counts = [len(ids) - at for ids, at in zip(rows, starts, strict=True)]
        if not rows:
            return np.zeros((0, 2), np.float32)
        return score(params, rows, counts).reshape(-1, 2)

    return both


def read_pairs(
    job: setup.Job, score: Score, *sides: Sequence[pair_ids.TokenPair]
) -> list[list[ReadPair]]:
    """Return the pairs of each side with what the base model says of them."""
    base = reading.frozen(job, job.load_base())
    return [
        [
            ReadPair(pair, (float(first), float(second)))
            for pair, (first, second) in zip(pairs, score(base, pairs), strict=True)
        ]
        for pairs in sides
    ]


def implicit_rewards(
    job: setup.Job,
    score: Score,
    read: Sequence[ReadPair],
    params: Params,
    pairs: Sequence[pair_ids.TokenPair],
) -> np.ndarray:
    """Return beta log policy / reference of both replies of pairs, [B, 2].

    Args:
      job: of the stage.
      score: of `reply_scorer`.
      read: the same pairs with what the reference says.
      params: of the policy.
      pairs: the pairs.
    """
    reference = np.array([one.reference for one in read]).reshape(-1, 2)
    said = score(reading.frozen(job, params), pairs)
    return job.config.direct.beta * (said - reference)


def collate(job: setup.Job) -> packed_batches.Collate:
    """Return how the pairs of a batch become arrays.

    Those of `row_arrays.fill` for two texts, "prob_2" [B], "reference" [B, 2] and
    "weighs" [B].
    """
    longest = job.longest_text(STAGE)
    packer = packed_batches.make_packer(
        job,
        longest=longest,
        parts=supervised.micro_batches(job, STAGE),
        wanted=longest,
    )
    return packed_batches.Collate(packer, _texts, _numbers)


def _texts(row: ReadPair) -> tuple[packing.Text, packing.Text]:
    pair = row.pair
    first, second = (
        packing.Text(ids, np.arange(start, len(ids)))
        for ids, start in zip((pair.ids_1, pair.ids_2), pair.starts, strict=True)
    )
    return first, second


def _numbers(rows: Sequence[ReadPair]) -> Mapping[str, np.ndarray]:
    return {
        "prob_2": np.array([row.pair.prob_2 for row in rows], np.float32),
        "reference": np.array([row.reference for row in rows], np.float32),
        "weighs": np.ones(len(rows), bool),
    }


def largest_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the arrays of a batch whose texts are all as long as allowed."""
    section = job.config.direct
    ids = (0,) * section.lengths[-1]
    row = ReadPair(pair_ids.TokenPair(ids, ids, prob_2=1.0), (0.0, 0.0))
    return collate(job)([row] * section.batch_size)


def num_rows(job: setup.Job, rows: Sequence[records.Pair]) -> int:
    """Return how many of the pairs can be trained on."""
    return len(pair_ids.to_tokens(job, rows, STAGE))


def direct_loss(job: setup.Job):
    """Return the loss of a batch of pairs as a function of the parameters."""
    section = job.config.direct
    numbers = section.loss, float(section.beta), section.per_token
    return _loss(job.trained_cfg(STAGE), job.chunk_tokens, *numbers)


@functools.lru_cache(maxsize=trainer.KEPT)
def _loss(
    cfg: llama.LlamaConfig, chunk_tokens: int, loss: str, beta: float, per_token: bool
):
    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        packed, _ = heads.state_logprobs(
            params[ITEM], cfg, batch, chunk_tokens=chunk_tokens
        )
        tokens = row_arrays.unpack(packed, batch["at"])  # [B, 2, R]
        said = masked.mean if per_token else masked.sum
        replies = said(tokens, batch["counted"], axis=-1)
        ratios = replies - batch["reference"]
        return preferences.direct(
            ratios[:, 0], ratios[:, 1], batch["prob_2"], loss=loss, beta=beta
        )

    return loss_fn
