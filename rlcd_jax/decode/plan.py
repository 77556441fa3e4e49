"""How much memory a decode engine needs, before it is built."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax

from rlcd_jax import sharding, tree
from rlcd_jax.decode import jitted, layout
from rlcd_jax.models import blocked, llama

GIB = 2**30
FLOAT = 4  # bytes of a float32
LANES = 128  # of a vector on TPUs
UNDER_WAY = 4  # arrays of a layer: compilers for TPUs were seen to hold 3 to 6


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device: weights in decode form, cache, tables, work by program.

    `weights`, `cache` and `tables` are exact: those of the arrays that the engine
    holds, the cache at its longest; tables are those of strings and of the slots.
    `work` is an estimate of what comes and goes beside them in each of `jitted.works`.
    """

    weights: int
    cache: int
    tables: int
    work: Mapping[str, int]

    @property
    def largest(self) -> int:
        """The largest work space."""
        return max(self.work.values())

    @property
    def total(self) -> int:
        """Weights, cache, tables and the largest work space together."""
        return self.weights + self.cache + self.tables + self.largest


def estimate(
    cfg: llama.LlamaConfig,
    sizes: layout.Sizes,
    *,
    num_slots: int,
    num_steps: int,
    string_states: int,
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None,
    weights: str,
    platform: str,
) -> Memory:
    """Return the memory that decoding needs on each device.

    Args:
      cfg: model numbers.
      sizes: the shapes of the engine's programs.
      num_slots: requests on the devices at a time.
      num_steps: tokens drawn in one run of the decode program.
      string_states: rows of the table of strings.
      mesh: of the engine, whose devices need not exist; None: one device.
      weights: "whole" or "split"; see `layout.WEIGHTS`.
      platform: "cpu", "gpu" or "tpu".

    Returns:
      Bytes a device.
    """
    cfg = layout.placed(cfg, mesh, weights)
    params = layout.weight_shapes(cfg)
    cache = layout.cache_shapes(cfg, num_slots, sizes.lives[-1])
    if mesh is None:
        held = tree.count_bytes(params), tree.count_bytes(cache)
    else:
        where = layout.shardings(cfg, mesh, weights)
        held = (
            sharding.device_bytes(params, where.params),
            sharding.device_bytes(cache, where.cache),
        )
    entry = held[1] / num_slots / sizes.lives[-1]  # of one slot, on each device
    ways = layout.ways(mesh)
    work = dict(_work(cfg, sizes, num_slots, num_steps, ways, entry, platform))
    tables = tree.count_bytes(jitted.table_shapes(cfg, num_slots, string_states))
    return Memory(weights=held[0], cache=held[1], tables=tables, work=work)


def _work(
    cfg: llama.LlamaConfig,
    sizes: layout.Sizes,
    num_slots: int,
    num_steps: int,
    ways: tuple[int, int],
    entry: float,
    platform: str,
) -> Iterator[tuple[str, int]]:
    """Yield the work space of each program; `entry` of all slots' bytes on a device."""
    scores = 1 if platform == "tpu" else 2  # arrays: XLA's softmax is in place on TPUs
    (slot_ways, tensor_ways), length = ways, sizes.lives[-1]
    sampler = 3 * FLOAT * num_slots / slot_ways * cfg.vocab_size
    window = num_slots * num_steps * entry * (cfg.attention != "cudnn")
    yield "decode", int(sampler + window)
    for (width, copies), rows in sizes.rows.items():
        if not width:
            continue
        seen = width + length * copies
        # Of `cfg.attention_block` queries at once.
        at_once = blocked.block_tokens(width, cfg.attention_block) / width
        if cfg.attention == "splash" and not copies:
            at_once = 0.0
        heads = cfg.layout.kv_heads * cfg.layout.group
        wide = max(3 * cfg.mlp_dim, scores * heads * seen * at_once) / tensor_ways
        tokens = FLOAT * rows * width / slot_ways * (wide + 2 * cfg.embed_dim)
        new = rows * entry * (width + length * copies)
        yield f"prefill {width}" + " on copies" * copies, int(tokens + new)
    copied = max(rows for (_, copies), rows in sizes.rows.items() if copies)
    part = copied * length * entry
    # TPUs have some arrays of a layer under way, whose last axis they pad.
    lanes = max(1.0, LANES / cfg.head_dim)
    moved = UNDER_WAY * lanes * part / (2 * cfg.num_layers) * (platform == "tpu")
    yield "take", int(part + moved)
    yield "put", int(part + moved)
    if len(sizes.lives) > 1:
        yield "resize", int(num_slots * length * entry / cfg.num_layers / 2)


def check(memory: Memory, budget: int, *, num_slots: int, max_length: int) -> None:
    """Refuse an engine that does not fit.

    Args:
      memory: what it needs.
      budget: bytes there are on a device.
      num_slots: for the message and its advice.
      max_length: likewise.
    """
    if memory.total <= budget:
        return
    # Work space is for the most part rows of the cache: fewer with fewer slots.
    left = budget - memory.weights
    fit = max(0, left) * num_slots // max(memory.cache + memory.largest, 1)
    advice = f"about {fit} slots of this length fit"
    if fit < 1:
        advice = "not even one slot fits: use more devices or a smaller model"
    raise ValueError(
        f"decoding with num_slots={num_slots} and max_length={max_length} needs "
        f"{memory.total / GIB:.2f} GiB a device (weights {memory.weights / GIB:.2f}, "
        f"cache {memory.cache / GIB:.2f}, work space {memory.largest / GIB:.2f}) but "
        f"{budget / GIB:.2f} GiB are available; {advice}"
    )


def device_budget(mesh: jax.sharding.Mesh | None) -> int | None:
    """Return the bytes still free on a device of this process; None: it does not say.

    The memory of another process's device cannot be asked for.
    """
    devices = jax.devices() if mesh is None else mesh.devices.flat
    own = (one for one in devices if one.process_index == jax.process_index())
    stats = next(own).memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
