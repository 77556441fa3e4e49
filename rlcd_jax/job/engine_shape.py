"""How large a decode engine is: decided here, for the stages and for plans alike."""

from __future__ import annotations

import dataclasses

import jax
from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.decode import layout
from rlcd_jax.models import llama

LENGTHS = 64  # a slot's entries are a multiple of it, so that stages share programs

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh


@dataclasses.dataclass(frozen=True)
class EngineShape:
    """What a stage asks of `decode.engine.Engine`.

    Attributes:
      mesh: of the devices; None: one device.
      num_slots: on all devices together.
      max_length: cache entries of a slot.
      weights: "whole" or "split", as in `decode.layout.WEIGHTS`.
      prompt_buckets: widths of prefill programs.
      live_buckets: lengths the cache may have; None: the engine's own choice.
    """

    mesh: Mesh | None
    num_slots: int
    max_length: int
    weights: str
    prompt_buckets: tuple[int, ...]
    live_buckets: tuple[int, ...] | None

    def sizes(self, cfg: llama.LlamaConfig, platform: str) -> layout.Sizes:
        """Return the shapes of the engine's programs.

        Args:
          cfg: model numbers.
          platform: "cpu", "gpu" or "tpu", of the devices.
        """
        return layout.sizes(
            self.num_slots,
            self.max_length,
            mesh=self.mesh,
            kernel=cfg.attention,
            prompt_buckets=self.prompt_buckets,
            live_buckets=self.live_buckets,
            prefill_tokens=layout.default_prefill_tokens(platform),
        )


def find(
    config: ConfigDict,
    mesh: Mesh,
    *,
    prompt_tokens: int,
    reply_tokens: int,
    cache_tokens: int = 0,
    most: int = 0,
) -> EngineShape:
    """Return the shape of an engine that holds a longest prompt with a longest reply.

    Args:
      config: of a run; section `engine`.
      mesh: of the devices, which need not exist.
      prompt_tokens: of a prompt, at most.
      reply_tokens: of a reply, at most.
      cache_tokens: of a device's slots together, at most: longer texts get fewer
        slots, down to one on each device; 0: as many slots as the config has.
      most: requests of a job; slots beyond them would be idle, and each step would
        compute them; 0: any number.
    """
    section = config.engine
    where = mesh if mesh.size > 1 else None
    length = -(-(prompt_tokens + reply_tokens) // LENGTHS) * LENGTHS
    slots = section.slots_per_device
    if cache_tokens:
        slots = min(slots, max(1, cache_tokens // length))
    if most:
        slots = min(slots, -(-most // sharding.batch_ways(mesh)))
    lives = None
    if section.live_buckets:
        lives = (*(n for n in section.live_buckets if n < length), length)
    return EngineShape(
        mesh=where,
        num_slots=slots * sharding.batch_ways(mesh),
        max_length=length,
        weights=section.weights,
        prompt_buckets=tuple(section.prompt_buckets),
        live_buckets=lives,
    )
