"""Best of n: of several replies to a prompt the one that scores highest.

Nothing is trained but the preference model: the base model answers n times, and the
best reply is the system's. What it costs is drawn at every prompt, again and again.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlcd_jax import seeds, stages
from rlcd_jax.decode import engine
from rlcd_jax.job import generation, roles, setup
from rlcd_jax.preference import rewards

Params = Any
NAME = stages.BEST_OF  # among evaluate.systems


@dataclasses.dataclass(frozen=True)
class BestOf:
    """A system that takes the best of several replies of the base model.

    Attributes:
      num: n, replies of which one is taken.
      workdir: of the run whose preference model scores them.
    """

    num: int
    workdir: pathlib.Path

    @property
    def shown(self) -> str:
        """The name that tables have."""
        return shown_name(self.num)


@dataclasses.dataclass(frozen=True)
class Best:
    """The reply that was taken.

    Attributes:
      reply: as it was drawn.
      tokens_drawn: of all replies that were compared, it included.
    """

    reply: engine.Reply
    tokens_drawn: int


def shown_name(num: int) -> str:
    """Return the name of the system in tables."""
    return f"best_of_{num}"


def choose(scores: np.ndarray) -> np.ndarray:
    """Return which reply of each prompt scores highest; of equal ones the first.

    Args:
      scores: [B, n] of the preference model.

    Returns:
      [B] int, indices below n.

    Raises:
      ValueError: a score is not finite, so nothing can be said of its prompt.
    """
    scores = np.asarray(scores)
    if not np.all(np.isfinite(scores)):
        bad = int(np.sum(~np.isfinite(scores)))
        raise ValueError(
            f"{bad} of {scores.size} scores of the preference model are not finite; "
            "look at its training before replies are chosen by it"
        )
    return np.argmax(scores, axis=1)


def kl_bound(num: int) -> float:
    """Return log n - (n - 1) / n, nats a reply: KL(best of n || base) at most.

    It is the KL itself where all replies differ and score differently; where replies
    repeat or tie the KL is less. No measurement: it is a function of n alone.

    Source: Stiennon et al. 2020, appendix G.3; Beirami et al. 2024 (arXiv 2401.01879)
    that it is a bound.
    """
    return math.log(num) - (num - 1) / num


def draw(
    job: setup.Job,
    sampler: engine.Engine,
    base: Params,
    system: BestOf,
    texts: Sequence[str],
    requests: Sequence[engine.Request],
    clean: Callable[[str], str],
) -> list[Best]:
    """Return the best of n replies of the base model to each request.

    Each is drawn with a key of its own, (seed, request, number), none of which the base
    model's own reply has; so the two are apart, and any can be drawn again.

    Args:
      job: of the stage.
      sampler: the engine; it holds nothing afterwards.
      base: parameters of the base model.
      system: how many, and by whose preference model.
      texts: the prompt of each request.
      requests: one a prompt.
      clean: what is done to the text of a reply before anybody reads it.
    """
    seed, num = job.config.seed, system.num
    many = [
        dataclasses.replace(
            one,
            id=f"{one.id}/{number}",
            seed=seeds.seed_words(seed, NAME, one.id, number),
        )
        for one in requests
        for number in range(num)
    ]
    generation.load(sampler, base, job.mesh)
    replies = generation.generate(sampler, many, f"evaluate {system.shown}")
    sampler.unload()  # the preference model needs the room
    shown = [
        (texts[place // num], clean(reply.text)) for place, reply in enumerate(replies)
    ]
    scorer = job.of(roles.PREFERENCE)
    scores = rewards.preference_judge(scorer, system.workdir)(shown)
    chosen = choose(np.reshape(scores, (-1, num)))
    groups = [replies[at : at + num] for at in range(0, len(replies), num)]
    return [
        Best(group[index], sum(len(reply.tokens) for reply in group))
        for group, index in zip(groups, chosen.tolist(), strict=True)
    ]
