r"""Evaluation alone: replies of given systems on held-out prompts, judged.

Command:  python -m experiments.run --config configs/evaluate.py:task=cheerful \
              --config.evaluate.checkpoints="('rlcd=runs/rlcd/policy/checkpoints',)" \
              --workdir runs/compare
Hardware: with size=full, SmolLM2-135M on two CPU cores.
Result:   a table of all systems against the base model.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("evaluate", arg)
    config.stages = ("evaluate",)
    config.evaluate.systems = ("base",)
    return config
