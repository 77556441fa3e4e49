r"""Graded replies: a scale of affixes in place of two sides, all ranked at once.

Command:  python -m experiments.run --workdir runs/graded \
              --config configs/graded.py:task=cheerful,model=smollm2-135m
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

The task needs `[[scales]]`. `--config.preference.loss=margin` learns from the pairs of
the same replies, each with a margin by the distance of its grades, and
`--config.preference.loss=bradley_terry` from the pairs alone.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("graded", arg)
    # RLCD's contrast by degrees: p+ and p- are the ends of a scale.
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "graded"  # a reply to each of these grades of a scale:
    config.pairs.samples = 4  # the most and the least of the attribute, and between
    config.pairs.labels = ("construction",)  # the higher grade is preferred
    config.preference.loss = "plackett_luce"  # of the whole order of a draw
    config.preference.held_out *= 6  # pairs of a draw: as many draws as elsewhere
    config.evaluate.systems = ("base", "policy")  # what PPO adds to the base model
    return config
