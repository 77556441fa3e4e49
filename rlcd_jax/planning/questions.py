"""Questions that a model answers with a letter, as plans reckon with them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.decode import layout
from rlcd_jax.job import roles, setup
from rlcd_jax.models import llama
from rlcd_jax.pairs import few_shots, scoring_prompt
from rlcd_jax.planning import passes, sizes
from rlcd_jax.scoring import letters, packed_texts

ENGLISH_BYTES = 4  # of a token, about


def ask(
    setting: sizes.Setting,
    name: str,
    held: passes.Bytes,
    *,
    num_texts: float,
    length: int,
) -> passes.Program:
    """Return the reading of questions that are answered by a letter.

    Args:
      setting: of the plan.
      name: of the program.
      held: what is on the device meanwhile, the frozen model too.
      num_texts: questions in all.
      length: of a question, in tokens.
    """
    specs = llama.param_specs(setting.cfg)
    return passes.read(
        setting,
        name,
        letters.letters_program(setting.job),
        (sizes.model_shapes(setting, specs, frozen=True),),
        (
            *passes.row_shapes(setting, length, math.ceil(num_texts)),
            jax.ShapeDtypeStruct((len(letters.LETTERS),), jnp.int32),
        ),
        held=held,
        num_texts=num_texts,
    )


def longest(
    setting: sizes.Setting,
    questions: Sequence[str],
    reply_tokens: int,
    before: int = 0,
) -> int:
    """Return the row length of a question about two replies, at most, in tokens.

    The words around prompt and replies are taken as `bytes_a_token` says.

    Args:
      setting: of the plan.
      questions: of the task.
      reply_tokens: of each reply, at most.
      before: tokens of solved examples.
    """
    words = [scoring_prompt.scoring_prompt("", "", "", one) for one in questions]
    own = max(len(text.encode()) for text in words) // bytes_a_token(setting)
    prompt_tokens = setting.job.config.pairs.prompt_tokens
    own += before
    return packed_texts.made_for(prompt_tokens + 2 * reply_tokens + own)


def shots_tokens(setting: sizes.Setting) -> int:
    """Return the tokens of the solved examples of pairs' questions, at most."""
    job, section = setting.job, setting.job.config.pairs
    known = few_shots.known_of(section, job.task)
    tokens = len(known.encode()) // bytes_a_token(setting)
    if people := few_shots.human_count(section.shots):
        asked = job.task.scoring_instructions
        tokens = people * longest(setting, asked, section.reply_tokens)
    return tokens


def bytes_a_token(setting: sizes.Setting) -> int:
    """Return the bytes of a token: plans have only the tokenizer of random models."""
    spec = roles.spec_of(setting.job.config.model, setting.job.role)
    return 1 if spec.startswith(setup.RANDOM) else ENGLISH_BYTES


def shared_bytes(
    setting: sizes.Setting, questions: Sequence[str], before: int = 0
) -> int:
    """Return the weights that scorers hold to read what all questions begin with.

    They are in decode form; 0 where too little is shared.

    Args:
      setting: of the plan.
      questions: of the task.
      before: tokens of solved examples.
    """
    texts = [
        scoring_prompt.scoring_prompt(prompt, "", "", question)
        for prompt in ("A", "B")
        for question in questions
    ]
    shared = len(os.path.commonprefix(texts).encode()) // bytes_a_token(setting)
    if shared + before < letters.SHARED:
        return 0
    weights = setting.job.config.engine.weights
    places = layout.shardings(setting.cfg, setting.job.mesh, weights).params
    return sharding.device_bytes(layout.weight_shapes(setting.cfg), places)
