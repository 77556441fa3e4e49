"""Compiled programs that score texts: rewards and divergence.

Each maker takes parameters once and returns a host function over texts or rows of
tokens; shapes are few, so programs are compiled a handful of times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.models import heads
from rlcd_jax.stages import batching, inputs

Params = Any
Ids = Sequence[int]


def frozen(found: inputs.Inputs, params: Params) -> Params:
    """Return parameters that are only read: matrices in the compute dtype.

    A product casts its operands anyway, so every value computed from them is the
    same as from the float32 master, at half the memory.
    """
    with jax.set_mesh(found.mesh):
        return jax.jit(functools.partial(frozen_form, dtype=found.cfg.dtype))(params)


def frozen_form(params: Params, dtype: str) -> Params:
    """Return parameters with their matrices in ``dtype``; norms and heads as given."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            leaf
            if leaf.ndim < 2 or "norm" in jax.tree_util.keystr(path)
            else leaf.astype(dtype)
        ),
        params,
    )


def rows_at_once(found: inputs.Inputs, wanted: int = 16) -> int:
    """Return a batch size near ``wanted`` that the mesh divides."""
    ways = found.mesh.shape["data"] * found.mesh.shape["fsdp"]
    return max(1, wanted // ways) * ways


def reward_scorer(
    found: inputs.Inputs, lengths: Sequence[int]
) -> Callable[[Params, Sequence[Ids]], np.ndarray]:
    """Return a function from frozen parameters and rows of ids to rewards [B] float32.

    Args:
      found: inputs of the stage.
      lengths: rising, the row lengths to compile for.
    """

    def program(params, tokens, mask):
        return heads.scalar_at_last(params, found.cfg, tokens, mask)

    run = jax.jit(
        program,
        in_shardings=(None, *batch_of(found, 2)),
        out_shardings=sharding.replicated(found.mesh),
    )

    def score(params: Params, rows: Sequence[Ids]) -> np.ndarray:
        with jax.set_mesh(found.mesh):
            return batching.map_rows(
                lambda tokens, mask: run(params, tokens, mask),
                rows,
                batch_size=rows_at_once(found),
                lengths=lengths,
                pad_id=found.text_tokenizer.pad_id,
            )

    return score


def divergence_scorer(
    found: inputs.Inputs, base: Params
) -> Callable[[Params, Sequence[Ids], Sequence[int]], np.ndarray]:
    """Return a function that measures how far a policy went from the base model.

    ``measure(policy, rows, starts)`` gives, for each row, the sum over its tokens
    from ``starts[i]`` on of KL(policy || base) at that prefix, in nats: exact over
    the vocabulary, so without the noise of a log-ratio of sampled tokens.
    """
    base = frozen(found, base)

    def program(policy, base, tokens, mask, counted):
        return heads.policy_divergence(
            policy,
            base,
            found.cfg,
            tokens,
            mask,
            counted,
            chunk_tokens=found.config.model.chunk_tokens,
        )

    run = jax.jit(
        program,
        in_shardings=(None, None, *batch_of(found, 3)),
        out_shardings=sharding.replicated(found.mesh),
    )

    def measure(
        policy: Params, rows: Sequence[Ids], starts: Sequence[int]
    ) -> np.ndarray:
        policy = frozen(found, policy)
        # The start travels as the first entry of a row, and is taken off again.
        marked = [[start, *row] for start, row in zip(starts, rows, strict=True)]
        longest = max(map(len, marked), default=1)

        def one(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
            first = mask.argmax(axis=1)
            start = tokens[np.arange(len(tokens)), first] + first + 1
            mask = mask.copy()
            mask[np.arange(len(mask)), first] = False
            counted = mask & (np.arange(mask.shape[1]) >= start[:, None])
            return run(policy, base, tokens, mask, counted)

        with jax.set_mesh(found.mesh):
            return batching.map_rows(
                one,
                marked,
                batch_size=rows_at_once(found),
                lengths=batching.rising_lengths(longest),
                pad_id=found.text_tokenizer.pad_id,
                what="KL of replies",
            )

    return measure


def batch_of(found: inputs.Inputs, count: int) -> tuple[Any, ...]:
    """Return the shardings of ``count`` arrays with a row for each text."""
    return (sharding.batch_sharding(found.mesh),) * count
