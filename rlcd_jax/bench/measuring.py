"""One measurement: from a command's flags to figures, and the machine they are of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

from rlcd_jax.bench import decode, hf_peer, model_numbers, settings, simulate

WHAT: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": decode.run,
    "simulate": simulate.run,
}
PEERS = {"none": lambda cfg, load: {}, "hf": hf_peer.make_peers}


def measure(
    flags: Mapping[str, Any], cache_dir: str | os.PathLike[str], load: hf_peer.Load
) -> dict[str, Any]:
    """Return what flags ask to measure: the machine, what it was, and its figures.

    Args:
      flags: values by name: `what` of `WHAT`, `peer` of `PEERS`, `model`, `dtype` and
        `attention` as `model_numbers.find` has them, the rest as `settings.from_flags`.
      cache_dir: of fetched models.
      load: returns an installed package by its name; for peers.

    Raises:
      ValueError: a flag has a value that is not accepted, or a peer is not installed.
    """
    cfg = model_numbers.find(
        flags["model"],
        dtype=flags["dtype"],
        attention=flags["attention"],
        cache_dir=cache_dir,
    )
    peers = PEERS[flags["peer"]](cfg, load)
    figures = WHAT[flags["what"]](settings.from_flags(flags, peers), cfg)
    return {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_cpus": os.cpu_count(),
        "what": flags["what"],
        **figures,
    }
