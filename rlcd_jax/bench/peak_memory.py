"""The most memory that this process has held, on a device or on the host."""

from __future__ import annotations

import resource

import jax

KIB = 1024  # the unit in which Linux says it


def peak_gib() -> dict[str, float]:
    """Return GiB by "device" and "host"; devices that do not say it are left out."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    peaks = {"peak_host_gib": host / 2**30}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peaks["peak_device_gib"] = stats["peak_bytes_in_use"] / 2**30
    return peaks
