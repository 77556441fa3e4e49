"""What nodes may cost: upper bounds in tokens, every text as long as is allowed."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlcd_jax.checks import rules
from rlcd_jax.job import setup
from rlcd_jax.pairs import few_shots, grid
from rlcd_jax.paper import graph
from rlcd_jax.planning import counts
from rlcd_jax.ppo import learning

READS = 1 / 3  # of the work of training on a token, for reading it


def simulate(config: ConfigDict) -> graph.Cost:
    """Return the cost of drawing replies, each once, and of labels by scoring."""
    replies = config.pairs.samples * counts.num_draws(config, setup.load_task(config))
    cost = graph.Cost(generated=float(replies * config.pairs.reply_tokens))
    if not grid.asks(config.pairs):
        return cost
    asked = relabel(config, "")
    return graph.Cost(generated=cost.generated + asked.generated, scored=asked.scored)


def relabel(config: ConfigDict, shots: str) -> graph.Cost:
    """Return the cost of asking about each pair: for a letter, or for votes."""
    section, task = config.pairs, setup.load_task(config)
    text = section.prompt_tokens + 2 * section.reply_tokens
    shots = shots or few_shots.read(section.shots)
    people = few_shots.human_count(shots)
    known = few_shots.known_text(shots, task, words=section.votes > 0)
    text += people * text if people else len(known) / 4
    asked = counts.num_pairs(config, task) * (1 + section.both_orders)
    asked *= section.instructions
    return graph.Cost(
        generated=float(asked * section.votes * section.vote_tokens),
        scored=asked * text * max(1, section.votes),
    )


def preference(config: ConfigDict) -> graph.Cost:
    """Return the cost of a preference model; a ranking reads each reply once."""
    section = config.preference
    texts = 2.0 * counts.preference_pairs(config, setup.load_task(config))
    if (each := rules.pairs_a_row(config, "preference")) > 1:
        texts *= config.pairs.samples / (2 * each)
    return graph.Cost(trained=texts * section.lengths[-1] * section.epochs)


def distill(config: ConfigDict) -> graph.Cost:
    """Return the cost of context distillation."""
    replies = counts.num_draws(config, setup.load_task(config))
    section = config.distill
    return graph.Cost(trained=1.0 * replies * section.lengths[-1] * section.epochs)


def direct(config: ConfigDict) -> graph.Cost:
    """Return the cost of a policy on pairs; the base model reads each of them once."""
    section = config.direct
    pairs = counts.preference_pairs(config, setup.load_task(config))
    tokens = 2.0 * pairs * section.lengths[-1]
    return graph.Cost(trained=tokens * section.epochs, scored=tokens)


def policy(config: ConfigDict) -> graph.Cost:
    """Return the cost of PPO: policy and value learn, four models read.

    Each checkpoint answers dev prompts, which three models read. RLOO and GRPO have no
    value model.
    """
    section = config.policy
    replies, dev = counts.policy_replies(config)
    length = section.prompt_tokens + section.reply_tokens
    learns = len(learning.trained(section))
    return graph.Cost(
        generated=float((replies + dev) * section.reply_tokens),
        trained=float(learns * section.epochs * replies * length),
        scored=((2.0 + learns) * replies + 3.0 * dev) * length
        + len(section.rewards) * (replies + dev) * length,
    )


def best_of(config: ConfigDict, part: str) -> graph.Cost:
    """Return the cost of several replies of which one is taken; each is scored."""
    one, num = sample(config, part), config.evaluate.best_of
    return graph.Cost(generated=num * one.generated, scored=num * one.scored / 2)


def sample(config: ConfigDict, part: str) -> graph.Cost:
    """Return the cost of replies to held-out prompts and of their divergence."""
    section = config.evaluate
    prompts = counts.num_prompts(config, setup.load_task(config), part)
    replies = prompts * section.samples_per_prompt
    whole = replies * (config.pairs.prompt_tokens + section.reply_tokens)
    return graph.Cost(generated=float(replies * section.reply_tokens), scored=2 * whole)


def judge(config: ConfigDict, questions: int, *, api: bool) -> graph.Cost:
    """Return the cost of verdicts, in both orders or in one."""
    section = config.evaluate
    prompts = counts.num_prompts(config, setup.load_task(config), "test")
    asked = (1 + section.both_orders) * prompts * section.samples_per_prompt * questions
    if api:
        return graph.Cost(calls=float(asked))
    text = config.pairs.prompt_tokens + 2 * section.reply_tokens
    return graph.Cost(scored=float(asked * text))


def pair_rewards(config: ConfigDict, *, human: bool) -> graph.Cost:
    """Return the cost of the rewards of pairs."""
    pairs = config.preference.human_pairs
    if not human:
        pairs = counts.num_pairs(config, setup.load_task(config))
    return graph.Cost(scored=2.0 * pairs * config.preference.lengths[-1])


def reply_scores(config: ConfigDict) -> graph.Cost:
    """Return the cost of reading final replies once."""
    section = config.evaluate
    prompts = counts.num_prompts(config, setup.load_task(config), "test")
    replies = prompts * section.samples_per_prompt
    text = config.pairs.prompt_tokens + section.reply_tokens
    return graph.Cost(scored=float(replies * text))


def hours(cost: graph.Cost, rates: ConfigDict) -> float:
    """Return the hours of a node at a config's rates in tokens a second."""
    work = cost.trained + READS * cost.scored
    seconds = cost.generated / rates.generate + work / rates.train
    return seconds / 3600
