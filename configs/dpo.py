r"""DPO on RLCD's pairs: a policy without a preference model and without PPO.

Command:  python -m experiments.run --workdir runs/dpo \
              --config configs/dpo.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

`--config.direct.loss=ipo` and `=kto` are the other two losses on the same pairs.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("dpo", arg)
    config.stages = ("simulate", "direct", "evaluate")
    config.pairs.sampling = "contrast"  # RLCD's pairs
    config.pairs.labels = ("construction",)  # p+'s reply is the better
    config.direct.loss = "dpo"  # the reward is beta log policy / base
    config.evaluate.systems = ("base", "direct")  # there is no other policy
    return config
