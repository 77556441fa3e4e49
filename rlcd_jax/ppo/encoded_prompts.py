"""The prompts of PPO, as text and tokens: those to train on and those to choose by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rlcd_jax import records
from rlcd_jax.job import prompt_parts, setup
from rlcd_jax.pairs import length_counts
from rlcd_jax.text import encoding


@dataclasses.dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as text and tokens."""

    id: str
    text: str
    ids: tuple[int, ...]


def usable_prompts(
    job: setup.Job,
) -> tuple[list[EncodedPrompt], Mapping[str, int]]:
    """Return the training prompts that fit, and how many do not, for a summary."""
    loaded = prompt_parts.load_prompts(job.config, job.task, "train")
    out = _fitting(job, loaded)
    if not out:
        raise ValueError(
            f"none of {len(loaded)} prompts fits in policy.prompt_tokens="
            f"{job.config.policy.prompt_tokens}; raise it"
        )
    return out, length_counts.counts(len(loaded), dropped=len(loaded) - len(out))


def dev_prompts(job: setup.Job) -> tuple[list[EncodedPrompt], Mapping[str, int]]:
    """Return the first dev prompts that fit, and how many of the part do not.

    As many as the policy section asks for, fewer where the part has no more; what
    evaluation is limited to does not count.
    """
    wanted = job.config.policy.dev_prompts
    if not wanted:
        return [], length_counts.counts(0, dropped=0)
    loaded = prompt_parts.load_prompts(job.config, job.task, "dev", limit=0)
    out = _fitting(job, loaded)
    return out[:wanted], length_counts.counts(
        len(loaded), dropped=len(loaded) - len(out)
    )


def _fitting(job: setup.Job, loaded: Sequence[records.Prompt]) -> list[EncodedPrompt]:
    """Return the prompts that `policy.prompt_tokens` has room for."""
    texts, rows = encoding.encode_prompts(job.text_tokenizer, job.task, loaded)
    return [
        EncodedPrompt(prompt.id, text, tuple(ids))
        for prompt, text, ids in zip(loaded, texts, rows, strict=True)
        if len(ids) <= job.config.policy.prompt_tokens
    ]
