"""Ids of prompts and replies as the rectangles that the models read.

Host code on lists of ids, except `response_slice`. The convention of the axes is
stated in `rollout`. Masks come from lengths, never from token ids, so the pad id
may equal the end-of-sequence id or occur in a text.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

Ids = Sequence[int]


@flax.struct.dataclass
class Packed:
    """Prompts and replies as rectangles.

    Attributes:
      tokens: [B, P + R] int32.
      positions: [B, P + R] int32; 0 at the first token of a prompt. Padding
        repeats the position next to it.
      prompt_mask: [B, P] bool.
      response_mask: [B, R] bool.
    """

    tokens: jax.Array
    positions: jax.Array
    prompt_mask: jax.Array
    response_mask: jax.Array

    @property
    def mask(self) -> jax.Array:
        """[B, P + R] bool, the mask of the forward pass."""
        return jnp.concatenate([self.prompt_mask, self.response_mask], axis=1)

    @property
    def response_tokens(self) -> jax.Array:
        """[B, R] int32, the targets of `response_slice`."""
        return self.tokens[:, self.prompt_mask.shape[1] :]


def pack(
    prompt_ids: Sequence[Ids],
    reply_ids: Sequence[Ids],
    *,
    prompt_length: int,
    response_length: int,
    pad_id: int,
) -> Packed:
    """Return prompts padded left and replies padded right.

    Args:
      prompt_ids: B sequences of 1 to `prompt_length` ids.
      reply_ids: B sequences of 0 to `response_length` ids.
      prompt_length: P.
      response_length: R.
      pad_id: fills the rest; may also occur as a real token.

    Returns:
      `Packed` of NumPy arrays.

    Raises:
      ValueError: prompts and replies differ in number, or a prompt is empty.
    """
    if len(prompt_ids) != len(reply_ids):
        raise ValueError(f"{len(prompt_ids)} prompts but {len(reply_ids)} replies")
    prompts, prompt_mask = _pad("prompt", prompt_ids, prompt_length, pad_id, left=True)
    replies, reply_mask = _pad("reply", reply_ids, response_length, pad_id, left=False)
    empty = np.flatnonzero(~prompt_mask.any(axis=1))
    if empty.size:
        raise ValueError(
            f"prompt {empty[0]} has no token: there is no state to predict its reply "
            "from; give it a beginning-of-sequence token or drop it."
        )
    seen = np.cumsum(np.concatenate([prompt_mask, reply_mask], axis=1), axis=1)
    return Packed(
        tokens=np.concatenate([prompts, replies], axis=1),
        positions=np.maximum(seen - 1, 0).astype(np.int32),
        prompt_mask=prompt_mask,
        response_mask=reply_mask,
    )


def response_slice(hidden: jax.Array, *, prompt_length: int) -> jax.Array:
    """Return the states that predict the response tokens.

    Args:
      hidden: [B, P + R, ...] one entry a position of `Packed.tokens`.
      prompt_length: P.

    Returns:
      [B, R, ...]: positions P - 1 to P + R - 2.

    Raises:
      ValueError: no position of a reply is left.
    """
    if not 1 <= prompt_length < hidden.shape[1]:
        raise ValueError(
            f"prompt_length is {prompt_length}; it must be from 1 to "
            f"{hidden.shape[1] - 1}, below the {hidden.shape[1]} positions given"
        )
    return hidden[:, prompt_length - 1 : -1]


def _pad(
    name: str, rows: Sequence[Ids], length: int, pad_id: int, *, left: bool
) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for index, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(
                f"{name} {index} has {len(row)} tokens, more than {name}_length = "
                f"{length}: drop it, or allow a longer {name}."
            )
        place = slice(length - len(row), length) if left else slice(0, len(row))
        tokens[index, place] = row
        mask[index, place] = True
    return tokens, mask
