r"""RLCD: contrast prompts, labels by construction, preference model, PPO.

Command:  python -m experiments.run --workdir runs/rlcd \
              --config configs/rlcd.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("rlcd", arg)
    # The paper's cell: replies to p+ and p-, and p+ wins without being asked; Sec. 3.
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "contrast"  # one reply to p+, one to p-
    config.pairs.labels = ("construction",)  # the reply to p+ is preferred
    config.evaluate.systems = ("base", "policy")  # what PPO adds to the base model
    return config
