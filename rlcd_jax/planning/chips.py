"""Chips by name: memory, rates of products, of memory and of links, and prices.

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
LINK_SHARE = 0.60  # of a link's rate in collectives; a guess
# Of the usable memory, left free by what "fits": the compilers' peaks have been up to
# 10 % off the estimates (see experiments/README.md), and an allocator's pieces are
# never packed without gaps.
MARGIN = 0.05
GPU_SHARE = 0.75  # of a GPU's memory: what JAX takes unless told otherwise
HOST_GPUS = 8  # of one host, joined by NVLink
# Of a chip for an hour, US dollars: list prices on demand as they are remembered, for a
# first sum. They differ by region, contract and month: give your own with --price.
PRICES_OF = "2026-11, list prices on demand, not checked: set your own with --price"


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
      near: peak GB/s to chips of the same island (see `Topology`), each way.
      far: likewise to chips of others.
      price: of an hour; see `PRICES_OF`. 0: not known.
      source: of the figures.
    """

    name: str
    platform: str
    memory_gib: float | None
    usable_gib: float | None
    tflops: float | None
    gbytes: float | None
    near: float
    far: float
    price: float
    source: str

    def with_memory_share(self, share: float) -> Chip:
        """Return a GPU of whose memory JAX takes another share than `GPU_SHARE`."""
        if self.platform != "gpu" or not 0 < share <= 1:
            raise ValueError(
                f"memory_share={share} of {self.name}; accepted: of a GPU, above 0 and "
                "at most 1: what XLA_PYTHON_CLIENT_MEM_FRACTION will be in the run"
            )
        return dataclasses.replace(
            self,
            usable_gib=share * self.memory_gib,
            source=self.source.replace(f"{GPU_SHARE}", f"{share}"),
        )


_GOOGLE = "rates: Google Cloud TPU documentation; usable: what XLA compiles for"
_NVIDIA = f"rates: NVIDIA data sheet, SXM; usable: {GPU_SHARE} of CUDA's total"


def _tpu(
    name: str,
    gib: tuple[float, float],
    rates: tuple[float, float, float],
    price: float,
) -> Chip:
    """Return a TPU of a host of 4 with 25 GB/s; `gib` in all and usable."""
    return Chip(name, "tpu", *gib, *rates, 6.25, price, f"{_GOOGLE}, {name}")


def _gpu(
    name: str, gib: float, rates: tuple[float, float, float, float], price: float
) -> Chip:
    usable = GPU_SHARE * gib
    return Chip(name, "gpu", gib, usable, *rates, price, f"{_NVIDIA}, {name}")


# Usable memory of a TPU is the figure in XLA's own refusals ("Used 49G of 31.25G hbm").
# Of a GPU, nvidia-smi shows a little more than CUDA can give (H100: 81,559 MiB, 79.6
# GiB); the figures here are CUDA's.
CHIPS: dict[str, Chip] = {
    "v4": _tpu("v4", (32, 30.75), (275, 1228, 300), 3.22),
    "v5e": _tpu("v5e", (16, 15.75), (197, 819, 200), 1.20),
    "v5p": _tpu("v5p", (95.74, 95.74), (459, 2765, 600), 4.20),
    "v6e": _tpu("v6e", (32, 31.25), (918, 1640, 400), 2.70),
    "a100": _gpu("a100", 79.2, (312, 2039, 300, 25), 2.50),
    "h100": _gpu("h100", 79.1, (989, 3350, 450, 50), 3.50),
    "h200": _gpu("h200", 139.8, (989, 4800, 450, 50), 4.50),
    "cpu": Chip(
        "cpu", "cpu", None, None, None, None, 1.0, 1.0, 0.0, "no figures: hosts differ"
    ),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Some chips of one kind, such as `v5p:8x8x4`.

    Attributes:
      text: as it was written.
      chip: what each is.
      shape: chips of a slice by dimension.
      slices: how many of these there are, joined by the network of the data centre.
    """

    text: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def num_devices(self) -> int:
        """The number of chips."""
        return self.slices * math.prod(self.shape)

    @property
    def island(self) -> int:
        """Chips that are joined by fast links: of a slice, or of a host of GPUs."""
        return HOST_GPUS if self.chip.platform == "gpu" else math.prod(self.shape)

    @property
    def name(self) -> str:
        """The chips in words: "2 x v5e:16x16"."""
        return f"{self.slices} x {self.text}" if self.slices > 1 else self.text


def parse_topology(
    text: str, slices: int = 1, memory_share: float | None = None
) -> Topology:
    """Return the chips that a text such as `v5e:16x16` or `h100:8` names.

    Args:
      text: of one slice.
      slices: how many there are.
      memory_share: of a GPU's memory; None: as JAX has it.

    Raises:
      ValueError: the chip is unknown, the sizes are no positive numbers, or the share
        is none, or not of a GPU.
    """
    name, _, sizes = text.partition(":")
    parts = sizes.split("x")
    if name not in CHIPS or not all(p.isdecimal() and int(p) > 0 for p in parts):
        raise ValueError(
            f"topology {text!r}; accepted: CHIP:N or CHIP:NxN… with a chip of "
            f"{', '.join(CHIPS)}, such as v5p:8x8x4, v5e:16x16, h100:8 or cpu:256"
        )
    if slices < 1:
        raise ValueError(f"slices={slices}; accepted: 1 or more")
    chip = CHIPS[name]
    if memory_share is not None:
        chip = chip.with_memory_share(memory_share)
    return Topology(text, chip, tuple(int(part) for part in parts), slices)
