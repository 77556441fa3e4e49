"""Texts side by side in rows of one width, so that training computes no padding.

A batch stays the same set of examples, and its loss and gradient stay what they are:
only where the tokens lie changes. A row holds several texts, each in one piece and
with a number of its own (`segments`), so that it sees itself alone, from position 0.

A stage has one number of rows, and each batch rows as wide as its texts need: a width
rises by few tokens and a number of rows by whole rows, which for few texts is much.

Where it spares work, texts of an example that begin alike, as replies to one prompt do,
share their beginning: it stands once in their row, what follows of each behind it.

Letters: B examples of K texts each, M parts of a batch, N rows of a part, W tokens of
a row, C states of a row whose next token is wanted, R wanted of a text at most, S
places of a row in which texts that share beginnings are laid out whole.
Example i of the arrays and row i of the rows belong to part i % M, as
`train_state.accumulate` takes them. What the rows hold is `training.row_arrays`.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

SHORT = 256  # tokens; rows of shorter texts are half as long again
STEP = 16  # tokens by which widths rise
WIDEST = 2048  # tokens of a row, about, where nothing chose their number
FEWEST = 2  # rows: of one alone XLA for CPUs takes a tenth longer for its gradients
PARTS_OF_WIDTH = 8  # C of few sizes is a multiple of this part of W
PROGRAM_UPDATES = 20  # updates that one more compiled program is worth
SPARED = 0.1  # of the work, at least, where beginnings are shared: it has a price
# Of the longest text: shorter beginnings are not shared; texts apart fill rows better.
SHORTEST_SHARED = 1 / 16


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
    """How large the arrays of a part are.

    Attributes:
      rows: N.
      width: W.
      states: C.
      whole: S; 0: no text shares its beginning.
    """

    rows: int
    width: int
    states: int
    whole: int = 0


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the texts of a batch lie.

    Attributes:
      order: [B] which example stands at each place of the arrays.
      rows: [B, K] the row of each text within its part, by place.
      starts: [B, K] where in the row it begins.
      shared: [B] the tokens with which its texts begin, and that they share; 0: none.
      size: what the fullest part needs.
    """

    order: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    shared: np.ndarray
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
      shares: tokens of a beginning that an example's texts share, at least; 0: none.
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
    shares: int = 0

    def __post_init__(self) -> None:
        if 0 < self.width < self.longest:
            raise ValueError(
                f"rows of {self.width} tokens for texts of up to {self.longest}; "
                "accepted: rows as wide as those or wider"
            )

    def choose(self, batches: Sequence[Sequence[Sequence[Text]]]) -> Packer:
        """Return how batches are packed with the least work: in rows of which number.

        Beginnings are shared if that spares `SPARED` of it.

        Args:
          batches: the examples of each.
        """
        apart, work = self._least(batches)
        if not _may_share(batches):
            return apart
        shortest = max(1, round(self.longest * SHORTEST_SHARED))
        sharing = dataclasses.replace(self, shares=shortest)
        together, spared = sharing._least(batches)
        return together if spared <= (1 - SPARED) * work else apart

    def _least(
        self, batches: Sequence[Sequence[Sequence[Text]]]
    ) -> tuple[Packer, float]:
        """Return the packer of rows with the least work, of equal ones the most rows.

        From the usual number on, in steps of an eighth, up to rows no wider than what
        has to lie in one piece.
        """
        lengths = [
            [_pieces(example, self.shared_by(example)) for example in one]
            for one in batches
        ]
        longest = max(length for one in lengths for own in one for length in own)
        best, least, rows = self, math.inf, self._first_rows(lengths)
        while True:
            tried = dataclasses.replace(self, rows=rows)
            widths = [tried.place(one).size.width for one in batches]
            work = sum(
                rows * width * (self.work(width) if self.work else 1)
                for width in widths
            )
            if work <= least:
                best, least = tried, work
            if max(widths) <= _rounded_up(longest, STEP):
                return best, least
            rows = _rounded_up(rows + max(1, rows // 8), self.ways)

    def _first_rows(self, lengths: Sequence[Sequence[Sequence[int]]]) -> int:
        """Return the least N that is tried for pieces of known lengths.

        Texts that share nothing have the usual number. Of an example's texts together
        all may be as long as accepted, and none is, about: what counts is their mean.
        """
        examples = len(lengths[0]) // self.parts
        texts = examples * len(lengths[0][0])
        if not self.shares:
            return usual_rows(texts, self.longest, self.ways)
        mean = float(np.mean(lengths)) * texts
        least = max(math.ceil(mean / WIDEST), min(examples, FEWEST))
        return _rounded_up(least, self.ways)

    def shared_by(self, example: Sequence[Text]) -> int:
        """Return the tokens of the beginning that an example's texts share; 0: none."""
        if not self.shares:
            return 0
        shared = common_beginning(example)
        return shared if shared >= self.shares else 0

    def place(self, examples: Sequence[Sequence[Text]]) -> Places:
        """Return where the texts lie: the longest first, each where it fits best.

        Raises:
          ValueError: a text is longer than there may be.
        """
        texts = np.array([[text.length for text in one] for one in examples])
        if texts.max() > self.longest:
            raise ValueError(
                f"a text has {texts.max()} tokens and at most {self.longest} are "
                "accepted; leave it out, shorten it, or allow a longer one"
            )
        wanted = np.array([[len(text.wanted) for text in one] for one in examples])
        shared = np.array([self.shared_by(one) for one in examples])
        lengths = np.array(list(map(_pieces, examples, shared)))
        order = _dealt(lengths.sum(axis=1), self.parts)
        own = [lengths[order[part :: self.parts]] for part in range(self.parts)]
        num_rows, width, found = self._fit([part.ravel().tolist() for part in own])
        rows, starts = np.zeros_like(lengths), np.zeros_like(lengths)
        states = min(self.wanted, 1)  # a program reads one, if any
        whole = 0
        for part, (row, start) in enumerate(found):
            mine = slice(part, None, self.parts)
            together = shared[order[mine]][:, None] > 0
            row, start = (x.reshape(own[part].shape) for x in (row, start))
            rows[mine] = np.where(together, row[:, :1], row)
            starts[mine] = np.where(together, start[:, :1], start)
            of_rows = functools.partial(np.bincount, rows[mine].ravel())
            states = max(states, int(of_rows(wanted[order[mine]].ravel()).max()))
            if self.shares:
                whole = max(whole, self._whole(of_rows, texts[order[mine]].ravel()))
        size = Size(num_rows, width, states, whole)
        return Places(order, rows, starts, shared[order], size)

    def _whole(
        self, of_rows: Callable[[np.ndarray], np.ndarray], lengths: np.ndarray
    ) -> int:
        """Return S for the texts of a part.

        Args:
          of_rows: numbers of texts -> their sums by row.
          lengths: of the texts.
        """
        whole = _rounded_up(max(1, int(of_rows(lengths).max())), STEP)
        texts = int(of_rows(lengths > 0).max())
        while self.most and self.most(whole) < texts:
            whole += STEP
        return whole

    def _fit(
        self, parts: Sequence[Sequence[int]]
    ) -> tuple[int, int, list[tuple[np.ndarray, np.ndarray]]]:
        """Return N, W, and row and start of each piece of each part.

        Args:
          parts: lengths of the pieces of each.
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
        limited = self.most is not None and not self.shares  # which `_whole` sees to
        most = self.most(width) if limited else None
        found = [_best_fit(part, width, most) for part in parts]
        return max(int(rows.max()) + 1 for rows, _ in found), found

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


def _pieces(example: Sequence[Text], shared: int) -> list[int]:
    """Return the tokens of each piece: every text is one, or the first is all.

    Args:
      example: its texts.
      shared: tokens of the beginning that they share; 0: none.
    """
    lengths = [text.length for text in example]
    if not shared:
        return lengths
    texts = sum(length > 0 for length in lengths)
    return [sum(lengths) - shared * (texts - 1), *[0] * (len(lengths) - 1)]


def _may_share(batches: Sequence[Sequence[Sequence[Text]]]) -> bool:
    """Return whether there are several texts an example, and nothing unseen."""
    examples = [example for one in batches for example in one]
    return len(examples[0]) > 1 and not any(
        text.unseen for example in examples for text in example
    )


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


def common_beginning(example: Sequence[Text]) -> int:
    """Return with how many tokens all texts of an example begin that are not empty."""
    texts = [text.ids for text in example if len(text.ids)]
    shortest = min(map(len, texts), default=0)
    heads = [list(one[:shortest]) for one in texts]
    ids = np.array(heads).reshape(len(texts), shortest)
    differ = np.flatnonzero((ids != ids[:1]).any(axis=0))
    return int(differ[0]) if differ.size else shortest


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
