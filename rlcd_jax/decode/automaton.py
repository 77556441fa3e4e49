"""Stop strings and forbidden strings as one table over tokens.

A string may begin inside one token and end inside another, and may be spelled by many
token sequences.  So the strings are searched in bytes: an Aho-Corasick automaton over
all stop and forbidden strings of a request, run over the bytes of every token from
every state, gives a table `code[state, token]`.  On the device one gather a token then
says whether a string was completed, and one row of the table says which tokens would
complete a forbidden one, however they are spelled.

Plain NumPy; several sets of strings share one table of a fixed number of rows, so that
new strings never change the shape of a compiled program.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STATE_MASK = (1 << 12) - 1
STOP = 1 << 12  # the token completes a stop string
EOS = 1 << 13  # the token ends the reply
FORBIDDEN = 1 << 14  # the token completes a forbidden string

Ids = tuple[int, ...]


class StringSet(NamedTuple):
    """What one request stops at and what it may not draw.

    Attributes:
      stop: strings.
      forbidden: strings, however tokens spell them.
      forbidden_ids: tokens that may not be drawn one after another, whatever their
        text; other tokens may spell the same.
    """

    stop: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    forbidden_ids: tuple[Ids, ...] = ()


class TokenTable:
    """The table of all string sets in use, rebuilt when an unknown set appears.

    Args:
      token_bytes: the bytes each token id adds to the text, empty for special tokens.
      eos_ids: the token ids that end a reply.
      vocab_size: columns of the table: the model's vocabulary, which may be larger
        than the tokenizer's.
      num_states: rows of the table.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        eos_ids: Sequence[int],
        vocab_size: int,
        num_states: int,
    ):
        if not 1 <= num_states <= STATE_MASK + 1:
            raise ValueError(
                f"num_states={num_states}; accepted: 1 to {STATE_MASK + 1}"
            )
        if len(token_bytes) > vocab_size:
            raise ValueError(
                f"the tokenizer has {len(token_bytes)} tokens but the model's "
                f"vocabulary only {vocab_size}; load the model's own tokenizer"
            )
        self._bytes, self._lengths = _byte_matrix(token_bytes, vocab_size)
        self._eos_ids = list(eos_ids)
        self._num_known = len(token_bytes)
        self._num_states = num_states
        self.roots: dict[StringSet, int] = {}
        self._rows: dict[StringSet, np.ndarray] = {}

    @property
    def always_forbids(self) -> bool:
        """Whether the model has ids that the tokenizer does not know."""
        return self._num_known < len(self._bytes)

    def add(self, sets: Sequence[StringSet]) -> bool:
        """Make room for these string sets; True if the table has to be sent again.

        The sets already there stay unless there is no room for all.

        Raises:
          ValueError: the sets alone need more rows than the table has.
        """
        wanted = dict.fromkeys(sets)
        if all(one in self.roots for one in wanted):
            return False
        for one in wanted:
            if one not in self._rows:
                self._rows[one] = self._build(*one)
        needed = sum(len(self._rows[one]) for one in wanted)
        if needed > self._num_states:
            raise ValueError(
                f"the stop and forbidden strings of these requests need {needed} rows "
                f"of the string table, which has {self._num_states}; use fewer "
                f"different sets at a time or string_states={needed}"
            )
        if needed + sum(len(self._rows[one]) for one in self.roots) > self._num_states:
            self.roots.clear()
        used = sum(len(self._rows[one]) for one in self.roots)
        for one in wanted:
            if one not in self.roots:
                self.roots[one] = used
                used += len(self._rows[one])
        return True

    def table(self) -> np.ndarray:
        """Return code[state, token], [num_states, vocab_size] int16."""
        table = np.zeros((self._num_states, self._bytes.shape[0]), np.int16)
        for one, root in self.roots.items():
            rows = self._rows[one]
            table[root : root + len(rows)] = rows + np.int16(root)
        return table

    def _build(
        self,
        stop: tuple[str, ...],
        forbidden: tuple[str, ...],
        forbidden_ids: tuple[Ids, ...] = (),
    ) -> np.ndarray:
        """Return the rows of one set, states counted from 0, [states, V] int16."""
        if "" in stop or "" in forbidden:
            raise ValueError("an empty string cannot be a stop or forbidden string")
        follow, marks = aho_corasick(
            [(text.encode(), STOP) for text in stop]
            + [(text.encode(), FORBIDDEN) for text in forbidden]
        )
        states = np.arange(len(follow))[:, None]  # from every state …
        state = np.broadcast_to(states, (len(follow), len(self._bytes))).copy()
        seen = np.zeros_like(state)
        for place in range(self._bytes.shape[1]):  # … over the bytes of every token
            open_ = np.flatnonzero(self._lengths > place)
            moved = follow[state[:, open_], self._bytes[open_, place][None]]
            state[:, open_] = moved
            seen[:, open_] |= marks[moved]
        rows = state | seen
        if forbidden_ids:
            rows = _with_ids(rows, forbidden_ids)
        ends = [one for one in self._eos_ids if one < rows.shape[1]]
        rows[:, ends] = EOS
        rows[:, self._num_known :] = FORBIDDEN  # ids without a text
        return rows.astype(np.int16)


def _with_ids(rows: np.ndarray, forbidden: Sequence[Ids]) -> np.ndarray:
    """Return the rows of a set that forbids sequences of tokens too.

    A state is one of the strings' and the tokens so far that begin a sequence: state
    s * Q + q for beginning q of Q.

    Args:
      rows: [states, V] of the strings alone.
      forbidden: sequences of ids below V, none empty.

    Returns:
      [states * Q, V].
    """
    begun = sorted({one[:size] for one in forbidden for size in range(len(one))})
    follow = np.zeros((len(begun), rows.shape[1]), rows.dtype)
    bars = np.zeros_like(follow)
    for number, before in enumerate(begun):
        for token in {token for one in forbidden for token in one}:
            ends = (*before, token)
            tails = [ends[place:] for place in range(len(ends) + 1)]
            follow[number, token] = begun.index(next(t for t in tails if t in begun))
            bars[number, token] = FORBIDDEN * any(t in forbidden for t in tails)
    states, marks = rows & STATE_MASK, rows & ~STATE_MASK
    paired = states[:, None] * len(begun) + follow[None] | marks[:, None] | bars[None]
    return paired.reshape(-1, rows.shape[1])


def aho_corasick(strings: Sequence[tuple[bytes, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the byte automaton that finds all strings.

    Args:
      strings: (bytes, mark) pairs.

    Returns:
      follow [states, 256] int64, the next state for each byte; marks [states] int64,
      the marks of all strings that end in a state.  State 0 is the start.
    """
    children: list[dict[int, int]] = [{}]
    marks = [0]
    for text, mark in strings:
        state = 0
        for byte in text:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                marks.append(0)
            state = children[state][byte]
        marks[state] |= mark
    follow = np.zeros((len(children), 256), np.int64)
    fallback = [0] * len(children)
    queue = collections.deque([0])
    while queue:
        state = queue.popleft()
        follow[state] = follow[fallback[state]] if state else 0
        for byte, child in children[state].items():
            fallback[child] = int(follow[state, byte]) if state else 0
            marks[child] |= marks[fallback[child]]
            follow[state, byte] = child
            queue.append(child)
    return follow, np.asarray(marks, np.int64)


def _byte_matrix(
    token_bytes: Sequence[bytes], vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return all tokens' bytes, [V, longest] uint8, and their lengths [V]."""
    lengths = np.zeros(vocab_size, np.int64)
    lengths[: len(token_bytes)] = [len(one) for one in token_bytes]
    matrix = np.zeros((vocab_size, max(int(lengths.max()), 1)), np.uint8)
    for index, one in enumerate(token_bytes):
        matrix[index, : len(one)] = np.frombuffer(one, np.uint8)
    return matrix, lengths
