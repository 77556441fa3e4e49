"""A text a row, padded: what packed rows are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax.models import heads, llama

Params = Any
Ids = Sequence[int]


def pad_left(
    rows: Sequence[Ids], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens [B, T] int32 and mask [B, T] bool, each row at the right end.

    Raises:
      ValueError: a row is longer; it is not for padding to say what is cut.
    """
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for index, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(
                f"row {index} has {len(row)} tokens and the width is {length}; leave "
                "it out, shorten its text, or allow a longer width"
            )
        if len(row):
            tokens[index, -len(row) :] = row
            mask[index, -len(row) :] = True
    return tokens, mask


def text_logprobs(
    params: Params,
    cfg: llama.LlamaConfig,
    tokens: jax.Array,
    mask: jax.Array,
    *,
    chunk_tokens: int,
) -> jax.Array:
    """Return the log-probability of each token of a text given those before it.

    Args:
      params: LLaMA weights in training form.
      cfg: model numbers.
      tokens: [B, T] int32, padded on either side.
      mask: [B, T] bool, True where a token is part of the text.
      chunk_tokens: see `token_logprobs`.

    Returns:
      [B, T] float32 nats; entry 0 and entries outside the text are 0.
    """
    hidden, _ = llama.hidden_states(params, cfg, tokens, heads.positions_of(mask), mask)
    logprobs, _ = heads.token_logprobs(
        params,
        cfg,
        hidden[:, :-1],
        tokens[:, 1:],
        chunk_tokens=chunk_tokens,
        temperature=1.0,
    )
    counted = mask[:, 1:] & mask[:, :-1]
    return jnp.pad(jnp.where(counted, logprobs, 0.0), ((0, 0), (1, 0)))


def laid_out(batch):
    """Return the tokens of packed rows as "segments" numbers them, each text whole."""
    if "sources" not in batch:
        return batch["tokens"]
    return np.take_along_axis(batch["tokens"], batch["sources"], axis=1)
