"""How much the data of a config are, told without reading hh-rlhf: upper bounds."""

from __future__ import annotations

import functools
import math
import re

from ml_collections import ConfigDict

from rlcd_jax import tasks
from rlcd_jax.datasets import comparisons, hh_rlhf_files
from rlcd_jax.job import prompt_parts
from rlcd_jax.pairs import draws, grid
from rlcd_jax.ppo import learning

SLICE = re.compile(r"\w+(\[(?P<start>(-?\d+%?)?):(?P<stop>(-?\d+%?)?)\])?")


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
        lines = len(_own_lines(config, task.hh_config, part))
    else:  # the stage will refuse it; a forecast of the others can be made
        lines = len(tasks.load_prompts(task, part))
    return min(lines, limit or lines)


def _own_lines(
    config: ConfigDict, subset: str, part: str
) -> frozenset[tuple[str, int]]:
    """Return the lines of hh-rlhf of a part, without those of the parts before it.

    Texts that stand on several lines are not known here.
    """
    lines = split_lines(subset, prompt_parts.hh_split(config, part))
    for other in prompt_parts.PARTS[: prompt_parts.PARTS.index(part)]:
        split = prompt_parts.hh_split(config, other)
        # Without a folder there are no human pairs, so nothing is kept for them.
        read = other != "agreement" or config.prompts.hh_dir
        if read and SLICE.fullmatch(split):
            lines = lines - split_lines(subset, split)
    return lines


@functools.lru_cache(maxsize=16)
def split_lines(subset: str, split: str) -> frozenset[tuple[str, int]]:
    """Return the lines, (file, number), of a split of hh-rlhf; "" has none.

    Args:
      subset: of hh-rlhf.
      split: "train", "test[:1000]", "train[5%:]"; per cent are rounded as by TFDS.
        Of a slice in other units the whole file counts.
    """
    if not split:
        return frozenset()
    sizes = hh_rlhf_files.SIZES[subset]
    name = split.partition("[")[0]
    if name not in sizes:
        raise ValueError(f"hh-rlhf has no file {name!r}; accepted: {', '.join(sizes)}")
    number = sizes[name]
    match = SLICE.fullmatch(split)
    bounds = [_line(match[s], number) if match else None for s in ("start", "stop")]
    return frozenset((name, line) for line in range(number)[slice(*bounds)])


def _line(bound: str | None, number: int) -> int | None:
    """Return a bound of a slice in lines; None: there is none."""
    if not bound:
        return None
    if not bound.endswith("%"):
        return int(bound)
    return round(int(bound.removesuffix("%")) / 100 * number)


def num_draws(config: ConfigDict, task: tasks.Task) -> int:
    """Return the draws of prompts, before any reply is dropped."""
    return num_prompts(config, task, "train") * config.pairs.samples_per_prompt


def num_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that are drawn, before any is dropped."""
    return num_draws(config, task) * draws.num_pairs(config.pairs.samples)


def preference_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that a preference model has, those held out included."""
    section = config.preference
    if section.data == "hh_rlhf":
        known = hh_rlhf_files.SIZES.get(task.hh_config, {"train": 0})["train"]
        return section.data_limit or known
    if comparisons.is_named(section.data):
        there = len(comparisons.read(section.data, seed=config.seed).rows)
        return min(section.data_limit or there, there)
    rows = grid.rows_a_draw(grid.cells_of(config.pairs))
    return math.ceil(num_pairs(config, task) * rows)


def policy_replies(config: ConfigDict) -> tuple[int, int]:
    """Return the replies of PPO's roll-outs, and those to dev prompts."""
    section = config.policy
    steps = learning.last_step(section)
    checkpoints = sum(learning.is_saved(section, n) for n in range(1, steps + 1))
    return steps * section.rollouts, checkpoints * section.dev_prompts
