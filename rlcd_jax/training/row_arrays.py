"""What packed rows hold: the arrays of a batch, and what is read off them by example.

Letters as in `training.packing`. Host code on lists of ids, except `unpack`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax.training import packing


def fill(
    packer: packing.Packer,
    examples: Sequence[Sequence[packing.Text]],
    places: packing.Places,
    size: packing.Size,
) -> dict[str, np.ndarray]:
    """Return the rows of a batch.

    Args:
      packer: how it is packed.
      examples: of the batch.
      places: of `packer.place`.
      size: as large as `places.size`, or larger.

    Returns:
      "tokens" and "segments" [M N, W] int32. Where no states are read, "ends"
      [B, K] int32: the last token of each text as an index of a part's flattened
      rows. Else "states" [M N, C] int32, the places in a row of those that are
      read, "at" [B, K, R] int32, those of an example as indices of a part's
      flattened states, and "counted" [B, K, R] bool, False where "at" is no
      state; of one text without the axis K.

      Where beginnings are shared "segments" is [M N, S], there are "sources" [M N,
      S] and "places" [M N, W, K] int32, as `models.siblings` has them, and beside
      "states" there is "nexts" [M N, C] int32, the token of a row after each.
    """
    total, num_texts = packer.parts * size.rows, len(examples[0])
    whole = size.whole if packer.shares else size.width
    out = {
        "tokens": np.full((total, size.width), packer.pad_id, np.int32),
        "segments": np.zeros((total, whole), np.int32),
    }
    if packer.shares:
        out["sources"] = np.zeros((total, whole), np.int32)
        shape = (total, size.width, num_texts)
        out["places"] = np.full(shape, whole, np.int32)
    if not packer.wanted:
        out["ends"] = np.zeros((len(examples), num_texts), np.int32)
    else:
        out["states"] = np.zeros((total, size.states), np.int32)
        if packer.shares:
            out["nexts"] = np.zeros((total, size.states), np.int32)
        shape = (len(examples), num_texts, packer.wanted)
        out["at"] = np.zeros(shape, np.int32)
        out["counted"] = np.zeros(shape, bool)
    states = np.zeros(total, int)  # of each row, so far
    laid = np.zeros(total, int)  # places of each row that whole texts take
    for place, example in enumerate(places.order):
        own = examples[example]
        indices = _tokens_of(own, places.starts[place], int(places.shared[place]))
        for k, (text, index) in enumerate(zip(own, indices, strict=True)):
            row = places.rows[place, k]
            line, num = row * packer.parts + place % packer.parts, len(text.ids)
            number, here = place * num_texts + k + 1, index
            out["tokens"][line, index[:num]] = text.ids
            if packer.shares:
                here = laid[line] + np.arange(num)
                laid[line] += num
                out["sources"][line, here] = index
                known = out["places"][line, index, 0] < whole
                out["places"][line, index, np.where(known, k, 0)] = here
            out["segments"][line, here[:num]] = number
            out["segments"][line, here[num:]] = -number
            if not packer.wanted:
                last = index[num - 1] if num else 0
                out["ends"][place, k] = row * size.width + last
                continue
            first, num = states[line], len(text.wanted)
            states[line] += num
            wanted = np.asarray(text.wanted, int)
            out["states"][line, first : first + num] = index[wanted - 1]
            if packer.shares:
                out["nexts"][line, first : first + num] = index[wanted]
            out["at"][place, k, :num] = row * size.states + first + np.arange(num)
            out["counted"][place, k, :num] = True
    if packer.wanted and num_texts == 1:
        out |= {name: out[name][:, 0] for name in ("at", "counted")}
    return out


def _tokens_of(
    example: Sequence[packing.Text], starts: np.ndarray, shared: int
) -> Iterator[np.ndarray]:
    """Yield where in its row each token of each text of an example stands.

    Args:
      example: its texts.
      starts: of `Places`, of the example.
      shared: likewise.
    """
    if not shared:
        for start, text in zip(starts, example, strict=True):
            yield start + np.arange(text.length)
        return
    free = starts[0] + shared
    for text in example:
        rest = max(text.length - shared, 0)
        beginning = starts[0] + np.arange(min(shared, text.length))
        yield np.concatenate([beginning, free + np.arange(rest)])
        free += rest


def useful_share(rows: Mapping[str, np.ndarray]) -> float:
    """Return how many of the tokens of rows, of `fill`, are of a text, in [0, 1]."""
    return _num_read(rows) / rows["tokens"].size


def shared_share(rows: Mapping[str, np.ndarray]) -> float:
    """Return how many of the tokens of texts are not computed again, in [0, 1].

    They are of a beginning that another text of their example has too.

    Args:
      rows: of `fill`.
    """
    texts = np.count_nonzero(rows["segments"])
    return 1 - _num_read(rows) / texts if texts else 0.0


def _num_read(rows: Mapping[str, np.ndarray]) -> int:
    """Return how many tokens of rows are of a text."""
    if "places" in rows:
        whole = rows["segments"].shape[1]
        return int(np.count_nonzero(rows["places"][..., 0] < whole))
    return int(np.count_nonzero(rows["segments"] > 0))


def unpack(values: jax.Array, at: jax.Array) -> jax.Array:
    """Return entries of packed rows by example.

    Args:
      values: [N, C] or [N, W], a number for each state or token of a part's rows.
      at: [B / M, …] int32, indices of the flattened rows.

    Returns:
      An array like `at`.
    """
    return jnp.take(values.reshape(-1), at, axis=0)
