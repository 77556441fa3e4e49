"""Which rows make a batch, and how rows of many lengths fit programs of few shapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import grain
import numpy as np

from rlcd_jax import metrics, tokenizer

Ids = Sequence[int]


def batch_indices(num: int, seed: int, batch_size: int, index: int) -> list[int]:
    """Return which of ``num`` rows batch ``index`` of an endless input takes.

    All rows come again and again, each epoch in a new order, and batches take them
    without gaps. Grain is read by index, so a batch depends on the arguments alone:
    the number of the step is all that a resumed run needs.
    """
    rows = grain.MapDataset.source(range(num)).seed(seed).shuffle().repeat()
    first = index * batch_size
    return [rows[place] for place in range(first, first + batch_size)]


def pad_left(
    rows: Sequence[Ids], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens [B, T] int32 and mask [B, T] bool, each row at the right end.

    A row that is too long loses its beginning.
    """
    tokens = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for index, row in enumerate(rows):
        kept = list(row)[-length:]
        if kept:
            tokens[index, -len(kept) :] = kept
            mask[index, -len(kept) :] = True
    return tokens, mask


def fitting_length(longest: int, lengths: Sequence[int]) -> int:
    """Return the first of rising lengths that holds ``longest``, else the last."""
    return next((length for length in lengths if length >= longest), lengths[-1])


def rising_lengths(longest: int, smallest: int = 64) -> tuple[int, ...]:
    """Return lengths 64, 96, 128, 192, … up to the first that holds ``longest``.

    Each is a third or a half above the one before: few programs, and little padding.

    Args:
      longest: of the rows, in tokens.
      smallest: the first length, even.
    """
    lengths = [smallest]
    while lengths[-1] < longest:
        power = smallest << len(lengths) // 2
        lengths.append(power if len(lengths) % 2 == 0 else power * 3 // 2)
    return tuple(lengths)


def map_rows(
    program: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: Sequence[Ids],
    *,
    batch_size: int,
    lengths: Sequence[int],
    pad_id: int,
    what: str = "",
) -> np.ndarray:
    """Run a program over all rows, alike lengths together, and keep their order.

    Args:
      program: (tokens [B, T] int32, mask [B, T] bool) -> [B, …], left-padded rows.
      rows: token ids; longer ones than the last length lose their beginning.
      batch_size: B of every call; the last batch is filled with copies of its row.
      lengths: rising, the values that T may take: each is compiled once.
      pad_id: fills the rest.
      what: what is done, for a progress bar; "": none is shown.

    Returns:
      [len(rows), …], row i of the result for row i.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    pieces = []
    with contextlib.ExitStack() as stack:
        bar = metrics.Progress(what, len(rows), unit="texts") if what else None
        if bar:
            stack.enter_context(bar)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            filled = chosen + chosen[-1:] * (batch_size - len(chosen))
            length = fitting_length(max(len(rows[i]) for i in chosen), lengths)
            tokens, mask = pad_left([rows[i] for i in filled], length, pad_id)
            pieces.append(np.asarray(program(tokens, mask))[: len(chosen)])
            if bar:
                bar.advance(len(chosen))
    if not pieces:
        return np.zeros((0,), np.float32)
    result = np.concatenate(pieces)
    return result[np.argsort(order, kind="stable")]


def join_reply(
    text_tokenizer: tokenizer.Tokenizer, prompt: str, reply: str
) -> tuple[list[int], list[bool]]:
    """Return the ids of prompt and reply, and which of them hold reply text.

    The two are tokenised together, as the trained model will see them, and a token
    belongs to the reply when it holds any of its bytes. So the first reply token is
    trained too, which the released code's separate tokenisation leaves out.

    Args:
      text_tokenizer: of the model.
      prompt: text of the prompt.
      reply: text of the reply, from its leading space to its end mark.
    """
    ids = text_tokenizer.encode(prompt + reply)
    border = len(prompt.encode())
    end, is_reply = 0, []
    for index in ids:
        end += 0 if index == text_tokenizer.bos_id else _width(text_tokenizer, index)
        is_reply.append(end > border)
    return ids, is_reply


def _width(text_tokenizer: tokenizer.Tokenizer, index: int) -> int:
    return len(text_tokenizer.token_bytes(index))
