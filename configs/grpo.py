r"""GRPO on RLCD's preference model: PPO's place without a value model.

Command:  python -m experiments.run --workdir runs/grpo \
              --config configs/grpo.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

A reply is compared with its group, in deviations of the group, and KL is a term of the
loss (Shao et al. 2024, arXiv 2402.03300; 64 replies a prompt there). As many replies a
step and updates as PPO has here, so that the two compare. Dr. GRPO leaves two divisions
out: `--config.policy.group_deviation=False --config.policy.per_sequence=False`.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("grpo", arg)
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "contrast"  # RLCD's pairs
    config.pairs.labels = ("construction",)  # p+'s reply is the better
    config.policy.advantages = "grpo"  # over the mean of the group, in deviations
    config.policy.samples_per_prompt = 4  # of policy.rollouts, which small sizes lower
    config.policy.group_deviation = True  # Shao et al., Section 4.1.2
    config.policy.per_sequence = True  # their equation 3: 1 / |o| in each reply
    config.policy.kl_in = "loss"  # their equation 3
    config.policy.kl_estimator = "k3"  # their equation 4
    config.policy.kl_coef = 0.04  # nats a token; Section 4.2
    config.policy.kl_target = 0.0  # a fixed coefficient
    config.policy.whiten_advantages = False  # a group's are whitened already
    config.policy.whiten_rewards = False  # with preset=released too: of tokens
    config.policy.statistics = "masked"  # likewise: of padding
    config.evaluate.systems = ("base", "policy")
    return config
