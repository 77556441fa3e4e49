"""Which machine a config is for: the mesh and the sizes that the planner says fit.

Each sets fields of a whole config; each is said by its argument, `hardware=8xh100`.
They are for the paper's sizes of LLaMA-7B, and of LLaMA-30B where the name says so.
`experiments/README.md` has memory, hours and cost of each; another model, or another
machine: `--search` of `experiments.plan`.
"""

from ml_collections import ConfigDict


def _8xh100(config: ConfigDict) -> None:
    """Set 8 GPUs of 80 GB for 7B: parameters in eighths, every slot on one GPU."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 8, 1
    config.engine.slots_per_device = 48


def _8xh100_30b(config: ConfigDict) -> None:
    """Set 8 GPUs of 80 GB to simulate with 30B: 65 GB of weights in quarters."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 2, 4
    config.engine.slots_per_device = 64


def _v5e_64(config: ConfigDict) -> None:
    """Set 64 TPU v5e, 16 GB each, for 7B: decode weights in quarters."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 16, 4
    config.engine.slots_per_device = 64


def _v5p_16(config: ConfigDict) -> None:
    """Set 16 TPU v5p, 95 GB each, for 7B: parameters in sixteenths."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 16, 1
    config.engine.slots_per_device = 64


def _v5p_16_30b(config: ConfigDict) -> None:
    """Set 16 TPU v5p to simulate with 30B: weights in quarters."""
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 4, 4
    config.engine.slots_per_device = 64


HARDWARE = {
    "8xh100": _8xh100,
    "8xh100-30b": _8xh100_30b,
    "v5e-64": _v5e_64,
    "v5p-16": _v5p_16,
    "v5p-16-30b": _v5p_16_30b,
}
# Tokens a second of LLaMA-7B, as `experiments.plan` reckons them at 40 % of the peak
# rate, and the list price of an hour on all of it (see planning/chips.py): for the
# forecasts of the tables. A test holds them to the planner.
RATES = {
    "8xh100": {"generate": 21_000.0, "train": 43_000.0, "price": 28.0},
    "v5e-64": {"generate": 41_000.0, "train": 60_000.0, "price": 76.8},
    "v5p-16": {"generate": 36_000.0, "train": 44_000.0, "price": 67.2},
}
