r"""Best of n by RLCD's preference model: what a policy would have to beat.

Command:  python -m experiments.run --workdir runs/best_of_n \
              --config configs/best_of_n.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

No policy is trained: each answer costs n replies, `--config.evaluate.best_of=n`.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("best_of_n", arg)
    config.stages = ("simulate", "preference", "evaluate")
    config.pairs.sampling = "contrast"  # RLCD's pairs
    config.pairs.labels = ("construction",)  # p+'s reply is the better
    config.evaluate.systems = ("base", "best_of_n")  # there is no policy
    config.evaluate.best_of = 16  # KL of 1.84 nats a reply at most
    return config
