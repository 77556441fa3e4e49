"""Chips by name: memory, peak rate of products, and memory bandwidth.

Rates are those of the makers' data sheets. Memory is what the driver or the compiler
says there is, which is less than the sheet's; what one program can use of it is given
apart. Plain numbers: nothing here asks a device.
"""

from __future__ import annotations

import dataclasses
import math

GIB = 2**30
PRODUCT_SHARE = 0.40  # of the peak; 386 to 450 of 989 TFLOP/s measured, training, H100
BANDWIDTH_SHARE = 0.50  # of the bandwidth; decoding reaches 0.45 to 0.70 on H100
# Of the usable memory, left free by what "fits": the compiler's peak has been up to 1 %
# above the estimate (41.84 GiB for 41.51, PPO of LLaMA-7B on 8 H100), cards of one name
# differ by 0.1 GiB, and an allocator's pieces are never packed without gaps.
MARGIN = 0.05
GPU_SHARE = 0.75  # of a GPU's memory: what JAX takes unless told otherwise


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device.

    Attributes:
      name: as it stands in a topology.
      platform: "tpu", "gpu" or "cpu".
      memory_gib: that driver or compiler report in all; None: not known.
      usable_gib: what one program can have of it; None: not known.
      tflops: peak of dense bfloat16 products, TFLOP/s; None: not known.
      gbytes: peak memory bandwidth, GB/s; None: not known.
      source: of the figures.
    """

    name: str
    platform: str
    memory_gib: float | None
    usable_gib: float | None
    tflops: float | None
    gbytes: float | None
    source: str

    @property
    def limit_gib(self) -> float | None:
        """The most that a plan may fill: the usable memory less `MARGIN`."""
        return None if self.usable_gib is None else self.usable_gib * (1 - MARGIN)


_GOOGLE = "rates: Google Cloud TPU documentation; usable: what XLA compiles for"
_NVIDIA = "rates: NVIDIA data sheet, SXM; usable: JAX's 0.75 of CUDA's total"


def _tpu(name: str, gib: float, usable: float, tflops: float, gbytes: float) -> Chip:
    return Chip(name, "tpu", gib, usable, tflops, gbytes, f"{_GOOGLE}, {name}")


def _gpu(name: str, gib: float, tflops: float, gbytes: float) -> Chip:
    usable = GPU_SHARE * gib
    return Chip(name, "gpu", gib, usable, tflops, gbytes, f"{_NVIDIA}, {name}")


# Usable memory of a TPU is the figure in XLA's own refusals ("Used 49G of 31.25G hbm").
# Of a GPU, nvidia-smi shows a little more than CUDA can give (H100: 81,559 MiB, 79.6
# GiB); the figures here are CUDA's.
CHIPS: dict[str, Chip] = {
    "v4": _tpu("v4", 32, 30.75, 275, 1228),
    "v5e": _tpu("v5e", 16, 15.75, 197, 819),
    "v5p": _tpu("v5p", 95.74, 95.74, 459, 2765),
    "v6e": _tpu("v6e", 32, 31.25, 918, 1640),
    "a100": _gpu("a100", 79.2, 312, 2039),
    "h100": _gpu("h100", 79.1, 989, 3350),
    "h200": _gpu("h200", 139.8, 989, 4800),
    "cpu": Chip("cpu", "cpu", None, None, None, None, "no figures: hosts differ"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some chips of one kind, such as `v5p:8x8x4`."""

    text: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)


def parse_topology(text: str) -> Topology:
    """Return the chips that a text such as `v5e:16x16` or `h100:8` names.

    Raises:
      ValueError: the chip is unknown or the sizes are no positive numbers.
    """
    name, _, sizes = text.partition(":")
    parts = sizes.split("x")
    if name not in CHIPS or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise ValueError(
            f"topology {text!r}; accepted: CHIP:N or CHIP:NxN… with a chip of "
            f"{', '.join(CHIPS)}, such as v5p:8x8x4, v5e:16x16, h100:8 or cpu:256"
        )
    return Topology(text, CHIPS[name], tuple(int(part) for part in parts))
