"""Rewards of rows of ids by a preference model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.models import heads
from rlcd_jax.scoring import reading
from rlcd_jax.stages import batching, inputs

Params = Any
Ids = Sequence[int]


def reward_scorer(
    found: inputs.Inputs, lengths: Sequence[int]
) -> Callable[[Params, Sequence[Ids]], np.ndarray]:
    """Return a function from frozen parameters and rows of ids to rewards [B] float32.

    Rows of any length are read whole.

    Args:
      found: inputs of the stage.
      lengths: rising, the row lengths to compile for; longer rows add to them.
    """

    def program(params, tokens, mask):
        return heads.scalar_at_last(params, found.cfg, tokens, mask)

    run = jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(found, 2)),
        out_shardings=sharding.replicated(found.mesh),
    )

    def score(params: Params, rows: Sequence[Ids]) -> np.ndarray:
        longest = max(map(len, rows), default=0)
        with jax.set_mesh(found.mesh):
            return batching.map_rows(
                lambda tokens, mask: run(params, tokens, mask),
                rows,
                rows_at=reading.rows_at(found),
                lengths=batching.lengths_up_to(longest, lengths),
                pad_id=found.text_tokenizer.pad_id,
            )

    return score
