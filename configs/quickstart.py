"""Quickstart: base, context-distilled and RLCD policies of SmolLM2 on `cheerful`.

Command:  python -m experiments.quickstart [--size full] [--workdir DIR]
Hardware: two CPU cores without GPU.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("rlcd", arg, size="quick")
    config.stages = ("simulate", "preference", "distill", "policy", "evaluate")
    config.evaluate.systems = ("base", "distill", "policy")
    return config
