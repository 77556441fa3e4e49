"""Context distillation: fine-tuning on the replies to the positive prompts.

Command:  python -m experiments.run --workdir runs/distill \
              --config configs/distill.py:task=harmless,model=llama-7b
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("distill", arg)
    config.stages = ("simulate", "distill", "evaluate")
    config.evaluate.systems = ("base", "distill")
    return config
