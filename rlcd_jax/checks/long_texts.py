"""Which prompts and pairs are too long for the stages of a run, counted before any.

What is too long is left out, or loses turns, by config; here it is known in time to
change a length. Where replies are not drawn yet, the shortest decides what cannot
come, and the longest what may not. The stages count anew what they have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import records
from rlcd_jax.checks import rules
from rlcd_jax.datasets import comparisons
from rlcd_jax.job import lengths, prompt_parts, setup
from rlcd_jax.pairs import draws, length_counts, shortening
from rlcd_jax.preference import agreement, data, pair_ids
from rlcd_jax.stages import STAGES, simulate_pairs
from rlcd_jax.text import encoding

LOOKED = 1000  # texts whose tokens are counted
LEAST_SHARE = 0.25  # of the prompts that must fit; below it the limit is a mistake


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws of prompts that a simulation can make.

    Attributes:
      plain: text without affix of each that was looked at and fits.
      num: how many there are at most, with those not looked at.
    """

    plain: Sequence[str]
    num: int


def sizes(job: setup.Job, loaded: Sequence[records.Prompt]) -> list[int]:
    """Return the tokens of prompts without affix."""
    _, ids = encoding.encode_prompts(job.text_tokenizer, job.task, loaded)
    return [*map(len, ids)]


def simulated(
    job: setup.Job, train: Sequence[records.Prompt]
) -> tuple[Draws, list[str]]:
    """Return the draws that fit in `pairs.prompt_tokens`, and what is wrong with it.

    A draw is as long as the longer of its two prompts, affixes and all.
    """
    section = job.config.pairs
    times, room = section.samples_per_prompt, section.prompt_tokens
    first = [*train[: -(-LOOKED // times)]]
    asked = prompt_parts.repeat_prompts(first, times)[:LOOKED]
    numbers = simulate_pairs.settings(job.config)
    # Of a mixture the longer ones, which have affixes.
    samplings = {cell.sampling for cell in simulate_pairs.grid_rows(job.config)}
    sampling = next((s for s in records.CONTRASTING if s in samplings), "same")
    plans = [
        draws.make_draw(one, sampling, job.task, job.text_tokenizer, numbers)
        for one in asked
    ]
    tokens = [max(len(source.tokens) for source in plan.sources) for plan in plans]
    num = times * len(train)
    what = "prompts" if times == 1 else f"prompts, each drawn {times} times,"
    told = list(limit(tokens, num, "pairs.prompt_tokens", room, what))
    plain = [plan.plain for plan, own in zip(plans, tokens, strict=True) if own <= room]
    return Draws(plain, num - len(plans) + len(plain)), told


def limit(
    tokens: Sequence[int], num: int, name: str, room: int, what: str = "prompts"
) -> Iterator[str]:
    """Yield that a limit leaves out most texts; log how many it does leave out.

    Args:
      tokens: of the texts that were looked at.
      num: texts in all.
      name: field of the limit.
      room: the limit, in tokens.
      what: the texts.
    """
    long = sum(one > room for one in tokens)
    of_which = _of_which(len(tokens), num, what)
    most = max(tokens, default=0)
    if tokens and long == len(tokens):
        yield (
            f"none of {of_which} fits in {name}={room}; raise it: the longest has "
            f"{most} tokens"
        )
    elif _too_few(len(tokens), long):
        yield (
            f"{name}={room} leaves out {long} of {of_which}; raise it: the longest has "
            f"{most} tokens"
        )
    elif long:
        told = "%s=%d leaves out %d of %s; the longest has %d tokens"
        logging.info(told, name, room, long, of_which, most)


def trained_on(job: setup.Job, stage: str, found: Draws) -> tuple[int, list[str]]:
    """Return how many draws a supervised stage can take, and what is wrong with that.

    Args:
      job: of the run.
      stage: its name.
      found: the draws, of which no reply is known.
    """
    field = f"{stage}.lengths[-1]={job.config[stage].lengths[-1]}"
    of_which = _of_which(len(found.plain), found.num, "prompts")
    least = lengths.prompts_with_room(job, stage, found.plain)
    longest = job.config.pairs.reply_tokens
    most = lengths.prompts_with_room(job, stage, found.plain, longest)
    told = []
    if _too_few(least["of"], least["dropped"]):
        told.append(
            f"{field} leaves no room for a reply to {least['dropped']} of {of_which}; "
            f"{advice(job.config, stage)}"
        )
    elif length_counts.became(most):
        logging.info(
            "%s: of %s, %s whatever is replied, and %s where replies have "
            "pairs.reply_tokens=%d",
            field,
            of_which,
            length_counts.became(least) or "none dropped",
            length_counts.became(most),
            longest,
        )
    return found.num - least["dropped"], told


def pairs_left(job: setup.Job, stage: str, rows: Sequence[records.Pair]) -> int:
    """Return how many rows a supervised stage makes of a run's pairs, as it makes them.

    Args:
      job: of the run.
      stage: its name.
      rows: all pairs.
    """
    return STAGES[stage].load().num_rows(job, rows)


def others(job: setup.Job, stage: str) -> Iterator[str]:
    """Yield that pairs not the run's own are too few, or too few within the lengths.

    Args:
      job: of the run.
      stage: that learns from pairs.
    """
    section = job.config.preference
    if section.human_share or section.data != "pairs":
        if comparisons.is_named(section.data):
            rows, what = data.others_pairs(job.config, job), "pairs"
        else:
            limited = section.data_limit if section.data == "hh_rlhf" else 0
            rows, what = data.human_pairs(job.config, job, limited), "human pairs"
        tokens = pair_ids.to_tokens(job, rows[:LOOKED], stage)
        lost = length_counts.lost(tokens.too_long)
        of_which = _of_which(tokens.too_long["of"], len(rows), what)
        field = f"{stage}.lengths[-1]={job.config[stage].lengths[-1]}"
        became = length_counts.became(tokens.too_long)
        if _too_few(tokens.too_long["of"], sum(lost.values())):
            change = advice(job.config, stage)
            yield f"{field}: of {of_which}, {became}; {change}"
        elif lost:
            logging.info("%s: of %s, %s", field, of_which, became)
        if section.data != "pairs" and len(rows) != section.data_limit:
            yield from rules.too_few_pairs(job.config, stage, len(rows), 1)
    if section.human_pairs and stage == "preference":
        agreement.human_tokens(job)


def advice(config: ConfigDict, stage: str) -> str:
    """Return what to change where a supervised stage's lengths leave out too much."""
    words = f"raise {stage}.lengths"
    if config[stage].too_long == shortening.DROP:
        words += f", or set {stage}.too_long={shortening.SHORTEN_PROMPT!r}"
    return words


def _of_which(looked: int, num: int, what: str) -> str:
    return f"{looked} {what}" + " looked at" * (num > looked)


def _too_few(of: int, long: int) -> bool:
    return of - long < LEAST_SHARE * of
