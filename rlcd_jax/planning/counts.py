"""How much the data of a config are, told without reading hh-rlhf: upper bounds."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlcd_jax import tasks
from rlcd_jax.stages import inputs

# Prompts of hh-rlhf by subset: training and test files. Source: its data card.
HH_PROMPTS = {"harmless-base": (42537, 2312), "helpful-base": (43835, 2354)}


def num_prompts(config: ConfigDict, task: tasks.Task, part: str) -> int:
    """Return the prompts of a part of the data, at most.

    Args:
      config: of a run.
      task: its task.
      part: "train" or "test".
    """
    limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    if config.prompts.source != "hh_rlhf":
        return len(inputs.load_prompts(config, task, part))
    if not task.hh_config:
        return len(tasks.load_prompts(task, part))
    known = HH_PROMPTS[task.hh_config][part == "test"]
    return min(known, limit or known)


def num_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that are drawn, before any is dropped."""
    return num_prompts(config, task, "train") * config.pairs.samples_per_prompt


def preference_pairs(config: ConfigDict, task: tasks.Task) -> int:
    """Return the pairs that a preference model has, those held out included."""
    section = config.preference
    if section.data != "pairs":
        return section.data_limit or num_prompts(config, task, "test")
    return num_pairs(config, task) * len(config.pairs.labels)


def policy_replies(config: ConfigDict) -> tuple[int, int]:
    """Return the replies of PPO's roll-outs, and those to dev prompts."""
    section = config.policy
    checkpoints = -(-section.steps // section.checkpoint_every)
    return section.steps * section.rollouts, checkpoints * section.dev_prompts
