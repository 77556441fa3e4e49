r"""Mixed: the same contrast pairs twice, labelled by construction and by scoring.

Command:  python -m experiments.run --workdir runs/mixed \
              --config configs/mixed.py:task=harmless,model=hf:/models/llama-7b \
              --config.prompts.hh_dir=/data/hh-rlhf
Hardware: with size=full, SmolLM2-135M on two CPU cores; with size=paper, a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

Other shares, and RLAIF among them, are `pairs.mix`, such as
`--config.pairs.mix="('rlcd=1', 'rescore=0.5', 'rlaif=0.5')"`. The soft labels come last
with `--config.preference.order=certain_first`. Pairs whose score disagrees with the
affixes, or hardly decides, are left out by `--config.pairs.drop_disagreeing` and
`--config.pairs.min_margin=0.1`.
"""

from configs import common


def get_config(arg: str | None = None):
    """Return the locked config; `arg` as in `configs.common`."""
    config = common.get_base("mixed", arg)
    # No cell of the paper: RLCD and RLCD-Rescore at once, on the same replies.
    config.stages = ("simulate", "preference", "policy", "evaluate")
    config.pairs.sampling = "contrast"  # one reply to p+, one to p-
    config.pairs.labels = ("construction", "scoring")  # each pair has a row of each
    config.evaluate.systems = ("base", "policy")  # what PPO adds to the base model
    return config
