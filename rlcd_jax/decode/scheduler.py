"""Which prompt goes into which slot, and what of it has to be computed.

Host logic of the decode engine, without JAX.  A slot keeps the keys and values of its
prompt after its reply has ended, until another prompt is put there; so the longest
common beginning of a new prompt with any slot's is copied instead of computed.  One
rule serves the two samples of a prompt, the n samples of PPO and the common beginning
of two contrast prompts.

The last token of a prompt is never prefilled: the first decode step feeds it, which
gives the logits of the first reply token without a second program for them.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from rlcd_jax.decode import requests as requests_lib

COMPARED = 16  # entries at a time: most prompts differ early


@dataclasses.dataclass(frozen=True)
class Work:
    """Put a prompt's entries [0, offset + len(tokens)) into slot `target`.

    The first `offset` entries are copied from slot `source`, the others computed.
    """

    target: int
    source: int
    offset: int
    tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pass:
    """Works that run as one program: `width` computed tokens a row (0 = copies only).

    `copies` says whether any work takes entries from a slot.
    """

    width: int
    copies: bool
    works: tuple[Work, ...]


@dataclasses.dataclass
class Occupant:
    """A request on the device: its place in the job, its slots, how far it may be.

    `slots` has one slot for each of the request's prompts; the first leads.  `entries`
    bounds the cache entries in use from above: the host lags one dispatch behind.
    """

    index: int
    request: requests_lib.Request
    slots: tuple[int, ...]
    entries: int

    @property
    def most_entries(self) -> int:
        """The cache entries in use when the longest reply has been drawn."""
        longest = max(len(prompt) for prompt in self.request.prompts)
        return longest - 1 + self.request.max_new_tokens


class Scheduler:
    """The queue, the slots and what each slot's cache holds.

    Args:
      num_slots: M.
      max_length: entries of a slot.
      widths: the prompt lengths a prefill program may have, ascending.
      rows: (width, copies) -> rows of the prefill program of that width, which goes
        on from copied entries or not; (0, True) -> rows of the copy program.
      shards: equal parts of the slots, each on devices of its own; entries are copied
        within a part only, and each part has its share of a program's rows.
    """

    def __init__(
        self,
        *,
        num_slots: int,
        max_length: int,
        widths: Sequence[int],
        rows: dict[tuple[int, bool], int],
        shards: int = 1,
    ):
        self._widths, self._rows = tuple(widths), rows
        self._queue: collections.deque = collections.deque()
        self.shards, self._max_length = shards, max_length
        self.reset(num_slots)

    def reset(self, num_slots: int) -> None:
        """Have so many slots, empty ones; what was in them must be finished."""
        self._own = num_slots // self.shards
        # All parts in turn: so their rows of a program are used alike.
        order = np.arange(num_slots).reshape(self.shards, -1).T.flatten()
        self._free = collections.deque(order.tolist())
        held = (num_slots, self._max_length)
        self._held = np.full(held, -1, np.int32)  # prompts in slots
        self.occupants: list[Occupant | None] = [None] * num_slots

    def add(self, requests: Sequence[requests_lib.Request]) -> None:
        """Put requests at the end of the queue."""
        self._queue.extend(enumerate(requests))

    def forget(self, beyond: int = 0) -> None:
        """Forget what the slots hold from entry `beyond` on: it is there no more."""
        self._held[:, beyond:] = -1

    def clear(self) -> None:
        """Drop the queue and free all slots."""
        self._queue.clear()
        for occupant in self.active():
            self.release(occupant)

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._queue)

    def active(self) -> list[Occupant]:
        """Return the requests on the device, each once."""
        return [
            one
            for slot, one in enumerate(self.occupants)
            if one is not None and one.slots[0] == slot
        ]

    def unfinished(self) -> bool:
        """Whether some reply may need more tokens than were already asked for."""
        return any(one.entries < one.most_entries for one in self.active())

    def release(self, occupant: Occupant) -> None:
        """Free the slots of a finished request."""
        for slot in occupant.slots:
            self.occupants[slot] = None
            self._free.append(slot)

    def advance(self, num_steps: int) -> None:
        """Note that all requests on the device go on by `num_steps` tokens."""
        for one in self.active():
            one.entries = min(one.entries + num_steps, one.most_entries)

    def needed(self, num_steps: int) -> int:
        """Return the cache entries that `num_steps` more tokens need, of any slot."""
        entries = (min(x.entries + num_steps, x.most_entries) for x in self.active())
        return max(entries, default=1)

    def left(self) -> int:
        """Return how many tokens may still come, of any reply."""
        entries = (one.most_entries - one.entries for one in self.active())
        return max(entries, default=0)

    def fitting(self) -> int:
        """Return the fewest slots, a power of two in each part, that hold what goes on.

        All there are, while requests wait.
        """
        if self._queue:
            return len(self.occupants)
        most = int(self._busy().sum(axis=1).max())
        return min(self.shards * _power_of_two(most), len(self.occupants))

    def narrow(self, num_slots: int) -> np.ndarray:
        """Move what goes on to fewer slots, at least `fitting`, each within its part.

        Returns:
          The slot that each of the new ones was before, [num_slots].
        """
        order = np.argsort(~self._busy(), axis=1, kind="stable")
        order = order[:, : num_slots // self.shards]
        were = (order + self._own * np.arange(self.shards)[:, None]).flatten()
        now = {int(old): new for new, old in enumerate(were)}
        for one in self.active():
            one.slots = tuple(now[slot] for slot in one.slots)
        self._own = num_slots // self.shards
        self._held = self._held[were]
        self.occupants = [self.occupants[slot] for slot in were]
        free = (n for n, one in enumerate(self.occupants) if one is None)
        self._free = collections.deque(free)
        return were

    def _busy(self) -> np.ndarray:
        """Return which slots have an occupant, by part, bool [shards, slots of one]."""
        busy = np.array([one is not None for one in self.occupants])
        return busy.reshape(self.shards, -1)

    def place(self) -> tuple[list[Occupant], list[Pass]]:
        """Move requests from the queue into free slots.

        A prefill program costs the same with one row as with all; so slots are filled
        a whole program at a time while others go on.

        Returns:
          The requests placed, and the passes to run before their first decode step,
          in order.
        """
        if not self._worth_it():
            return [], []
        placed: list[Occupant] = []
        plan = _Plan()
        while self._queue:
            index, request = self._queue[0]
            if len(request.prompts) > len(self._free):
                break
            self._queue.popleft()
            slots = tuple(self._put(prompt, plan) for prompt in request.prompts)
            longest = max(len(prompt) for prompt in request.prompts)
            occupant = Occupant(index, request, slots, longest - 1)
            for slot in slots:
                self.occupants[slot] = occupant
            placed.append(occupant)
        return placed, list(self._passes(plan))

    def _worth_it(self) -> bool:
        if not self._queue:
            return False
        first = self._queue[0][1].tokens[: self._widths[-1]]
        batch = self._rows[self._width(len(first)), False]
        batch = min(batch, len(self.occupants) // 4)
        ahead = itertools.islice(self._queue, max(batch, 1))
        needed = sum(len(request.prompts) for _, request in ahead)
        idle = len(self._free) == len(self.occupants)
        return idle or len(self._free) >= min(max(batch, 1), needed)

    def _put(self, prompt: Sequence[int], plan: "_Plan") -> int:
        """Take a free slot for a prompt and plan the work it needs; return the slot."""
        body = np.asarray(prompt[:-1], np.int32)
        shared = self._common(body)
        if self.shards > 1:
            parts = {slot // self._own for slot in self._free}
            away = [part for part in range(self.shards) if part not in parts]
            shared.reshape(self.shards, -1)[away] = 0
        source = int(np.argmax(shared))
        offset = int(shared[source])
        if self._cost(len(body) - offset) >= self._cost(len(body)):
            source, offset = self._free[0], 0
        part = source // self._own
        near = (slot for slot in self._free if slot // self._own == part)
        slot = source if source in self._free else next(near)
        self._free.remove(slot)
        if slot != source or offset < len(body):
            plan.add(slot, source, offset, self._chunks(body[offset:]))
        self._held[slot] = -1
        self._held[slot, : len(body)] = body
        return slot

    def _common(self, body: np.ndarray) -> np.ndarray:
        """Return how many leading entries of each slot are those of `body`, [M]."""
        shared = np.zeros(len(self._held), np.int64)
        alike = np.arange(len(self._held))  # slots that differ in no entry so far
        for start in range(0, len(body), COMPARED):
            own = body[start : start + COMPARED]
            same = self._held[alike, start : start + len(own)] == own
            shared[alike] += np.cumprod(same, axis=1).sum(axis=1)
            alike = alike[same.all(axis=1)]
            if not len(alike):
                break
        return shared

    def _cost(self, length: int) -> int:
        return sum(self._width(len(chunk)) for chunk in self._chunks(range(length)))

    def _width(self, length: int) -> int:
        return _least(self._widths, length) if length else 0

    def _chunks(self, tokens: Sequence[int]) -> list[Sequence[int]]:
        widest = self._widths[-1]
        return [tokens[i : i + widest] for i in range(0, len(tokens), widest)]

    def _passes(self, plan: "_Plan") -> Iterator[Pass]:
        for level in plan.levels:
            by_shape: dict[tuple, list[Work]] = collections.defaultdict(list)
            for work in level:
                copies = work.offset > 0
                by_shape[self._width(len(work.tokens)), copies].append(work)
            for (width, copies), works in sorted(by_shape.items()):
                size = self._rows[width, copies] // self.shards
                yield from (
                    Pass(width, copies, group) for group in self._groups(works, size)
                )

    def _groups(self, works: list[Work], size: int) -> Iterator[tuple[Work, ...]]:
        """Yield works in groups that have `size` of each part of the slots at most."""
        parts: list[list[Work]] = [[] for _ in range(self.shards)]
        for work in works:
            parts[work.target // self._own].append(work)
        for start in range(0, max(map(len, parts)), size):
            yield tuple(itertools.chain(*(x[start : start + size] for x in parts)))


class _Plan:
    """Works in levels: what a work reads is written in an earlier level."""

    def __init__(self) -> None:
        self.levels: list[list[Work]] = []
        self._written: dict[int, int] = {}
        self._read: dict[int, int] = {}

    def add(
        self, slot: int, source: int, offset: int, chunks: list[np.ndarray]
    ) -> None:
        level = 1 + max(self._written.get(source, -1), self._read.get(slot, -1))
        for chunk in chunks or [np.zeros(0, np.int32)]:
            while len(self.levels) <= level:
                self.levels.append([])
            self.levels[level].append(Work(slot, source, offset, chunk))
            self._read[source] = max(level, self._read.get(source, -1))
            self._written[slot] = level
            source, offset, level = slot, offset + len(chunk), level + 1


def _power_of_two(least: int) -> int:
    return 1 << max(0, least - 1).bit_length()


def _least(sizes: Sequence[int], needed: int) -> int:
    """Return the smallest size that is at least `needed`."""
    return next(size for size in sizes if size >= needed)
