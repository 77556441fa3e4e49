"""One system's replies to held-out prompts, and what can be measured on each reply.

The pieces of an evaluation as stages of their own, so that several tables can share
them: replies (`samples.jsonl`), rewards of replies by a preference model and their
perplexity under a language model (`scores.jsonl`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rlcd_jax import processes, record_files
from rlcd_jax.job import prompt_parts, setup
from rlcd_jax.judging import judges, verdicts
from rlcd_jax.pairs import training_texts
from rlcd_jax.preference import rewards
from rlcd_jax.scoring import letters, likelihoods
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.text import encoding

SAMPLES, SCORES = "samples.jsonl", "scores.jsonl"
PERPLEXITY, REWARD = "nats a token", "reward"  # names of the judges in scores.jsonl


def answer(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    system: str,
    checkpoints: evaluate_policy.System,
    part: str,
) -> dict[str, Any]:
    """Sample one system's replies and write `samples.jsonl`.

    Args:
      config: of the run; section `evaluate`.
      workdir: folder to write to.
      system: name of the system.
      checkpoints: folder of its policy; None for the base model; or the best of n.
      part: "test", or "dev" for the prompts on which settings are chosen.

    Returns:
      The summary: mean length and mean divergence from the base model.
    """
    job = setup.load_job(config)
    prompts = prompt_parts.load_prompts(config, job.task, part)
    evaluate_policy.check_lengths(job, prompts)
    wanted = {system: checkpoints}
    answers = evaluate_policy.answer_all(job, wanted, job.load_base(), prompts)
    if processes.is_writer():
        record_files.write_jsonl(pathlib.Path(workdir) / SAMPLES, answers)
    return {
        "replies": len(answers),
        "tokens": float(np.mean([row.num_tokens for row in answers])),
        "divergence": float(np.mean([row.divergence for row in answers])),
    }


def read_answers(folder: str | pathlib.Path) -> list[evaluate_policy.Answer]:
    """Return the replies that `answer` wrote."""
    path = pathlib.Path(folder) / SAMPLES
    return record_files.read_jsonl(path, evaluate_policy.Answer)


def reward(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    preference: str | pathlib.Path,
    answers: Sequence[evaluate_policy.Answer],
) -> dict[str, Any]:
    """Score replies by the preference model in a workdir; write `scores.jsonl`.

    Source: RLCD Appendix E for a method's own model, Appendix J.1 for a held-out one.
    """
    job = setup.load_job(config)
    judge = rewards.preference_judge(job, preference)
    scores = judges.preference_scores(
        evaluate_policy.as_samples(answers), judge, judge=REWARD
    )
    return _write(workdir, scores)


def perplexity(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    answers: Sequence[evaluate_policy.Answer],
) -> dict[str, Any]:
    """Write the mean surprise of each reply after its prompt, in nats a token.

    The language model is the config's. Empty replies have no tokens and are left out.

    Source: RLCD Appendix J.2; which model it used is not known, nor whether the prompt
    was shown.
    """
    job = setup.load_job(config)
    texts = [
        (row.prompt, training_texts.bare_reply(row.reply, job.task, job.chat_turn))
        for row in answers
    ]
    joined = encoding.join_replies(job.text_tokenizer, texts)
    counts = [
        sum(is_reply) if row.reply.strip() else 0
        for row, (_, is_reply) in zip(answers, joined, strict=True)
    ]
    shown = [place for place, count in enumerate(counts) if count]
    score = likelihoods.reply_scorer(job, job.load_base())
    logprobs = score([texts[place] for place in shown])
    scores = [
        verdicts.Score(
            answers[place].prompt_id,
            PERPLEXITY,
            answers[place].system,
            -float(total) / counts[place],
            answers[place].draw,
        )
        for place, total in zip(shown, logprobs, strict=True)
    ]
    return _write(workdir, scores)


def judge_locally(
    config: ConfigDict,
    answers: Sequence[evaluate_policy.Answer],
    question: str,
    judge: str,
) -> list[verdicts.Verdict]:
    """Return verdicts by the log-odds of the config's model."""
    job = setup.load_job(config)
    score = letters.letter_scorer(job, job.load_base())
    samples = evaluate_policy.as_samples(answers)
    return judges.log_odds(
        samples,
        score,
        question=question,
        judge=judge,
        by_mean=True,
        both_orders=config.evaluate.both_orders,
    )


def _write(workdir: str | pathlib.Path, scores: list[verdicts.Score]) -> dict[str, Any]:
    if processes.is_writer():
        record_files.write_jsonl(pathlib.Path(workdir) / SCORES, scores)
    values = [score.score for score in scores]
    return {"replies": len(scores), "mean": float(np.mean(values)) if values else None}
