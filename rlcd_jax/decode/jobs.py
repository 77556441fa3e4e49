"""One job of the decode engine: its queue, its replies in the making, its pace."""

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlcd_jax import processes
from rlcd_jax.decode import programs, scheduler
from rlcd_jax.decode.requests import Reply, Request, cut


@dataclasses.dataclass(frozen=True)
class JobState:
    """How far a job is; `seconds_left` from the mean pace so far."""

    done: int
    total: int
    tokens: int
    seconds: float
    tokens_per_second: float
    seconds_left: float


@dataclasses.dataclass
class _Draft:
    """A reply in the making."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    sampled_logprobs: list[float] = dataclasses.field(default_factory=list)


class DrawingJob:
    """One call of `Engine.generate`; arguments as there."""

    def __init__(
        self,
        engine: Any,
        requests: Sequence[Request],
        on_reply: Callable[[Reply], None] | None,
        progress: Callable[[JobState], None] | None,
    ):
        self._engine, self._requests = engine, requests
        self._on_reply, self._progress = on_reply, progress
        self._replies: list[Reply | None] = [None] * len(requests)
        self._drafts: dict[int, _Draft] = {}
        self._scheduler = engine.scheduler
        self._start = time.perf_counter()
        self._done = self._tokens = self._dispatches = self._passes = 0
        self._prefilled = self._slot_steps = 0

    def run(self) -> list[Reply]:
        """Sample all replies."""
        engine = self._engine
        features = engine.prepare(self._requests)
        self._scheduler.add(self._requests)
        flying: collections.deque = collections.deque()
        while self._scheduler.waiting or self._scheduler.active():
            steps = engine.steps_per_dispatch
            engine.shrink(self._scheduler.needed(steps))
            placed, passes = self._scheduler.place()
            engine.fit(self._scheduler.needed(steps))
            for one in passes:
                engine.run_pass(one)
                self._passes += 1
                self._prefilled += sum(len(work.tokens) for work in one.works)
            engine.admit(placed)
            for occupant in placed:
                self._drafts[occupant.index] = _Draft()
            if engine.may_narrow():
                while flying:  # these know their replies by the slots of before
                    self._read(*flying.popleft())
                if engine.may_narrow():
                    engine.narrow()
            if self._scheduler.unfinished():
                self._scheduler.advance(steps)
                emitted = engine.dispatch(features)
                flying.append((self._scheduler.active(), emitted))
                self._dispatches += 1
                if len(flying) <= engine.dispatches_ahead:
                    continue
            if flying:
                self._read(*flying.popleft())
        return self._replies  # type: ignore[return-value]

    def _read(self, occupants, emitted: programs.Emitted) -> None:
        """Take in the tokens of one dispatch; finish the replies that ended."""
        ids, logprobs, sampled, finish = processes.fetch(tuple(emitted))
        self._slot_steps += ids.size
        for occupant in occupants:
            slot, draft = occupant.slots[0], self._drafts.get(occupant.index)
            count = int((ids[:, slot] >= 0).sum())
            if draft is None or not count:
                continue
            draft.tokens += ids[:count, slot].tolist()
            draft.logprobs += logprobs[:count, slot].tolist()
            draft.sampled_logprobs += sampled[:count, slot].tolist()
            self._tokens += count
            if finish[-1, slot] != programs.RUNNING:
                self._finish(occupant, programs.FINISH_NAMES[int(finish[-1, slot])])
        if self._progress is not None:
            self._progress(self._report())

    def _finish(self, occupant: scheduler.Occupant, finish: str) -> None:
        self._scheduler.release(occupant)
        draft = self._drafts.pop(occupant.index)
        tokenizer = self._engine.tokenizer
        shown = draft.tokens[:-1] if finish == "eos" else draft.tokens
        raw = tokenizer.decode(shown)
        stops = occupant.request.stop_strings if finish == "stop" else ()
        reply = Reply(
            id=occupant.request.id,
            tokens=tuple(draft.tokens),
            text=cut(raw, stops),
            raw=raw,
            finish=finish,
            logprobs=tuple(draft.logprobs),
            sampled_logprobs=tuple(draft.sampled_logprobs),
        )
        self._replies[occupant.index] = reply
        self._done += 1
        if self._on_reply is not None:
            self._on_reply(reply)

    def _report(self) -> JobState:
        seconds = max(time.perf_counter() - self._start, 1e-9)
        left = (len(self._requests) - self._done) * seconds / max(self._done, 1)
        return JobState(
            done=self._done,
            total=len(self._requests),
            tokens=self._tokens,
            seconds=seconds,
            tokens_per_second=self._tokens / seconds,
            seconds_left=left,
        )

    def stats(self) -> dict[str, float]:
        """Return figures of this call."""
        report = self._report()
        return {
            "replies": self._done,
            "tokens": self._tokens,
            "seconds": report.seconds,
            "tokens_per_second": report.tokens_per_second,
            "dispatches": self._dispatches,
            "prefill_passes": self._passes,
            "prefilled_tokens": self._prefilled,
            "occupancy": self._tokens / max(self._slot_steps, 1),
            "compiles": sum(self._engine.compiles.values()),
        }

    def clear(self) -> None:
        """Leave the scheduler empty, also after an error in a callback."""
        self._scheduler.clear()
