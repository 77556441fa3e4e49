"""Whether what a run reads is there and suffices: prompts, pairs, other runs.

Nothing is generated and no weights are read; counts are of what can come at most.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, done_mark, record_files, records, tasks
from rlcd_jax.checks import rules
from rlcd_jax.datasets import hh_rlhf
from rlcd_jax.job import lengths, prompt_parts, setup, trainer, workspace
from rlcd_jax.models import heads, llama, table
from rlcd_jax.ppo import choosing
from rlcd_jax.preference import model
from rlcd_jax.text import dialogue_format, encoding

LOOKED = 1000  # prompts whose tokens are counted
LEAST_SHARE = 0.25  # of the prompts that must fit; below it the limit is a mistake


@dataclasses.dataclass(frozen=True)
class Look:
    """What the checks of the data look at.

    Attributes:
      config: of the run.
      job: of the stage; None: not on this machine.
      workdir: folder of the run, or None.
      stages: whose data must suffice.
      left: those that are about to run.
    """

    config: ConfigDict
    job: setup.Job | None
    workdir: str | pathlib.Path | None
    stages: Sequence[str]
    left: Sequence[str]

    def folder(self, stage: str) -> pathlib.Path | None:
        """Return the folder of a stage, where there is a workdir."""
        if self.workdir is None:
            return None
        return workspace.stage_folder(self.workdir, stage)

    @property
    def task(self) -> tasks.Task:
        """The task of the run."""
        return self.job.task if self.job else setup.load_task(self.config)

    @functools.cached_property
    def test_prompts(self) -> list[records.Prompt]:
        """The prompts to evaluate, read once."""
        return prompt_parts.load_prompts(self.config, self.task, "test")


def sources(look: Look) -> Iterator[str]:
    """Yield what the stages about to run would miss of other stages and runs."""
    config, left = look.config, look.left
    reads_pairs = "distill" in left
    reads_pairs |= "preference" in left and config.preference.data == "pairs"
    if reads_pairs and "simulate" not in left and look.workdir is not None:
        path = look.folder("simulate") / "pairs.jsonl"
        if not path.exists():
            yield f"{path} does not exist; {_again(look, 'simulate')}"
    trained = [s for s in ("distill", "policy") if s in config.evaluate.systems]
    needs = ["preference"] * ("policy" in left) + trained * ("evaluate" in left)
    for stage in needs if look.workdir is not None else ():
        where = look.folder(stage) / "checkpoints"
        if stage not in left and checkpoint.latest_step(where) is None:
            yield f"{where} holds no checkpoint; {_again(look, stage)}"
    for stage in left if look.workdir is not None else ():
        if not trainer.has_moments(look.folder(stage) / "checkpoints"):
            yield (
                f"{look.folder(stage)} cannot go on: it has no DONE mark now, and the "
                "moments of its last checkpoint went when it was done "
                "(keep_moments=False); delete that folder to train anew"
            )
    if "evaluate" in left:
        yield from _other_runs(look)
    if "preference" in left:
        yield from _people(look)


def _again(look: Look, stage: str) -> str:
    """Return how what a stage leaves comes to be there."""
    if (look.folder(stage) / done_mark.DONE).exists():
        return (
            f"the stage is marked as done, so delete {look.folder(stage)} and run "
            f"--stage={stage} again"
        )
    return f"run --stage={stage} first"


def _other_runs(look: Look) -> Iterator[str]:
    """Yield what an evaluation would miss of other runs, or could not take of them."""
    config, cfg = look.config, look.job.cfg
    for entry in config.evaluate.checkpoints:
        folder = pathlib.Path(entry.partition("=")[2])
        said = f"evaluate.checkpoints has {entry!r}"
        try:
            where = choosing.find_policy(folder)
        except ValueError as error:
            yield f"{said}: {error}"
            continue
        if checkpoint.latest_step(where) is None:
            yield (
                f"{said}: {folder} holds no checkpoint; accepted: 'name=folder' with "
                "the folder RUN/policy/checkpoints of a finished run"
            )
        else:
            specs = llama.param_specs(cfg)
            yield from _of_this_model(said, where, choosing.ITEM, specs)
    if "preference" in config.evaluate.judges:
        run = config.evaluate.preference_judge
        said = f"evaluate.preference_judge={run!r}"
        where = workspace.stage_folder(run, "preference") / "checkpoints"
        if checkpoint.latest_step(where) is None:
            yield (
                f"{said}: {where} holds no checkpoint; accepted: the workdir of a run "
                "with a trained preference model"
            )
        else:
            specs = heads.scalar_specs(cfg)
            yield from _of_this_model(said, where, model.ITEM, specs)


def _of_this_model(
    said: str, where: pathlib.Path, item: str, specs: Any
) -> Iterator[str]:
    """Yield that the latest checkpoint of a folder is of another model."""
    wanted = {item: table.abstract_params(specs)}
    try:
        checkpoint.check(where, checkpoint.latest_step(where), wanted)
    except ValueError as error:
        yield f"{said}: {error}"


def _people(look: Look) -> Iterator[str]:
    """Yield what is missing of human pairs."""
    section, task = look.config.preference, look.job.task
    if not (section.human_pairs or section.human_share or section.data == "hh_rlhf"):
        return
    if not task.hh_config:
        yield (
            f"human pairs are asked for, and task {task.name!r} has no hh-rlhf subset; "
            "set preference.human_pairs=0, preference.human_share=0 and "
            "preference.data='pairs'"
        )
    else:
        hh_rlhf.local_files(task.hh_config, look.config.prompts.hh_dir)


def counts(look: Look) -> Iterator[str]:
    """Yield where prompts and pairs are too few for what is asked of them."""
    config, stages = look.config, look.stages
    task = look.task
    about = look.left if look.job else stages
    # A plan does not fetch what only a run needs.
    readable = look.job is not None or config.prompts.source != "hh_rlhf"
    drawn = look.folder("simulate")
    pairs = None
    train: list[records.Prompt] = []
    if readable and {"simulate", "policy"} & {*about}:
        train = prompt_parts.load_prompts(config, task, "train")
        if not train:
            yield "no prompt belongs to the part train; give more in prompts.source"
            return
    sizes = _sizes(look, task, train[:LOOKED])
    if train and "simulate" in about:
        room = config.pairs.prompt_tokens
        yield from _room(sizes, len(train), "pairs.prompt_tokens", room)
        pairs = _group(config) * (len(train) - _too_long(sizes, room)) or None
    elif drawn is not None and (drawn / "pairs.jsonl").exists():
        if {"preference", "distill"} & {*about}:
            pairs = len(record_files.read_jsonl(drawn / "pairs.jsonl", records.Pair))
    if pairs is not None:
        yield from _rows(config, pairs, stages)
    if train and "policy" in about:
        room = config.policy.prompt_tokens
        yield from _room(sizes, len(train), "policy.prompt_tokens", room)
        yield from _dev_prompts(look, task)
    if readable and "evaluate" in about:
        if not look.test_prompts:
            yield (
                "no prompt belongs to the part test, so nothing could be evaluated; "
                "give more prompts in prompts.source, or a larger share of test in the "
                "task"
            )


def _group(config: ConfigDict) -> int:
    """Return the pairs of one prompt."""
    return config.pairs.samples_per_prompt * len(config.pairs.labels)


def _rows(config: ConfigDict, pairs: int, stages: Sequence[str]) -> Iterator[str]:
    """Yield which stages have too few rows for a batch, of so many pairs."""
    if "preference" in stages and config.preference.data == "pairs":
        yield from rules.too_few_pairs(config, pairs, _group(config))
    rows, size = pairs // len(config.pairs.labels), config.distill.batch_size
    if "distill" in stages and rows < size:
        yield (
            f"distill: {rows} training rows are fewer than one batch of "
            f"distill.batch_size={size}; lower it, or take more pairs"
        )


def positions(look: Look) -> Iterator[str]:
    """Yield which texts of a stage have more tokens than the model reads."""
    for stage in look.left:
        longest = 0
        if stage == "evaluate":
            longest = max(_sizes(look, look.task, look.test_prompts), default=0)
        try:
            lengths.check(look.job, stage, longest)
        except ValueError as error:
            yield str(error)


def _dev_prompts(look: Look, task: tasks.Task) -> Iterator[str]:
    """Yield that PPO has no prompts to choose a checkpoint by."""
    section = look.config.policy
    if not section.dev_prompts or look.job is None:
        return
    dev = prompt_parts.load_prompts(look.config, task, "dev", limit=0)
    sizes = _sizes(look, task, dev)
    if section.choose == "dev_score" and len(dev) == _too_long(
        sizes, section.prompt_tokens
    ):
        yield (
            "policy.choose='dev_score' but no prompt of the part dev fits in "
            f"policy.prompt_tokens={section.prompt_tokens}; raise it, give prompts "
            "with such a part, or set policy.choose='last'"
        )


def _sizes(look: Look, task: tasks.Task, loaded: Sequence[records.Prompt]) -> list[int]:
    """Return the tokens of prompts without affix; [] without a tokenizer."""
    if look.job is None:
        return []
    tokenizer = look.job.text_tokenizer
    texts = [
        dialogue_format.plain_prompt(prompt, task, tokenizer.chat) for prompt in loaded
    ]
    return list(map(len, encoding.encode_texts(tokenizer, texts)))


def _too_long(sizes: Sequence[int], room: int) -> int:
    """Return how many prompts do not fit; those not looked at are taken to fit."""
    return sum(size > room for size in sizes)


def _room(sizes: Sequence[int], num: int, name: str, room: int) -> Iterator[str]:
    """Yield that a limit leaves out most prompts; log how many it does leave out.

    Args:
      sizes: tokens of the prompts that were looked at.
      num: prompts in all.
      name: field of the limit.
      room: the limit, in tokens.
    """
    long = _too_long(sizes, room)
    of_which = f"{len(sizes)} prompts" + " looked at" * (num > len(sizes))
    most = max(sizes, default=0)
    if sizes and long == len(sizes):
        yield (
            f"none of {of_which} fits in {name}={room}; raise it: the longest has "
            f"{most} tokens"
        )
    elif len(sizes) - long < LEAST_SHARE * len(sizes):
        yield (
            f"{name}={room} leaves out {long} of {of_which}; raise it: the longest has "
            f"{most} tokens"
        )
    elif long:
        told = "%s=%d leaves out %d of %s; the longest has %d tokens"
        logging.info(told, name, room, long, of_which, most)
