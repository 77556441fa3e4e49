"""How much memory a decode engine needs, before it is built."""

import dataclasses

import jax

from rlcd_jax import sharding, tree
from rlcd_jax.decode import layout
from rlcd_jax.models import llama

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device: weights in decode form, cache, and the largest work space.

    `weights` and `cache` are exact: those of the arrays that the engine holds, the
    cache at its longest. `work` is an upper estimate of what comes and goes beside
    them: the logits and sampler of a decode step; the scores, feed-forward and copied
    rows of a prefill; or the cache of the length before, while the cache grows.
    """

    weights: int
    cache: int
    work: int

    @property
    def total(self) -> int:
        """All three together."""
        return self.weights + self.cache + self.work


def estimate(
    cfg: llama.LlamaConfig,
    sizes: layout.Sizes,
    *,
    num_slots: int,
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None,
    weights: str,
) -> Memory:
    """Return the memory that decoding needs on each device.

    Args:
      cfg: model numbers.
      sizes: the shapes of the engine's programs.
      num_slots: requests on the devices at a time.
      mesh: of the engine, whose devices need not exist; None: one device.
      weights: "whole" or "split"; see `layout.WEIGHTS`.

    Returns:
      Bytes a device.
    """
    cfg = layout.placed(cfg, mesh)
    params = jax.eval_shape(
        lambda: llama.decode_form(llama.init_params(cfg, jax.random.key(0)), cfg)
    )
    cache = jax.eval_shape(lambda: llama.init_cache(cfg, num_slots, sizes.lives[-1]))
    if mesh is None:
        held = tree.count_bytes(params), tree.count_bytes(cache)
    else:
        where = layout.shardings(cfg, mesh, weights)
        held = (
            sharding.device_bytes(params, where.params),
            sharding.device_bytes(cache, where.cache),
        )
    work = _work_bytes(cfg, sizes, num_slots=num_slots, mesh=mesh, cache=held[1])
    return Memory(weights=held[0], cache=held[1], work=work)


def _work_bytes(
    cfg: llama.LlamaConfig,
    sizes: layout.Sizes,
    *,
    num_slots: int,
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh | None,
    cache: int,
) -> int:
    """Return the largest work space; `cache` is the longest, bytes on a device."""
    slot_ways, tensor_ways = layout.ways(mesh)
    longest = sizes.lives[-1]
    sampler = 3 * 4 * num_slots / slot_ways * cfg.vocab_size
    heads = cfg.layout.kv_heads * cfg.layout.group
    wide = max(2 * cfg.mlp_dim, heads * longest) / tensor_ways
    prefill = cache * sizes.rows[0] / num_slots
    for width in sizes.widths:
        rows = sizes.rows[width]
        tokens = 2 * 4 * rows * width / slot_ways * (wide + 2 * cfg.embed_dim)
        # The rows as they were taken, and as the prefill leaves them.
        copied = 2 * cache * rows / num_slots
        prefill = max(prefill, tokens + copied)
    growing = cache * sizes.lives[-2] / longest if len(sizes.lives) > 1 else 0
    return int(max(sampler, prefill, growing))


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
    # The work space of a prefill is for the most part copied rows: fewer with slots.
    left = budget - memory.weights
    fit = max(0, left) * num_slots // max(memory.cache + memory.work, 1)
    advice = f"about {fit} slots of this length fit"
    if fit < 1:
        advice = "not even one slot fits: use more devices or a smaller model"
    raise ValueError(
        f"decoding with num_slots={num_slots} and max_length={max_length} needs "
        f"{memory.total / GIB:.2f} GiB a device (weights {memory.weights / GIB:.2f}, "
        f"cache {memory.cache / GIB:.2f}, work space {memory.work / GIB:.2f}) but "
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
