r"""Context distillation: fine-tuning on the replies to the positive prompts.

Command:  python -m experiments.run --workdir runs/distill \
              --config configs/distill.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("distill", arg)
    # The paper's baseline without preferences: no preference model, no PPO; Sec. 4.
    config.stages = ("simulate", "distill", "evaluate")
    config.pairs.sampling = "contrast"  # the same pairs as RLCD's: p+ is learnt from
    config.pairs.labels = ("construction",)  # they tell which reply is p+'s
    config.evaluate.systems = ("base", "distill")  # there is no other policy
    return config
