"""How much the data of a config are, told without reading hh-rlhf: upper bounds."""

from __future__ import annotations

import re

from ml_collections import ConfigDict

from rlcd_jax import tasks
from rlcd_jax.datasets import hh_rlhf
from rlcd_jax.job import prompt_parts

SLICE = re.compile(r"(?P<file>\w+)(\[(?P<start>\d*):(?P<stop>\d*)\])?")


def num_prompts(config: ConfigDict, task: tasks.Task, part: str) -> int:
    """Return the prompts of a part of the data, at most.

    Args:
      config: of a run.
      task: its task.
      part: "train", "dev" or "test".
    """
    if config.prompts.source != "hh_rlhf":
        return len(prompt_parts.load_prompts(config, task, part))
    limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    if task.hh_config:
        lines = split_lines(task.hh_config, config.prompts[f"hh_{part}_split"])
    else:  # the stage will refuse it; a forecast of the others can be made
        lines = len(tasks.load_prompts(task, part))
    return min(lines, limit or lines)


def split_lines(subset: str, split: str) -> int:
    """Return the lines of a split of hh-rlhf: "train", "test[:1000]"; "" has none.

    Of slices that are not given in lines, such as per cent, the whole file counts.
    """
    if not split:
        return 0
    sizes = hh_rlhf.SIZES[subset]
    name = split.partition("[")[0]
    if name not in sizes:
        raise ValueError(f"hh-rlhf has no file {name!r}; accepted: {', '.join(sizes)}")
    found = SLICE.fullmatch(split)
    if not (found and found["start"] is not None):
        return sizes[name]
    bounds = (int(found[side]) if found[side] else None for side in ("start", "stop"))
    return len(range(sizes[name])[slice(*bounds)])


def num_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that are drawn, before any is dropped."""
    return num_prompts(config, task, "train") * config.pairs.samples_per_prompt


def preference_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that a preference model has, those held out included."""
    section = config.preference
    if section.data == "hh_rlhf":
        known = hh_rlhf.SIZES.get(task.hh_config, {"train": 0})["train"]
        return section.data_limit or known
    return num_pairs(config, task) * len(config.pairs.labels)


def policy_replies(config: ConfigDict) -> tuple[int, int]:
    """Return the replies of PPO's roll-outs, and those to dev prompts."""
    section = config.policy
    checkpoints = -(-section.steps // section.checkpoint_every)
    return section.steps * section.rollouts, checkpoints * section.dev_prompts
