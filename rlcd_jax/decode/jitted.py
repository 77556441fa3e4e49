"""The decode engine's programs as they are compiled: what is donated, what lies where.

Arrays are no part of it: the engine calls the programs with its own, and a plan lowers
them for shapes of devices that need not be there.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rlcd_jax.decode import layout, programs
from rlcd_jax.models import cached, llama

Shapes = Any  # tree of jax.ShapeDtypeStruct
AFTER_KEYS = ("o", "mlp_norm", "gate_up", "down")  # of a layer, in decode form
KEPT = 16  # engines of different settings whose programs a process keeps


@dataclasses.dataclass(frozen=True)
class Programs:
    """Jitted functions; one of them is compiled for each set of shapes it is given.

    Attributes:
      shardings: of all their arrays.
      decode_form: training form -> decode form.
      decode: see `programs.decode`; takes the cache's and the state's place.
      prefill: see `programs.prefill`; takes the place of the rows it goes on from.
      take: (cache, slots) -> rows; slots are counted on each device from 0, and go to
        rows of the same device.
      put: (cache, rows, slots) -> cache, in its place; slots as in `take`.
      resize: (keys or values of a layer, length, axis) -> the same, longer.
      empty: (length) -> cache without entries.
      keep: (state, slots) -> the state of these slots.
      traces: how often each of them was traced, hence compiled, by its name.
    """

    shardings: layout.Shardings
    decode_form: Callable
    decode: Callable
    prefill: Callable
    take: Callable
    put: Callable
    resize: Callable
    empty: Callable
    keep: Callable
    traces: collections.Counter


@functools.lru_cache(maxsize=KEPT)
def make(
    cfg: llama.LlamaConfig,
    mesh: jax.sharding.Mesh | None,
    *,
    weights: str,
    num_slots: int,
    num_steps: int,
) -> Programs:
    """Return the programs of an engine.

    Engines of the same settings have the same programs: the stages of a run, and the
    runs of a table, trace and compile each of them once a process.

    Args:
      cfg: model numbers.
      mesh: as `Engine`'s.
      weights: likewise.
      num_slots: M.
      num_steps: tokens drawn in one run of `decode`.
    """
    cfg = layout.placed(cfg, mesh, weights)
    where, kernel = layout.shardings(cfg, mesh, weights), cfg.attention
    traces: collections.Counter = collections.Counter()

    def jit(name: str, function: Callable, **kwargs: Any) -> Callable:
        def traced(*args: Any, **kwargs: Any) -> Any:
            traces[name] += 1
            return function(*args, **kwargs)

        traced.__name__ = name  # what a profile shows
        return jax.jit(traced, **kwargs)

    own = functools.partial
    rows, slots = (None, None) if mesh is None else _specs(where)

    def local(function: Callable, *specs: Any) -> Callable:
        """Let each device move rows among its own slots; see `Scheduler`."""
        if mesh is None:
            return function
        return jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False
        )

    return Programs(
        shardings=where,
        decode_form=jit(
            "decode_form", own(llama.decode_form, cfg=cfg), out_shardings=where.params
        ),
        decode=jit(
            "decode",
            own(programs.decode, cfg=cfg, num_steps=num_steps),
            static_argnames=("features",),
            donate_argnames=("cache", "state"),
            out_shardings=(where.cache, where.whole, where.whole),
        ),
        prefill=jit(
            "prefill",
            own(programs.prefill, cfg=cfg),
            donate_argnames=("part",),
            out_shardings=where.cache,
        ),
        take=jit("take", local(cached.take, rows, slots), out_shardings=where.cache),
        put=jit(
            "put",
            local(own(cached.put, kernel=kernel), rows, rows, slots),
            donate_argnums=(0,),
            out_shardings=where.cache,
        ),
        resize=jit(
            "resize",
            cached.resize,
            static_argnums=(1, 2),
            out_shardings=where.cache,
        ),
        empty=jax.jit(
            own(llama.init_cache, cfg, num_slots),
            static_argnums=(0,),
            out_shardings=where.cache,
        ),
        keep=jax.jit(programs.keep, out_shardings=where.whole),
        traces=traces,
    )


def _specs(where: layout.Shardings) -> tuple[PartitionSpec, PartitionSpec]:
    """Return how a cache lies on a mesh, and how a number for each slot does."""
    spec = where.cache.spec
    return spec, PartitionSpec(spec[0])


@dataclasses.dataclass(frozen=True)
class Work:
    """One program of an engine for the largest shapes that it is given.

    Attributes:
      name: "decode", "prefill 256", "prefill 16 on copies", "take", "put", "resize".
      weights: shapes of those that are among its arguments.
      cache: likewise, of the cache's buffers.
      copies: likewise, of copied rows of the cache.
      lower: gives it to the compiler.
    """

    name: str
    weights: Shapes
    cache: Shapes
    copies: Shapes
    lower: Callable[[], jax.stages.Lowered]


def works(
    made: Programs,
    cfg: llama.LlamaConfig,
    sizes: layout.Sizes,
    *,
    mesh: jax.sharding.Mesh | None,
    num_slots: int,
    features: programs.Features,
    string_states: int,
) -> Iterator[Work]:
    """Yield an engine's programs with the cache at its longest.

    Args:
      made: the programs.
      cfg: model numbers.
      sizes: the shapes of the engine's programs.
      mesh: of the engine, whose devices need not exist.
      num_slots: M.
      features: of the requests.
      string_states: rows of the table of strings.
    """
    where, length = made.shardings, sizes.lives[-1]
    weights = placed(layout.weight_shapes(cfg), where.params)

    def rows_of_cache(rows: int, entries: int) -> Shapes:
        return placed(layout.cache_shapes(cfg, rows, entries), where.cache)

    def lowering(program: Callable, *args: Any, **kwargs: Any) -> Callable:
        def lower() -> jax.stages.Lowered:
            with layout.ambient(mesh):
                return program.lower(*args, **kwargs)

        return lower

    cache = rows_of_cache(num_slots, length)
    state, table = placed(table_shapes(cfg, num_slots, string_states), where.whole)
    decode = lowering(
        made.decode,
        weights,
        cache=cache,
        state=state,
        slots=layout.idle_slots(num_slots),
        table=table,
        features=features,
    )
    yield Work("decode", weights, cache, {}, decode)
    for width in sizes.widths:
        for copies in (False, True):
            rows = sizes.rows[width, copies]
            number = jax.ShapeDtypeStruct((rows,), jnp.int32)
            part = rows_of_cache(rows, length) if copies else None
            prefill = lowering(
                made.prefill,
                weights,
                part=part,
                tokens=jax.ShapeDtypeStruct((rows, width), jnp.int32),
                offset=number,
                length=number,
            )
            name = f"prefill {width}" + " on copies" * copies
            yield Work(name, read_by_prefill(weights), {}, part or {}, prefill)
    rows = max(sizes.rows[width, True] for width in (0, *sizes.widths))
    number = jax.ShapeDtypeStruct((rows,), jnp.int32)
    yield Work("take", {}, cache, {}, lowering(made.take, cache, number))
    part = rows_of_cache(rows, length)
    yield Work("put", {}, cache, part, lowering(made.put, cache, part, number))
    if len(sizes.lives) > 1:
        shorter = rows_of_cache(num_slots, sizes.lives[-2])
        keys, axis = shorter.k[0], cached.length_axes(cfg.attention).k
        grow = lowering(made.resize, keys, length, axis)
        yield Work("resize", {}, keys, {}, grow)


def table_shapes(cfg: llama.LlamaConfig, num_slots: int, string_states: int) -> Shapes:
    """Return the shapes of the slots' state and of the table of strings."""
    return (
        jax.eval_shape(lambda: programs.idle_state(num_slots)),
        jax.ShapeDtypeStruct((string_states, cfg.vocab_size), jnp.int16),
    )


def read_by_prefill(weights: Shapes) -> Shapes:
    """Return the weights without what comes after the last layer's keys and values.

    A prefill has no other result, so the compiler leaves those arguments out.
    """
    *layers, last = weights["layers"]
    last = {name: leaf for name, leaf in last.items() if name not in AFTER_KEYS}
    read = {name: leaf for name, leaf in weights.items() if name != "final_norm"}
    read.pop("unembed", None)
    return {**read, "layers": (*layers, last)}


def placed(shapes: Shapes, shardings: Any) -> Shapes:
    """Return shapes with shardings: one for all, a tree like them, or None for none."""
    if shardings is None:
        return shapes
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        shapes,
        jax.tree.broadcast(shardings, shapes),
    )
