"""Which machine a config is for: the mesh and the sizes that the planner says fit.

Each sets fields of a whole config; each is said by its argument, `hardware=8xh100`.
They are for the paper's sizes of LLaMA-7B, and of LLaMA-30B where the name says so.
`experiments/README.md` has memory, hours and cost of each; another model, or another
machine: `--search` of `experiments.plan`.
"""

from ml_collections import ConfigDict

# (mesh.data, mesh.fsdp, mesh.tensor), engine.slots_per_device
HARDWARE = {
    # 8 GPUs of 80 GB: parameters in eighths, every slot on one GPU
    "8xh100": ((1, 8, 1), 48),
    # to simulate with 30B: 65 GB of weights in quarters
    "8xh100-30b": ((1, 2, 4), 64),
    # 64 TPU v5e, 16 GB each: decode weights in quarters
    "v5e-64": ((1, 16, 4), 64),
    # 16 TPU v5p, 95 GB each: parameters in sixteenths
    "v5p-16": ((1, 16, 1), 64),
    # to simulate with 30B: weights in quarters
    "v5p-16-30b": ((1, 4, 4), 64),
}
# Tokens a second of LLaMA-7B, as `experiments.plan` reckons them at 40 % of the peak
# rate, and the list price of an hour on all of it (see planning/chips.py): for the
# forecasts of the tables. A test holds them to the planner.
RATES = {
    "8xh100": {"generate": 21_000.0, "train": 43_000.0, "price": 28.0},
    "v5e-64": {"generate": 41_000.0, "train": 60_000.0, "price": 76.8},
    "v5p-16": {"generate": 36_000.0, "train": 44_000.0, "price": 67.2},
}


def set_machine(config: ConfigDict, machine: str) -> None:
    """Set the mesh and the slots of a config to those of a machine."""
    mesh, slots = HARDWARE[machine]
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = mesh
    config.engine.slots_per_device = slots
