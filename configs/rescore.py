r"""RLCD-Rescore: contrast prompts, but soft labels by the model itself.

Command:  python -m experiments.run --workdir runs/rescore \
              --config configs/rescore.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("rescore", arg)
    # The paper's cell between the two: RLCD's replies with RLAIF's labels; Table 6.
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "contrast"  # one reply to p+, one to p-
    config.pairs.labels = ("scoring",)  # a probability, asked of the model
    config.evaluate.systems = ("base", "policy")  # what PPO adds to the base model
    return config
