"""Texts side by side in rows of one width, so that training computes no padding.

A batch stays the same set of examples, and its loss and gradient stay what they are:
only where the tokens lie changes. A row holds several texts, each in one piece and
with a number of its own (`segments`), so that it sees itself alone, from position 0.

A stage has one number of rows, and each batch rows as wide as its texts need: a width
rises by few tokens and a number of rows by whole rows, which for few texts is much.

Letters: B examples of K texts each, M parts of a batch, N rows of a part, W tokens of
a row, C states of a row whose next token is wanted, R wanted of a text at most.
Example i of the arrays and row i of the rows belong to part i % M, as
`train_state.accumulate` takes them. Host code on lists of ids, except `unpack`.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

SHORT = 256  # tokens; rows of shorter texts are half as long again
STEP = 16  # tokens by which widths rise
WIDEST = 2048  # tokens of a row, about, where nothing chose their number
FEWEST = 2  # rows: of one alone XLA for CPUs takes a tenth longer for its gradients
PARTS_OF_WIDTH = 8  # C of few sizes is a multiple of this part of W
PROGRAM_UPDATES = 20  # updates that one more compiled program is worth


@dataclasses.dataclass(frozen=True)
class Text:
    """A text as a model reads it.

    Attributes:
      ids: its tokens.
      wanted: places of the tokens before which a state is read, rising, from 1.
      unseen: padding behind it that is computed too: it sees the text at the position
        of its last token, and no token sees it. For statistics "as released".
    """

    ids: Sequence[int]
    wanted: Sequence[int] = ()
    unseen: int = 0

    @property
    def length(self) -> int:
        """The tokens of a row that it takes."""
        return len(self.ids) + self.unseen


@dataclasses.dataclass(frozen=True)
class Size:
    """How many rows a part has, how wide they are, how many states of one are read."""

    rows: int
    width: int
    states: int


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the texts of a batch lie.

    Attributes:
      order: [B] which example stands at each place of the arrays.
      rows: [B, K] the row of each text within its part, by place.
      starts: [B, K] where in the row it begins.
      size: what the fullest part needs.
    """

    order: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    size: Size


@dataclasses.dataclass(frozen=True)
class Packer:
    """How the batches of a stage are packed.

    Attributes:
      longest: text that there may be, in tokens; no token sees another farther away.
      parts: M.
      ways: devices among which the rows of a part are split.
      pad_id: stands where no token is.
      wanted: R, of every batch; 0: no states are read.
      rows: N, a multiple of `ways`; 0: `usual_rows` of the texts that a batch has.
      width: W, of rows as many as a batch needs; 0: as its texts need it for N rows.
      most: (W) -> texts of a row; None: as many as it has room for.
      work: (W) -> operations of a token in a row, to compare widths by; None: as many
        in every row.
    """

    longest: int
    parts: int
    ways: int
    pad_id: int
    wanted: int
    rows: int = 0
    width: int = 0
    most: Callable[[int], int] | None = None
    work: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        if 0 < self.width < self.longest:
            raise ValueError(
                f"rows of {self.width} tokens for texts of up to {self.longest}; "
                "accepted: rows as wide as those or wider"
            )

    def choose_rows(self, batches: Sequence[Sequence[Sequence[Text]]]) -> int:
        """Return N with which batches take the least work, of equal ones the largest.

        From the usual number on, in steps of an eighth, up to rows no wider than the
        longest text.

        Args:
          batches: the examples of each.
        """
        longest = max(text.length for one in batches for e in one for text in e)
        texts = len(batches[0]) // self.parts * len(batches[0][0])
        rows = usual_rows(texts, self.longest, self.ways)
        best, least = rows, math.inf
        while True:
            tried = dataclasses.replace(self, rows=rows)
            widths = [tried.place(one).size.width for one in batches]
            work = sum(
                rows * width * (self.work(width) if self.work else 1)
                for width in widths
            )
            if work <= least:
                best, least = rows, work
            if max(widths) <= _rounded_up(longest, STEP):
                return best
            rows = _rounded_up(rows + max(1, rows // 8), self.ways)

    def place(self, examples: Sequence[Sequence[Text]]) -> Places:
        """Return where the texts lie: the longest first, each where it fits best.

        Raises:
          ValueError: a text is longer than there may be.
        """
        lengths = np.array([[text.length for text in one] for one in examples])
        if lengths.max() > self.longest:
            raise ValueError(
                f"a text has {lengths.max()} tokens and at most {self.longest} are "
                "accepted; leave it out, shorten it, or allow a longer one"
            )
        wanted = np.array([[len(text.wanted) for text in one] for one in examples])
        order = _dealt(lengths.sum(axis=1), self.parts)
        own = [lengths[order[part :: self.parts]] for part in range(self.parts)]
        num_rows, width, found = self._fit([part.ravel().tolist() for part in own])
        rows, starts = np.zeros_like(lengths), np.zeros_like(lengths)
        states = min(self.wanted, 1)  # a program reads one, if any
        for part, (row, start) in enumerate(found):
            mine = slice(part, None, self.parts)
            rows[mine] = row.reshape(own[part].shape)
            starts[mine] = start.reshape(own[part].shape)
            counts = np.bincount(row, weights=wanted[order[mine]].ravel())
            states = max(states, int(counts.max()))
        return Places(order, rows, starts, Size(num_rows, width, states))

    def _fit(
        self, parts: Sequence[Sequence[int]]
    ) -> tuple[int, int, list[tuple[np.ndarray, np.ndarray]]]:
        """Return N, W, and row and start of each text of each part.

        Args:
          parts: lengths of the texts of each.
        """
        if self.width:
            needed, found = self._lay(parts, self.width)
            return _rounded_up(needed, self.ways), self.width, found
        rows = self.rows or usual_rows(len(parts[0]), self.longest, self.ways)
        fullest = max(max(*part, -(-sum(part) // rows)) for part in parts)
        width = _rounded_up(max(1, fullest), STEP)
        while True:
            needed, found = self._lay(parts, width)
            if needed <= rows:
                return rows, width, found
            width += STEP

    def _lay(
        self, parts: Sequence[Sequence[int]], width: int
    ) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
        """Return the rows that the fullest part takes, and each as `_best_fit` does."""
        most = self.most(width) if self.most else None
        found = [_best_fit(part, width, most) for part in parts]
        return max(int(rows.max()) + 1 for rows, _ in found), found

    def fill(
        self, examples: Sequence[Sequence[Text]], places: Places, size: Size
    ) -> dict[str, np.ndarray]:
        """Return the rows of a batch.

        Args:
          examples: of the batch.
          places: of `place`.
          size: as large as `places.size`, or larger.

        Returns:
          "tokens" and "segments" [M N, W] int32. Where no states are read, "ends"
          [B, K] int32: the last token of each text as an index of a part's flattened
          rows. Else "states" [M N, C] int32, the places in a row of those that are
          read, "at" [B, K, R] int32, those of an example as indices of a part's
          flattened states, and "counted" [B, K, R] bool, False where "at" is no
          state; of one text without the axis K.
        """
        total = self.parts * size.rows
        out = {
            "tokens": np.full((total, size.width), self.pad_id, np.int32),
            "segments": np.zeros((total, size.width), np.int32),
        }
        if not self.wanted:
            out["ends"] = np.zeros(places.rows.shape, np.int32)
        else:
            out["states"] = np.zeros((total, size.states), np.int32)
            shape = (*places.rows.shape, self.wanted)
            out["at"] = np.zeros(shape, np.int32)
            out["counted"] = np.zeros(shape, bool)
        filled = np.zeros(total, int)  # states of each row
        for place, example in enumerate(places.order):
            for k, text in enumerate(examples[example]):
                row, start = places.rows[place, k], places.starts[place, k]
                line = row * self.parts + place % self.parts
                end, number = start + len(text.ids), place * len(examples[0]) + k + 1
                out["tokens"][line, start:end] = text.ids
                out["segments"][line, start:end] = number
                out["segments"][line, end : end + text.unseen] = -number
                if not self.wanted:
                    out["ends"][place, k] = row * size.width + end - 1
                    continue
                first, num = filled[line], len(text.wanted)
                filled[line] += num
                before = start + np.asarray(text.wanted) - 1
                out["states"][line, first : first + num] = before
                out["at"][place, k, :num] = row * size.states + first + np.arange(num)
                out["counted"][place, k, :num] = True
        if self.wanted and places.rows.shape[1] == 1:
            out |= {name: out[name][:, 0] for name in ("at", "counted")}
        return out

    def stepped(self, size: Size, texts: int) -> Size:
        """Return the next size of few, where later batches are not known yet.

        The more texts, the nearer to their mean what they take together is: so widths
        rise by a part of the widest that falls with the root of their number.

        Args:
          size: that is needed.
          texts: of a part.
        """
        widest = -(-texts // size.rows) * self.longest
        steps = int(widest / (2 * math.sqrt(texts))) // STEP
        step = STEP << max(steps.bit_length() - 1, 0)  # twice and twice again
        width = _rounded_up(size.width, step)
        width = min(width, _rounded_up(widest, STEP))  # the last is no wider
        width = max(width, size.width)
        return Size(size.rows, width, stepped_states(size.states, width))


def usual_rows(texts: int, longest: int, ways: int) -> int:
    """Return N for texts of which nothing is known: few rows, `WIDEST` at the widest.

    Args:
      texts: of a part.
      longest: of them, in tokens.
      ways: as `Packer`'s.
    """
    in_a_row = max(1, WIDEST // longest)
    return _rounded_up(max(-(-texts // in_a_row), min(texts, FEWEST)), ways)


def stepped_states(needed: int, width: int) -> int:
    """Return the next C of few for rows of W = `width`, of which some are needed."""
    return min(_rounded_up(needed, -(-width // PARTS_OF_WIDTH)), width)


def useful_share(segments: np.ndarray) -> float:
    """Return how many of the tokens of rows [N, W] are of a text, in [0, 1]."""
    return float(np.mean(segments > 0))


def row_width(longest: int) -> int:
    """Return W for texts of at most `longest` tokens, in as many rows as are needed.

    The longest text, for most texts are far shorter; where all are short, room for a
    second one beside it: attention over so few tokens costs little.
    """
    return longest if longest >= SHORT else _rounded_up(longest * 3 // 2, STEP)


def choose_widths(needed: Sequence[int]) -> list[int]:
    """Return how wide the rows of each batch of a training are.

    Every width is compiled once, so few widths are better than the smallest for each:
    tokens in all, with `PROGRAM_UPDATES` mean batches a width, are fewest.

    Args:
      needed: by each batch.

    Returns:
      For each batch a width that is as large or larger.
    """
    kinds, counts = np.unique(np.asarray(needed), return_counts=True)
    price = PROGRAM_UPDATES * float(np.mean(needed))
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # of the first kinds
    for last, size in enumerate(kinds.tolist(), start=1):
        best.append(
            min(
                (cost + price + size * int(counts[first:last].sum()), (*sizes, size))
                for first, (cost, sizes) in enumerate(best)
            )
        )
    chosen = best[-1][1]
    return [chosen[bisect.bisect_left(chosen, one)] for one in needed]


def unpack(values: jax.Array, at: jax.Array) -> jax.Array:
    """Return entries of packed rows by example.

    Args:
      values: [N, C] or [N, W], a number for each state or token of a part's rows.
      at: [B / M, …] int32, indices of the flattened rows.

    Returns:
      An array like `at`.
    """
    return jnp.take(values.reshape(-1), at, axis=0)


def _best_fit(
    lengths: Sequence[int], width: int, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return row and start of each text: best fit, in falling order of length.

    Args:
      lengths: of the texts.
      width: of a row.
      most: texts of a row, if that is limited.
    """
    rows, starts = np.zeros(len(lengths), int), np.zeros(len(lengths), int)
    free: list[tuple[int, int]] = []  # room and number of each row, rising
    taken: list[int] = []  # texts of each row
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        found = bisect.bisect_left(free, (lengths[index], -1))
        if found < len(free):
            room, row = free.pop(found)
        else:
            room, row = width, len(taken)
            taken.append(0)
        rows[index], starts[index] = row, width - room
        taken[row] += 1
        if taken[row] != most:
            bisect.insort(free, (room - lengths[index], row))
    return rows, starts


def _dealt(totals: np.ndarray, parts: int) -> np.ndarray:
    """Return an order in which each of the parts has as many tokens, about.

    Falling by tokens they are dealt out forth and back, as players choose teams.
    """
    if parts == 1:
        return np.arange(len(totals))
    rounds = np.argsort(-totals, kind="stable").reshape(-1, parts)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.ravel()


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step
