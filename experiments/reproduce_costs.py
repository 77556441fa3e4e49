"""What nodes may cost: upper bounds in tokens, every text as long as is allowed."""

from __future__ import annotations

from ml_collections import ConfigDict

from experiments import reproduce_graph as graph
from experiments import reproduce_scales as scales
from rlcd_jax.scoring import few_shots as solved
from rlcd_jax.stages import inputs

HH_LINES = {"harmless-base": 42_537, "helpful-base": 43_835}  # of the train files
HH_HELD_OUT = 1_000  # prompts of the dev and of the test part
READS = 1 / 3  # of the work of training on a token, for reading it


def num_prompts(config: ConfigDict, part: str) -> int:
    """Return how many prompts a part has, without reading hh-rlhf."""
    task = inputs.load_task(config)
    limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    if config.prompts.source == "hh_rlhf":
        found = HH_LINES.get(task.hh_config, 0) if part == "train" else HH_HELD_OUT
        return min(found, limit or found)
    return len(inputs.load_prompts(config, task, part))


def simulate(config: ConfigDict) -> graph.Cost:
    """Return the cost of drawing pairs, each side once, and of labels by scoring."""
    pairs = num_prompts(config, "train") * config.pairs.samples_per_prompt
    cost = graph.Cost(generated=2.0 * pairs * config.pairs.reply_tokens)
    if "scoring" not in config.pairs.labels:
        return cost
    read = relabel(config, "").scored
    return graph.Cost(generated=cost.generated, scored=read)


def relabel(config: ConfigDict, shots: str) -> graph.Cost:
    """Return the cost of asking for the better letter of each pair."""
    pairs = num_prompts(config, "train") * config.pairs.samples_per_prompt
    text = config.pairs.prompt_tokens + 2 * config.pairs.reply_tokens
    people = solved.human_count(shots)
    text += people * text if people else len(shots) / 4
    return graph.Cost(scored=pairs * text * (1 + config.pairs.both_orders))


def preference(config: ConfigDict) -> graph.Cost:
    """Return the cost of a preference model."""
    section = config.preference
    if section.data == "hh_rlhf":
        task = inputs.load_task(config)
        pairs = section.data_limit or HH_LINES.get(task.hh_config, 0)
    else:
        pairs = num_prompts(config, "train") * config.pairs.samples_per_prompt
        pairs *= len(config.pairs.labels)
    return graph.Cost(trained=2.0 * pairs * section.lengths[-1] * section.epochs)


def distill(config: ConfigDict) -> graph.Cost:
    """Return the cost of context distillation."""
    replies = num_prompts(config, "train") * config.pairs.samples_per_prompt
    section = config.distill
    return graph.Cost(trained=1.0 * replies * section.lengths[-1] * section.epochs)


def policy(config: ConfigDict) -> graph.Cost:
    """Return the cost of PPO: policy and value learn, four models read.

    Each checkpoint answers dev prompts, which three models read.
    """
    section = config.policy
    replies = section.steps * section.rollouts
    dev = -(-section.steps // section.checkpoint_every) * section.dev_prompts
    length = section.prompt_tokens + section.reply_tokens
    return graph.Cost(
        generated=float((replies + dev) * section.reply_tokens),
        trained=2.0 * section.epochs * replies * length,
        scored=(4.0 * replies + 3.0 * dev) * length,
    )


def sample(config: ConfigDict, part: str) -> graph.Cost:
    """Return the cost of replies to held-out prompts and of their divergence."""
    section = config.evaluate
    replies = num_prompts(config, part) * section.samples_per_prompt
    whole = replies * (config.pairs.prompt_tokens + section.reply_tokens)
    return graph.Cost(generated=float(replies * section.reply_tokens), scored=2 * whole)


def judge(config: ConfigDict, questions: int, *, api: bool) -> graph.Cost:
    """Return the cost of verdicts in both orders."""
    section = config.evaluate
    asked = 2 * num_prompts(config, "test") * section.samples_per_prompt * questions
    if api:
        return graph.Cost(calls=float(asked))
    text = config.pairs.prompt_tokens + 2 * section.reply_tokens
    return graph.Cost(scored=float(asked * text))


def pair_rewards(config: ConfigDict, *, human: bool) -> graph.Cost:
    """Return the cost of the rewards of pairs."""
    pairs = num_prompts(config, "train") * config.pairs.samples_per_prompt
    if human:
        pairs = config.preference.human_pairs
    return graph.Cost(scored=2.0 * pairs * config.preference.lengths[-1])


def reply_scores(config: ConfigDict) -> graph.Cost:
    """Return the cost of reading final replies once."""
    section = config.evaluate
    replies = num_prompts(config, "test") * section.samples_per_prompt
    text = config.pairs.prompt_tokens + section.reply_tokens
    return graph.Cost(scored=float(replies * text))


def hours(cost: graph.Cost, scale: scales.Scale) -> float:
    """Return the hours of a node at the rates of a scale."""
    work = cost.trained + READS * cost.scored
    seconds = cost.generated / scale.generate_rate + work / scale.train_rate
    return seconds / 3600
