"""Which processes make up a job, by what their launcher has set."""

from __future__ import annotations

from collections.abc import Mapping


def of_many_hosts(environ: Mapping[str, str]) -> bool:
    """Say whether this process is one of a job's, by what its launcher has set.

    A coordinator by hand, SLURM, or a TPU slice of several hosts; JAX finds the rest.
    """
    tasks = environ.get("SLURM_NTASKS", "1")
    return (
        "JAX_COORDINATOR_ADDRESS" in environ
        or (tasks.isdigit() and int(tasks) > 1)
        or "," in environ.get("TPU_WORKER_HOSTNAMES", "")
    )
