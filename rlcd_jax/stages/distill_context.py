"""Stage 2b: context distillation, the baseline without a preference model.

The base model is fine-tuned on the replies to the positive prompts, each after its
affix-free prompt; the loss is on the reply alone, its first token and the mark and
end token that close it included. Leaves `distill/checkpoints`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import record_files, records
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
from rlcd_jax.pairs import length_counts, shortening, training_texts
from rlcd_jax.training import losses, packing, row_arrays

Params = Any
ITEM = "policy"  # name of the parameters in a checkpoint: a policy, like PPO's


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt with its reply as one sequence, and which tokens are the reply's."""

    ids: tuple[int, ...]
    is_reply: tuple[bool, ...]


def distill_context(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Fine-tune the base model on a run's positive replies.

    Args:
      config: of the run; section `distill`.
      workdir: folder of the run, with `pairs/pairs.jsonl`.

    Returns:
      The summary: examples, updates, last loss.
    """
    if workspace.finished(config, workdir, "distill"):
        return workspace.summary(workdir, "distill")
    started = time.monotonic()
    job = setup.load_job(config)
    lengths.check(job, "distill")
    examples, too_long = load_examples(config, workdir, job)
    section = config.distill
    updates = supervised.num_updates(
        section,
        len(examples),
        "distill",
        lambda: supervised.lost_pairs(workdir, "distill", too_long["replies"]),
    )
    program = make_trainer(job, updates)
    folder = workspace.begin(config, workdir, "distill")
    lesson = supervised.Lesson(
        stage="distill",
        cfg=job.cfg,
        rows=examples,
        collate=collate(job),
        evaluate=lambda params: {},
        too_long=too_long,
    )
    _, shown = supervised.fit(
        config, workdir, folder, lesson, program, lambda: start_params(job)
    )
    summary = {
        "examples": len(examples),
        length_counts.SUMMARY: too_long,
        "updates": updates,
        **shown,
        "seconds": time.monotonic() - started,
    }
    return workspace.finish(config, workdir, "distill", summary)


def make_trainer(job: setup.Job, updates: int) -> trainer.Trainer:
    """Return the compiled update of the distilled policy.

    Args:
      job: of the stage.
      updates: of the whole training, which the schedule needs.
    """
    return supervised.make_trainer(
        job,
        "distill",
        ITEM,
        distill_loss(job),
        updates=updates,
        weight="weighs",
    )


def training_rows(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> Sequence[Example]:
    """Return the rows that a run trains on, in their order."""
    return load_examples(config, workdir, job)[0]


def start_params(job: setup.Job) -> Mapping[str, Params]:
    """Return the parameters before the first update."""
    return {ITEM: trained_form.start_policy(job)}


def load_examples(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> tuple[list[Example], Mapping[str, Mapping[str, int]]]:
    """Return `make_examples` of a run's pairs."""
    path = workspace.stage_folder(workdir, "simulate") / "pairs.jsonl"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run --stage=simulate first")
    shortening.check_rule("distill.too_long", config.distill.too_long)
    return make_examples(job, record_files.read_jsonl(path, records.Pair))


def make_examples(
    job: setup.Job, rows: Sequence[records.Pair]
) -> tuple[list[Example], Mapping[str, Mapping[str, int]]]:
    """Return the positive replies as token examples, and what became of long texts.

    Those over `distill.lengths` are treated by `distill.too_long`: dropped, or their
    prompts lose the oldest turns, or they lose their end.
    """
    task = job.task
    ends = lengths.closing_ids(job, "distill")
    pairs = training_texts.positives(rows)
    texts = [
        [
            training_texts.distill_example(
                pair, task, job.chat_turn, csv_missing=job.config.pairs.csv_missing
            )
        ]
        for pair in pairs
    ]
    fitted = shortening.fit(
        job.text_tokenizer,
        texts,
        max_tokens=lengths.text_tokens(job, "distill"),
        rule=job.config.distill.too_long,
        task=task,
        border=job.config.distill.border,
        closing=len(ends),
    )
    examples = [
        Example(tuple(ids), tuple(is_reply))
        for one in fitted
        for ids, is_reply in one.closed(ends)
    ]
    prompts = lengths.prompts_with_room(
        job, "distill", [*dict.fromkeys(pair.prompt for pair in pairs)]
    )
    return examples, {"prompts": prompts, "replies": shortening.count(fitted)}


def collate(job: setup.Job) -> packed_batches.Collate:
    """Return how the examples of a batch become arrays."""
    section = job.config.distill
    packer = packed_batches.make_packer(
        job,
        longest=job.longest_text("distill"),
        parts=supervised.micro_batches(job, "distill"),
        wanted=section.lengths[-1],
    )

    def numbers(rows: Sequence[Example]) -> Mapping[str, np.ndarray]:
        if section.per_sequence:
            return {"weighs": np.ones((len(rows), 1), bool)}
        counts = np.array([len(_wanted(row)) for row in rows])
        return {"weighs": np.arange(packer.wanted) < counts[:, None]}

    def texts(row: Example) -> tuple[packing.Text]:
        return (packing.Text(row.ids, _wanted(row)),)

    return packed_batches.Collate(packer, texts, numbers)


def largest_batch(job: setup.Job) -> Mapping[str, np.ndarray]:
    """Return the arrays of a batch whose texts are all as long as allowed."""
    section = job.config.distill
    length = section.lengths[-1]
    row = Example((0,) * length, (False,) + (True,) * (length - 1))
    return collate(job)([row] * section.batch_size)


def num_rows(job: setup.Job, rows: Sequence[records.Pair]) -> int:
    """Return how many examples the pairs give."""
    return len(make_examples(job, rows)[0])


def _wanted(row: Example) -> np.ndarray:
    """Return the places of the reply's tokens; nothing predicts a text's first."""
    return np.flatnonzero(row.is_reply[1:]) + 1


def distill_loss(job: setup.Job):
    """Return the next-token loss of a batch as a function of the parameters."""
    cfg = job.trained_cfg("distill")
    return _loss(cfg, job.chunk_tokens, job.config.distill.per_sequence)


@functools.lru_cache(maxsize=trainer.KEPT)
def _loss(cfg: llama.LlamaConfig, chunk_tokens: int, per_sequence: bool):
    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        packed, _ = heads.state_logprobs(
            params[ITEM], cfg, batch, chunk_tokens=chunk_tokens
        )
        return losses.next_token(
            row_arrays.unpack(packed, batch["at"]),
            batch["counted"],
            per_sequence=per_sequence,
        )

    return loss_fn
