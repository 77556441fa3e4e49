"""Solved examples before a scoring prompt: few-shot RLAIF, RLCD Appendix C.

The paper's shots are not published. Others come from a file, or from people: the human
pairs of hh-rlhf, asked as the task asks, each followed by the letter that was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from rlcd_jax import records, seeds
from rlcd_jax.job import setup
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.preference import data
from rlcd_jax.tasks import layout

HUMAN = "human:"  # and a count: so many human pairs


def human_count(shots: str) -> int:
    """Return how many human pairs `shots` asks for; 0 where it is a text.

    Raises:
      ValueError: the count is none.
    """
    if not shots.startswith(HUMAN):
        return 0
    count = shots.removeprefix(HUMAN)
    if not (count.isdecimal() and int(count)):
        raise ValueError(
            f"shots {shots!r}; accepted: {HUMAN}N with N from 1, or a text"
        )
    return int(count)


def as_text(shots: str, config: ConfigDict, job: setup.Job) -> str:
    """Return the text of shots: their own, or that of human pairs.

    Args:
      shots: a text, "" for none, or "human:N".
      config: of the run; its `pairs` limits prompts and replies, its seed chooses.
      job: of the stage.
    """
    count = human_count(shots)
    if not count:
        return shots.strip()
    people = data.human_pairs(config, job, 0)
    people.sort(key=lambda pair: seeds.seed_words(config.seed, "shots", pair.id))
    limits = (config.pairs.prompt_tokens, *2 * (config.pairs.reply_tokens,))
    kept: list[records.HumanPair] = []
    for pair in people:
        texts = (pair.prompt, pair.reply_1, pair.reply_2)
        sizes = [len(job.text_tokenizer.encode(text)) for text in texts]
        if all(size <= limit for size, limit in zip(sizes, limits, strict=True)):
            kept.append(pair)
        if len(kept) == count:
            task = job.task
            return solved(kept, task.scoring_instructions, task.scoring_opening)
    raise ValueError(
        f"shots {shots!r}: {len(kept)} human pairs have prompts of {limits[0]} and "
        f"replies of {limits[1]} tokens at most; ask for fewer, or raise "
        "pairs.prompt_tokens and pairs.reply_tokens"
    )


def solved(
    people: Sequence[records.HumanPair],
    instructions: Sequence[str],
    opening: str = layout.SCORING_OPENING,
) -> str:
    """Return human pairs as scoring prompts with their answers.

    The better reply is shown as (A) and as (B) in turns, so that the letters tell
    nothing; the instructions take turns as well.
    """
    blocks = []
    for number, pair in enumerate(people):
        replies = (pair.reply_1, pair.reply_2)
        better = round(pair.prob_2)
        place = number % 2
        shown = replies if better == place else replies[::-1]
        question = instructions[number // 2 % len(instructions)]
        asked = scoring_prompt.scoring_prompt(pair.prompt, *shown, question, opening)
        blocks.append(f"{asked}{'AB'[place]})")
    return scoring_prompt.BLOCK.join(blocks)
