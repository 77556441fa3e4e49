"""The decode engine: continuous batching over fixed slots.

A queue on the host, M slots on the device.  One dispatch draws several tokens in every
slot; while it runs, the host reads the results of the dispatch before it, takes out
finished replies, puts new prompts into their slots, and sends the next one.  A reply
stops on the device with the very token that ends it, so that a slot never draws text
that is thrown away; it only idles until the host has read that it ended.

When nothing waits any more and half of the slots or more are empty, the replies that
may still take long move to fewer slots: a step then costs what they need.

The cache is only as long as the replies in the making need: it has one of a few sizes
(`live_buckets`) and is copied to the next when that changes, so that attention reads
little more than what is there.

Programs: one for each (cache size, features of the job) to decode, one for each prompt
width, and for each (prompt width, cache size) to go on from copied entries; and small
ones without weights for each (width, cache size) that move rows.  No other length of
anything reaches the compiler, so that after `warm_up`, or after the first replies,
nothing is compiled.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from rlcd_jax import processes
from rlcd_jax.decode import automaton, jitted, jobs, layout, plan, programs, scheduler
from rlcd_jax.decode.requests import ANYWHERE, Reply, Request, check
from rlcd_jax.models import cached, llama

STRING_STATES = 128
PATIENCE = 8  # dispatches in a row that could do with a shorter cache


class Engine:
    """Samples replies from a LLaMA.

    Args:
      cfg: model numbers.
      tokenizer: has `vocab_size`, `eos_ids`, `special_ids`, `token_bytes`, `decode`.
      num_slots: replies in the making at a time, M.
      max_length: cache entries of a slot: the longest prompt and reply together.
      mesh: of `sharding.MESH_AXES`; slots are split over all but tensor, heads, the
        feed-forward and the vocabulary over tensor. None: one device.
      weights: "whole", but for tensor, or "split" over fsdp too.
      steps_per_dispatch: tokens drawn between two looks of the host.
      dispatches_ahead: dispatches sent before the results of the one before them are
        read. None: 1, and 0 on CPU, where the host has nothing to wait for and a slot
        should not idle.
      prompt_buckets: the widths of prefill programs; a longer prompt takes several.
      live_buckets: the lengths the cache may have; None: four equal steps up to
        max_length, of 128 entries at least. With cuDNN attention it always has
        max_length.
      prefill_tokens: rows times width of a prefill program; None: 256 on CPU, more
        elsewhere, where fewer leave the matrix units idle.
      tail_tokens: that the replies left at the end may still take at least, for them to
        move to fewer slots, whose programs are compiled then; 0: they never move.
      string_states: rows of the table of stop and forbidden strings: about one for
        each of their bytes.
      memory_budget: bytes a device may use; None: what the device says is free.
    """

    def __init__(
        self,
        cfg: llama.LlamaConfig,
        tokenizer: Any,
        *,
        num_slots: int,
        max_length: int,
        mesh: jax.sharding.Mesh | None = None,
        weights: str = "whole",
        steps_per_dispatch: int = 4,
        dispatches_ahead: int | None = None,
        prompt_buckets: Sequence[int] = (16, 64, 128, 256),
        live_buckets: Sequence[int] | None = None,
        prefill_tokens: int | None = None,
        tail_tokens: int = 0,
        string_states: int = STRING_STATES,
        memory_budget: int | None = None,
    ):
        if min(num_slots, steps_per_dispatch) < 1 or max_length < 2 or tail_tokens < 0:
            raise ValueError(
                f"num_slots={num_slots}, max_length={max_length}, "
                f"steps_per_dispatch={steps_per_dispatch}, tail_tokens={tail_tokens}; "
                "accepted: at least 1, 2, 1, 0"
            )
        self.cfg, self.tokenizer = layout.placed(cfg, mesh, weights), tokenizer
        self.mesh, self.weights = mesh, weights
        self.num_slots, self.max_length = num_slots, max_length
        self.steps_per_dispatch, self._tail_tokens = steps_per_dispatch, tail_tokens
        if dispatches_ahead is None:
            dispatches_ahead = 0 if jax.default_backend() == "cpu" else 1
        self.dispatches_ahead = dispatches_ahead
        self._sizes = layout.sizes(
            num_slots,
            max_length,
            mesh=mesh,
            kernel=cfg.attention,
            prompt_buckets=prompt_buckets,
            live_buckets=live_buckets,
            prefill_tokens=prefill_tokens,
        )
        self._string_states = string_states
        self.memory = self._check_memory(memory_budget)
        special = set(tokenizer.special_ids)
        spelled = [
            b"" if one in special else tokenizer.token_bytes(one)
            for one in range(tokenizer.vocab_size)
        ]
        self._strings = automaton.TokenTable(
            spelled, tokenizer.eos_ids, cfg.vocab_size, string_states
        )
        self.scheduler = scheduler.Scheduler(
            num_slots=num_slots,
            max_length=max_length,
            widths=self._sizes.widths,
            rows=self._sizes.rows,
            shards=layout.ways(mesh)[0],
        )
        self._alone: jax.sharding.Sharding | None = None  # of arrays without a mesh
        self._programs()
        self._params: Any = None
        self._slots = layout.idle_slots(num_slots)
        self._table = self._put(self._strings.table())
        self.stats: dict[str, float] = {}

    def _check_memory(self, budget: int | None) -> plan.Memory:
        memory = plan.estimate(
            self.cfg,
            self._sizes,
            num_slots=self.num_slots,
            num_steps=self.steps_per_dispatch,
            string_states=self._string_states,
            mesh=self.mesh,
            weights=self.weights,
            platform=jax.default_backend(),
        )
        budget = plan.device_budget(self.mesh) if budget is None else budget
        if budget is not None:
            plan.check(
                memory, budget, num_slots=self.num_slots, max_length=self.max_length
            )
        return memory

    def _programs(self) -> None:
        """Make the jitted programs and the small state they work on."""
        self._made = jitted.make(
            self.cfg,
            self.mesh,
            weights=self.weights,
            num_slots=self.num_slots,
            num_steps=self.steps_per_dispatch,
        )
        self._traced_before = collections.Counter(self._made.traces)
        self._cache: Any = None
        self._length, self._small_dispatches = self._sizes.lives[0], 0
        self._state = self._put(programs.idle_state(self.num_slots))

    def _ambient(self) -> Any:
        return layout.ambient(self.mesh)

    def _put(self, value: Any) -> Any:
        """Send host arrays, whole to every device."""
        if self.mesh is None:
            return jax.device_put(value, self._alone)
        return processes.place(value, self._made.shardings.whole)

    @property
    def compiles(self) -> dict[str, int]:
        """How many programs of each kind were compiled since the engine was made."""
        return dict(self._made.traces - self._traced_before)

    def load(self, params: llama.Params) -> None:
        """Take the weights of a new policy version, in training or decode form.

        The engine keeps its own copy in decode form; weights of the same shapes
        compile nothing.
        """
        self._params = None  # two versions at once would not fit where one just does
        self._begin_short()
        self._widen()
        self._settle(params["embed"])
        with self._ambient():
            if not isinstance(params["layers"], dict):
                params = jax.device_put(params, self._made.shardings.params)
            else:
                params = self._made.decode_form(params)
            self._params = self._bound(params)
            if self._cache is None:
                self._cache = self._empty()
        self.scheduler.forget()

    def _settle(self, weight: jax.Array | np.ndarray) -> None:
        """Let the engine's own arrays lie where its weights do, if that is one device.

        All are of no mesh and bound to the device: if the weights were of a mesh of one
        device, or the others not bound, what takes the results of a first program would
        be compiled again for a second.
        """
        if self.mesh is None and isinstance(weight, jax.Array):
            self._alone = jax.sharding.SingleDeviceSharding(*weight.devices())
            self._state, self._table = self._put((self._state, self._table))

    def _empty(self) -> cached.Cache:
        """Return a cache without entries."""
        return self._bound(self._made.empty(self._length))

    def _bound(self, arrays: Any) -> Any:
        """Return arrays as what `_settle` says, without a copy."""
        return arrays if self._alone is None else jax.device_put(arrays, self._alone)

    def unload(self) -> None:
        """Let weights and cache go until the next `load`: others need the room."""
        self._params = self._cache = None
        self._begin_short()
        self._widen()

    def warm_up(self, features: programs.Features | None = None) -> None:
        """Compile every program that jobs with these features can need.

        But for those of fewer slots: whether a job ends in them is seen when it ends.
        """
        self._need_params()
        self._widen()
        features = features or programs.Features(forbid=self._strings.always_forbids)
        lives = self._sizes.lives
        for length in (*lives, *reversed(lives)):
            self._set_length(length)
            self.dispatch(features)
            for width in (0, *self._sizes.widths):
                self.run_pass(scheduler.Pass(width, True, ()))
                self.run_pass(scheduler.Pass(width, False, ()))
        jax.block_until_ready(self._cache)
        logging.debug("decode engine: programs compiled: %s", self.compiles)

    def generate(
        self,
        requests: Sequence[Request],
        on_reply: Callable[[Reply], None] | None = None,
        progress: Callable[[jobs.JobState], None] | None = None,
    ) -> list[Reply]:
        """Sample a reply to every request.

        Args:
          requests: any number, in any order.
          on_reply: called with each reply as soon as it is finished.
          progress: called after every dispatch that was read.

        Returns:
          The replies in the order of the requests.
        """
        self._need_params()
        self._widen()
        check(requests, max_length=self.max_length, vocab_size=self.cfg.vocab_size)
        if any(len(request.prompts) > self.num_slots for request in requests):
            raise ValueError(
                f"a contrast request takes two slots, num_slots={self.num_slots}; "
                "use num_slots=2 or more"
            )
        job = jobs.DrawingJob(self, requests, on_reply, progress)
        try:
            return job.run()
        finally:
            self.stats = job.stats()
            job.clear()
            logging.debug("decode engine: %s", self.stats)

    def _need_params(self) -> None:
        if self._params is None:
            raise ValueError("the engine has no weights; call load(params) first")

    def prepare(self, requests: Sequence[Request]) -> programs.Features:
        """Bring the string table up to date; return what the job asks for."""
        sets = [self._strings_of(one) for one in requests]
        if self._strings.add([automaton.StringSet(), *sets]):
            self._table = self._put(self._strings.table())
        truncate = any(one.top_k > 0 or one.top_p < 1 for one in requests)
        return programs.Features(
            truncate=truncate,
            few=truncate
            and all(
                0 < one.top_k <= programs.FEW for one in requests if one.temperature
            ),
            forbid=self._strings.always_forbids
            or any(one.forbidden_strings for one in requests),
            contrast=any(one.contrast_tokens is not None for one in requests),
        )

    def _strings_of(self, request: Request) -> automaton.StringSet:
        """Return what a request stops at and may not draw."""
        stop, barred = request.stop_strings, request.forbidden_strings
        if request.forbidding == ANYWHERE:
            return automaton.StringSet(stop, barred)
        own = (self.tokenizer.encode(text, bos=False) for text in barred)
        return automaton.StringSet(stop, (), tuple(map(tuple, own)))

    def run_pass(self, one: scheduler.Pass) -> None:
        """Run one prefill or copy on the device."""
        num_rows = self._sizes.rows[one.width, one.copies]
        tokens = np.zeros((num_rows, one.width), np.int32)
        source, offset, length = np.zeros((3, num_rows), np.int32)
        # Each device's rows are of its own slots, which it counts from 0.
        shards = self.scheduler.shards
        own, free = self.num_slots // shards, np.arange(shards) * (num_rows // shards)
        target = np.full(num_rows, own, np.int32)  # nowhere
        for work in one.works:
            index = free[work.target // own]
            free[work.target // own] += 1
            tokens[index, : len(work.tokens)] = work.tokens
            target[index], source[index] = work.target % own, work.source % own
            offset[index], length[index] = work.offset, len(work.tokens)
        with self._ambient():
            part = self._made.take(self._cache, source) if one.copies else None
            if one.width:
                part = self._made.prefill(
                    self._params, part=part, tokens=tokens, offset=offset, length=length
                )
            if part is not None:
                self._cache = self._made.put(self._cache, part, target)

    def fit(self, entries: int) -> None:
        """Make the cache long enough for this many entries."""
        wanted = next(length for length in self._sizes.lives if length >= entries)
        if wanted > self._length:
            self._set_length(wanted)
        self._small_dispatches += wanted < self._length
        if wanted == self._length:
            self._small_dispatches = 0

    def shrink(self, entries: int) -> None:
        """Shorten the cache when that has been possible for some time."""
        if self._small_dispatches < PATIENCE:
            return
        self._set_length(next(x for x in self._sizes.lives if x >= entries))

    def _set_length(self, length: int) -> None:
        if length == self._length:
            return
        axes, old = cached.length_axes(self.cfg.attention), self._cache
        parts = [(list(old.k), axes.k), (list(old.v), axes.v)]
        del old
        self._cache = None  # buffer by buffer: two whole caches would not fit
        with self._ambient():
            for buffers, axis in parts:
                for layer, buffer in enumerate(buffers):
                    buffers[layer] = self._made.resize(buffer, length, axis)
        (keys, _), (values, _) = parts
        self._cache = cached.Cache(k=tuple(keys), v=tuple(values))
        self.scheduler.forget(beyond=length)
        self._length, self._small_dispatches = length, 0

    def may_narrow(self) -> bool:
        """Whether half of the slots have nothing to do, for as long as is worth it."""
        if not self._tail_tokens or self.scheduler.waiting:
            return False
        if self.scheduler.left() < self._tail_tokens:
            return False
        return 2 * self.scheduler.fitting() <= len(self._slots.fresh)

    def narrow(self) -> None:
        """Move the replies in the making to as few slots as hold them."""
        own = len(self._slots.fresh) // self.scheduler.shards
        were = self.scheduler.narrow(self.scheduler.fitting()).astype(np.int32)
        keys, values = list(self._cache.k), list(self._cache.v)
        self._cache = None  # layer by layer, as in `_set_length`
        with self._ambient():
            for layer, pair in enumerate(zip(keys, values, strict=True)):
                one = cached.Cache(k=pair[:1], v=pair[1:])
                # Slots are counted on each device from 0, as in `run_pass`.
                one = self._made.take(one, were % own)
                keys[layer], values[layer] = one.k[0], one.v[0]
            self._state = self._made.keep(self._state, were)
        self._cache = cached.Cache(k=tuple(keys), v=tuple(values))
        self._slots = layout.moved_slots(self._slots, were)

    def _widen(self) -> None:
        """Have all slots again, empty ones, after a job that ended in fewer."""
        if len(self._slots.fresh) == self.num_slots:
            return
        self.scheduler.reset(self.num_slots)
        self._slots = layout.idle_slots(self.num_slots)
        self._state = self._put(programs.idle_state(self.num_slots))
        if self._cache is not None:
            self._cache = None  # before another: both would not fit
            with self._ambient():
                self._cache = self._empty()

    def _begin_short(self) -> None:
        """Have the shortest cache again: with other weights its entries are nothing."""
        if self._length > self._sizes.lives[0]:
            self._cache = None  # `load` makes it
        self._length, self._small_dispatches = self._sizes.lives[0], 0

    def admit(self, placed: Sequence[scheduler.Occupant]) -> None:
        """Write what the new occupants ask for into the slots' arrays."""
        self._slots = self._slots.replace(fresh=np.zeros_like(self._slots.fresh))
        for occupant in placed:
            request = occupant.request
            root = self._strings.roots[self._strings_of(request)]
            layout.fill_slots(self._slots, occupant, root)

    def dispatch(self, features: programs.Features) -> programs.Emitted:
        """Start several decode steps; return their results, which are not ready yet."""
        slots = jax.tree.map(np.copy, self._slots)
        with self._ambient():
            self._cache, self._state, emitted = self._made.decode(
                self._params,
                cache=self._cache,
                state=self._state,
                slots=slots,
                table=self._table,
                features=features,
            )
        for array in emitted:
            array.copy_to_host_async()
        return emitted
