"""Sizes and places of the decode engine's arrays: buckets, rows, shardings."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rlcd_jax import sharding
from rlcd_jax.decode import programs, scheduler
from rlcd_jax.models import cached, llama, one_query, table

COPY_ROWS = 8  # on a device
# Entries by which the cache grows at least: a program for fewer takes more time to
# compile than it spares, attention being little beside the products then.
LEAST_PART = 128
WEIGHTS = ("whole", "split")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The few shapes that programs have.

    `widths` of prefill; `lives`, the lengths of the cache; `rows` of the program of
    each (width, whether it goes on from copied entries), width 0 being that of the one
    that only copies.
    """

    widths: tuple[int, ...]
    lives: tuple[int, ...]
    rows: dict[tuple[int, bool], int]


def sizes(
    num_slots: int,
    max_length: int,
    *,
    mesh: jax.sharding.Mesh | None,
    kernel: str,
    prompt_buckets: Sequence[int],
    live_buckets: Sequence[int] | None,
    prefill_tokens: int | None,
) -> Sizes:
    """Return the shapes of an engine; arguments as `Engine`'s.

    The cuDNN kernel stops at each row's own length, so one length of the cache is
    enough for it.
    """
    slot_ways, _ = ways(mesh)
    if num_slots % slot_ways:
        raise ValueError(
            f"num_slots={num_slots} does not divide among the mesh's {slot_ways} "
            f"(slices x data x fsdp) devices; use a multiple of {slot_ways}"
        )
    buckets = sorted({min(one, max_length) for one in prompt_buckets})
    if not buckets or buckets[0] < 1:
        raise ValueError(
            f"prompt_buckets={tuple(prompt_buckets)}; accepted: one or more widths, "
            "each at least 1"
        )
    if kernel == "cudnn":
        live_buckets = ()
    elif live_buckets is None:
        part = max(_whole(-(-max_length // 4), 32), LEAST_PART)
        live_buckets = range(part, max_length, part)
    lives = sorted({one for one in live_buckets if 0 < one < max_length})
    if prefill_tokens is None:
        prefill_tokens = default_prefill_tokens(jax.default_backend())
    # Slots are filled a quarter at a time (see `Scheduler.place`): more rows would stay
    # empty. (A copied row is as long as the cache, however narrow its new tokens are.)
    own = num_slots // slot_ways
    most = max(COPY_ROWS, own // 4)
    rows = {}
    for width in (0, *buckets):
        count = prefill_tokens // width if width else COPY_ROWS
        for copies in (False, True):
            rows[width, copies] = max(1, min(count, own, most)) * slot_ways
    return Sizes(tuple(buckets), (*lives, max_length), rows)


def default_prefill_tokens(platform: str) -> int:
    """Return rows of a device times width in prefill: few where products are slow.

    Args:
      platform: "cpu", "gpu" or "tpu".
    """
    return {"cpu": 256, "gpu": 8192}.get(platform, 2048)


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def ways(mesh: jax.sharding.Mesh | None) -> tuple[int, int]:
    """Return among how many devices slots, and among how many heads, are split."""
    if mesh is None:
        return 1, 1
    return sharding.batch_ways(mesh), mesh.shape["tensor"]


def placed(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh | None, weights: str
) -> llama.LlamaConfig:
    """Return a model's numbers as they are on a mesh; arguments as `shardings`'."""
    split = mesh is not None and weights == "split"
    return dataclasses.replace(cfg, tensor_ways=ways(mesh)[1], split_decode=split)


def ambient(mesh: jax.sharding.Mesh | None) -> Any:
    """Return a context in which `sharding.constrain` acts on this mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


@functools.cache
def weight_shapes(cfg: llama.LlamaConfig) -> Any:
    """Return the shapes of a model in decode form."""
    return jax.eval_shape(
        lambda: llama.decode_form(llama.init_params(cfg, jax.random.key(0)), cfg)
    )


@functools.cache
def cache_shapes(cfg: llama.LlamaConfig, rows: int, length: int) -> cached.Cache:
    """Return the shapes of some rows of a cache, of `length` entries."""
    return jax.eval_shape(lambda: llama.init_cache(cfg, rows, length))


@dataclasses.dataclass(frozen=True)
class Shardings:
    """Where weights, cache and small arrays are; None leaves it to JAX."""

    params: Any
    cache: Any
    whole: Any


def shardings(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh | None, weights: str
) -> Shardings:
    """Return the shardings of an engine.

    Decoding reads every weight in every step, so they are "whole" as a rule: split
    over tensor only. "split" divides them over fsdp too, for models that fit in no
    other way; each step then sends activations to them and sums partial products.

    Args:
      cfg: model numbers, `placed` for the mesh.
      mesh: of the engine; None: one device.
      weights: one of `WEIGHTS`.

    Raises:
      ValueError: a weight does not divide among the devices; it is named.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights!r}; accepted: {', '.join(WEIGHTS)}")
    if mesh is None:
        return Shardings(None, None, None)

    places = llama.decode_axes(cfg)

    def spec(path: Any, leaf: Any) -> table.ParamSpec:
        axes = places[path[-1].key]
        if weights == "whole":
            axes = tuple(None if axis == "embed" else axis for axis in axes)
        return table.ParamSpec(leaf.shape, axes, "normal")

    axes = ("slots", "kv_heads", None, None)  # keys and values alike
    if cfg.attention == "cudnn":
        axes = one_query.CACHE
    return Shardings(
        params=sharding.param_shardings(
            jax.tree_util.tree_map_with_path(spec, weight_shapes(cfg)), mesh
        ),
        cache=NamedSharding(mesh, sharding.partition_spec(axes)),
        whole=NamedSharding(mesh, PartitionSpec()),
    )


def idle_slots(num_slots: int) -> programs.Slots:
    """Return what empty slots ask for, as NumPy arrays."""

    def full(value: float, dtype: Any) -> np.ndarray:
        return np.full(num_slots, value, dtype)

    own = np.arange(num_slots, dtype=np.int32)
    return programs.Slots(
        fresh=full(False, bool),
        token=full(0, np.int32),
        position=full(0, np.int32),
        root=full(0, np.int32),
        limit=full(1, np.int32),
        seed=np.zeros((num_slots, 2), np.uint32),
        temperature=full(1, np.float32),
        top_k=full(0, np.int32),
        top_p=full(1, np.float32),
        leader=own,
        guide=own.copy(),
        alpha=full(0, np.float32),
    )


def moved_slots(slots: programs.Slots, were: np.ndarray) -> programs.Slots:
    """Return what slots ask for that have moved.

    Args:
      slots: before, M of them.
      were: the slot that each was before, one for each there is now.
    """
    now = np.zeros(len(slots.fresh), np.int32)
    now[were] = np.arange(len(were))
    kept = jax.tree.map(lambda array: array[were], slots)
    return kept.replace(leader=now[kept.leader], guide=now[kept.guide])


def fill_slots(slots: programs.Slots, occupant: scheduler.Occupant, root: int) -> None:
    """Write what a new occupant asks for into the arrays of its slots."""
    request = occupant.request
    contrast = request.contrast_tokens is not None
    for slot, prompt in zip(occupant.slots, request.prompts, strict=True):
        slots.fresh[slot] = True
        slots.token[slot] = prompt[-1]
        slots.position[slot] = len(prompt) - 1
        slots.root[slot] = root
        slots.limit[slot] = request.max_new_tokens
        slots.seed[slot] = request.seed
        slots.temperature[slot] = request.temperature
        slots.top_k[slot] = request.top_k
        slots.top_p[slot] = request.top_p
        slots.leader[slot] = occupant.slots[0]
        slots.guide[slot] = occupant.slots[-1]
        slots.alpha[slot] = request.alpha if contrast else 0.0
