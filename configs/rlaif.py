"""RLAIF: two replies to one prompt, soft labels by the model itself.

Command:  python -m experiments.run --workdir runs/rlaif \
              --config configs/rlaif.py:task=harmless,model=llama-7b
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("rlaif", arg)
    config.pairs.sampling = "same"
    config.pairs.labels = ("scoring",)
    return config
