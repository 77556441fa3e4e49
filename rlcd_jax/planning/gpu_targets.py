"""What XLA must know of an NVIDIA GPU to compile for one that is not there.

The facts of each card as its driver reports them, in the text form of XLA's
GpuTargetConfigProto; OpenXLA keeps the same facts in
`xla/backends/gpu/target_config/specs`.
"""

from __future__ import annotations

import dataclasses
import math

from rlcd_jax.job import kernels
from rlcd_jax.planning import chips


@dataclasses.dataclass(frozen=True)
class Card:
    """What differs between cards.

    Attributes:
      title: the name that the driver gives it.
      capability: major compute capability.
      cores: multiprocessors.
      lanes: float32 units of each.
      shared_kib: shared memory of each; one block may take all but 1 KiB of it.
      cache_mib: of the second level.
      clock_ghz: at boost.
    """

    title: str
    capability: int
    cores: int
    lanes: int
    shared_kib: int
    cache_mib: int
    clock_ghz: float


_HOPPER = {"capability": 9, "cores": 132, "lanes": 128, "shared_kib": 228}
_HOPPER |= {"cache_mib": 50, "clock_ghz": 1.98}
CARDS = {
    "h100": Card("NVIDIA H100 80GB HBM3", **_HOPPER),
    "h200": Card("NVIDIA H200", **_HOPPER),
    "a100": Card("NVIDIA A100-SXM4-80GB", 8, 108, 64, 164, 40, 1.41),
}


def backend(chip: chips.Chip) -> kernels.Backend:
    """Return what a model runs on, if it runs on such a chip."""
    card = CARDS.get(chip.name)
    return kernels.Backend(chip.platform, float(card.capability) if card else 0.0)


def target_config(chip: chips.Chip) -> str:
    """Return the description of a GPU, for `topologies.get_topology_desc`."""
    card = CARDS[chip.name]
    accelerated = "ACCELERATED_FEATURES" if card.capability >= 9 else "NONE"
    version = "9.0a" if card.capability >= 9 else f"{card.capability}.0"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  shared_memory_per_block: {48 * 2**10}
  shared_memory_per_core: {card.shared_kib * 2**10}
  shared_memory_per_block_optin: {(card.shared_kib - 1) * 2**10}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {card.cores}
  fpus_per_core: {card.lanes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  memory_bandwidth: {chip.gbytes * 10**9:.0f}
  l2_cache_size: {card.cache_mib * 2**20}
  clock_rate_ghz: {card.clock_ghz}
  device_memory_size: {chip.memory_gib * chips.GIB:.0f}
  cuda_compute_capability {{
    major: {card.capability}
    feature_extension: {accelerated}
  }}
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {version}"
  device_address_bits: 64
  pcie_bandwidth: {32 * 2**30}
  ecc_enabled: true
  name: "{card.title}"
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.12.0"
  device_interconnect_info {{ active_links: {18 if card.capability >= 9 else 12} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
device_description_str: "{card.title}"
"""


def topology_text(topology: chips.Topology) -> str:
    """Return the topology as XLA writes it: partitions x hosts x GPUs of a host.

    Raises:
      ValueError: the GPUs fill no whole number of hosts.
    """
    shape = topology.shape
    if len(shape) == 1:
        count = shape[0]
        hosts = (count // chips.HOST_GPUS, chips.HOST_GPUS)
        shape = (1, count) if count <= chips.HOST_GPUS else hosts
    hosts, gpus = shape if len(shape) == 2 else (0, 0)
    if hosts * gpus != math.prod(topology.shape):
        raise ValueError(
            f"{topology.text} is no number of whole hosts; accepted for compiling: "
            f"CHIP:N with N up to {chips.HOST_GPUS} or a multiple of it, or "
            "CHIP:HOSTSxGPUS, such as h100:2x8"
        )
    return f"1x{topology.slices * hosts}x{gpus}"
