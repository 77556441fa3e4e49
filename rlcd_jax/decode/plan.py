"""How much memory a decode engine needs, before it is built."""

import dataclasses

import jax

from rlcd_jax import tree
from rlcd_jax.models import llama

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device: weights in decode form, cache, and the largest work space.

    `work` is an upper estimate: logits and sampler of a decode step, or scores and
    feed-forward of a prefill, whichever is more.
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
    *,
    num_slots: int,
    max_length: int,
    prefill_tokens: int,
    slot_ways: int = 1,
    tensor_ways: int = 1,
) -> Memory:
    """Return the memory that decoding needs on each device.

    Args:
      cfg: model numbers.
      num_slots: requests on the device at a time.
      max_length: cache entries of a slot.
      prefill_tokens: tokens of one prefill program.
      slot_ways: devices among which the slots are split.
      tensor_ways: devices among which heads, feed-forward and vocabulary are split.

    Returns:
      Bytes a device.
    """
    params = jax.eval_shape(
        lambda: llama.decode_form(llama.init_params(cfg, jax.random.key(0)), cfg)
    )
    cache = jax.eval_shape(lambda: llama.init_cache(cfg, num_slots, max_length))
    return Memory(
        weights=tree.count_bytes(params) // tensor_ways,
        cache=tree.count_bytes(cache) // (slot_ways * tensor_ways),
        work=work_bytes(
            cfg,
            num_slots=num_slots,
            max_length=max_length,
            prefill_tokens=prefill_tokens,
            slot_ways=slot_ways,
            tensor_ways=tensor_ways,
        ),
    )


def work_bytes(
    cfg: llama.LlamaConfig,
    *,
    num_slots: int,
    max_length: int,
    prefill_tokens: int,
    slot_ways: int,
    tensor_ways: int,
) -> int:
    """Return the largest work space alone; arguments as `estimate`'s."""
    slots = num_slots / slot_ways
    sampler = 3 * 4 * slots * cfg.vocab_size
    wide = max(2 * cfg.mlp_dim, cfg.num_heads * max_length) / tensor_ways
    prompts = 2 * 4 * prefill_tokens / slot_ways * (wide + 2 * cfg.embed_dim)
    return int(max(sampler, prompts))


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
    left = budget - memory.weights - memory.work
    fit = max(0, left) * num_slots // max(memory.cache, 1)
    advice = f"about {fit} slots of this length fit"
    if fit < 1:
        advice = "not even one slot fits: use more devices or a smaller model"
    raise ValueError(
        f"decoding with num_slots={num_slots} and max_length={max_length} needs "
        f"{memory.total / GIB:.2f} GiB a device (weights {memory.weights / GIB:.2f}, "
        f"cache {memory.cache / GIB:.2f}, work space {memory.work / GIB:.2f}) but "
        f"{budget / GIB:.2f} GiB are available; {advice}"
    )


def device_budget(device: jax.Device) -> int | None:
    """Return the bytes still free on a device, or None where it does not say."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
