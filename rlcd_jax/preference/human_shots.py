"""Human pairs as solved examples for whoever scores: see `pairs.few_shots`."""

from __future__ import annotations

from rlcd_jax import records, seeds
from rlcd_jax.job import setup
from rlcd_jax.pairs import few_shots
from rlcd_jax.preference import data


def of_run(job: setup.Job) -> str:
    """Return the text of the shots that the config of a run asks for; "": none."""
    return as_text(few_shots.read(job.config.pairs.shots), job)


def as_text(shots: str, job: setup.Job) -> str:
    """Return the text of shots: their own, the task's, or that of human pairs.

    Args:
      shots: a text, "" for none, "task" or "human:N".
      job: of the stage; `pairs` limits prompts and replies of people, and the seed
        chooses among them.
    """
    config = job.config
    count = few_shots.human_count(shots)
    if not count:
        return few_shots.known_text(shots, job.task, words=config.pairs.votes > 0)
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
            return few_shots.solved(
                kept, task.scoring_instructions, task.scoring_opening
            )
    raise ValueError(
        f"shots {shots!r}: {len(kept)} human pairs have prompts of {limits[0]} and "
        f"replies of {limits[1]} tokens at most; ask for fewer, or raise "
        "pairs.prompt_tokens and pairs.reply_tokens"
    )
