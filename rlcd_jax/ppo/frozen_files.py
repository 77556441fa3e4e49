"""Whether PPO's frozen models lie in files while nobody reads them, and their bytes."""

from __future__ import annotations

from rlcd_jax import sharding, tree
from rlcd_jax.job import roles, setup
from rlcd_jax.models import frozen as frozen_weights
from rlcd_jax.models import heads, llama


def parks(job: setup.Job, *, on_cpu: bool) -> bool:
    """Say whether frozen models lie in files while nobody reads them (`job.parked`).

    Adapters share the base, which training holds anyway.
    """
    return on_cpu and job.lora is None


def parked_bytes(job: setup.Job) -> int:
    """Return the bytes of the files in which the frozen models of a job lie.

    Args:
      job: of the stage; its mesh may have no devices.
    """
    if not parks(job, on_cpu=sharding.is_on_cpu(job.mesh)):
        return 0
    rewarder = job.of(roles.PREFERENCE)
    scorers = 1 + len(job.config.policy.rewards)
    models = [(job.cfg.dtype, llama.param_specs(job.cfg))]
    models += [(rewarder.cfg.dtype, heads.scalar_specs(rewarder.cfg))] * scorers
    return sum(
        tree.count_bytes(frozen_weights.shapes(specs, dtype)) for dtype, specs in models
    )
