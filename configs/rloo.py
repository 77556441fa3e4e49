r"""RLOO on RLCD's preference model: PPO's place without a value model.

Command:  python -m experiments.run --workdir runs/rloo \
              --config configs/rloo.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

The other replies to a prompt are the baseline of each (Ahmadian et al. 2024, arXiv
2402.14740). As many replies a step and updates as PPO has here, so that the two
compare; the source makes one update a step, in which clipping has no part:
`--config.policy.epochs=1 --config.policy.update_batch=N` with N of policy.rollouts.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("rloo", arg)
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "contrast"  # RLCD's pairs
    config.pairs.labels = ("construction",)  # p+'s reply is the better
    config.policy.advantages = "rloo"  # over the mean of the other replies
    config.policy.samples_per_prompt = 4  # Ahmadian et al., Section 4: 2 and 4
    config.policy.kl_in = "reward"  # of the whole reply, as in their equation 1
    config.policy.kl_estimator = "k1"  # their log ratio of the whole reply
    config.policy.whiten_advantages = False  # there is no such step
    config.policy.whiten_rewards = False  # with preset=released too: of tokens
    config.policy.statistics = "masked"  # likewise: of padding
    config.evaluate.systems = ("base", "policy")
    return config
