"""Chips by name: memory, peak rate of products, and memory bandwidth.

The figures are those of the makers' data sheets; what a program can use of the memory
is less, and is given apart. Plain numbers: nothing here asks a device.
"""

from __future__ import annotations

import dataclasses
import math

GIB = 2**30
PRODUCT_SHARE = 0.40  # of the peak; 386 to 450 of 989 TFLOP/s measured, training, H100
BANDWIDTH_SHARE = 0.50  # of the bandwidth; decoding reaches 0.45 to 0.70 on H100


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device.

    Attributes:
      name: as it stands in a topology.
      platform: "tpu", "gpu" or "cpu".
      memory_gib: of the data sheet; None: not known.
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


_GOOGLE = "Google Cloud TPU documentation, system architecture"
_NVIDIA = "NVIDIA data sheet, SXM; usable: JAX takes 0.75 of it unless told otherwise"


def _tpu(name: str, gib: float, usable: float, tflops: float, gbytes: float) -> Chip:
    return Chip(name, "tpu", gib, usable, tflops, gbytes, f"{_GOOGLE}, {name}")


def _gpu(name: str, gib: float, tflops: float, gbytes: float) -> Chip:
    return Chip(name, "gpu", gib, 0.75 * gib, tflops, gbytes, f"{name}: {_NVIDIA}")


CHIPS: dict[str, Chip] = {
    "v4": _tpu("v4", 32, 30.75, 275, 1228),
    "v5e": _tpu("v5e", 16, 15.75, 197, 819),
    "v5p": _tpu("v5p", 95, 94.75, 459, 2765),
    "v6e": _tpu("v6e", 32, 31.25, 918, 1640),
    "a100": _gpu("a100", 80, 312, 2039),
    "h100": _gpu("h100", 80, 989, 3350),
    "h200": _gpu("h200", 140, 989, 4800),
    "cpu": Chip("cpu", "cpu", None, None, None, None, "no figures: hosts differ"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some chips of one kind, such as ``v5p:8x8x4``."""

    text: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)


def parse_topology(text: str) -> Topology:
    """Return the chips that a text such as ``v5e:16x16`` or ``h100:8`` names.

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
