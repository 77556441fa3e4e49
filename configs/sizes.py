"""How much a config does: the paper's numbers, down to a job of seconds.

A size sets fields of a whole config; each is said by its argument, `size=quick`.
"""

from ml_collections import ConfigDict


def _paper(config: ConfigDict) -> None:
    """Leave the paper's numbers, for its prompts."""
    config.prompts.source = (
        "hh_rlhf" if config.task in ("harmless", "helpful") else ("package")
    )
    if config.task == "outline":
        config.policy.steps = 20  # App. E: more collapsed
    config.preference.human_pairs = 2000 * (config.prompts.source == "hh_rlhf")
    if config.prompts.source != "hh_rlhf":
        config.preference.held_out = 40  # of a few hundred pairs, not of 40,000


def _long(config: ConfigDict) -> None:
    """Leave the paper's numbers, but for replies of up to 1,024 tokens.

    Texts of all stages have room for them, and for a question about two of them a model
    must read 2,400 tokens or so: LLaMA-2, SmolLM2, or one with a shorter context at
    `evaluate.judges=()` or fewer `evaluate.reply_tokens`.
    """
    _paper(config)
    for section in (config.pairs, config.policy, config.evaluate):
        section.reply_tokens = 1024
    for section in (config.preference, config.distill, config.direct):
        section.lengths = (512, 1536)  # of pairs.prompt_tokens, a reply and its mark
    config.engine.slots_per_device = 8  # of four times the paper's replies
    config.policy.micro_batch = 64  # of texts three times as long as the paper's


def _full(config: ConfigDict) -> None:
    """Set what a 135M model needs to show an effect: an hour or two on two cores."""
    config.model.unroll = False  # for few updates: a GPU compiles them in a sixth
    config.engine.slots_per_device = 64
    config.engine.prompt_buckets = (32, 64)
    config.pairs.samples_per_prompt = 6
    config.pairs.temperature = 0.7  # wider contrast than 1.0 at this size
    config.pairs.prompt_tokens = 128
    config.pairs.reply_tokens = 64
    config.preference.learning_rate = 5e-5
    config.preference.lengths = (96, 144)
    config.preference.held_out = 200
    config.preference.eval_every = 40
    config.distill.epochs = 1
    config.distill.batch_size = 32
    config.distill.lengths = (96, 144)
    config.direct.batch_size = 16
    config.direct.learning_rate = 1e-5  # few updates
    config.direct.lengths = (144,)
    config.direct.eval_every = 40
    config.policy.steps = 12
    config.policy.rollouts = 64
    config.policy.update_batch = 32
    config.policy.epochs = 1
    config.policy.warmup_steps = 2
    config.policy.prompt_tokens = 64
    config.policy.reply_tokens = 48
    config.policy.learning_rate = 6e-5  # few steps
    config.policy.kl_coef = 0.02
    config.policy.terminal_mode = "none"  # most replies of this length are cut
    config.policy.checkpoint_every = 6
    config.policy.dev_prompts = 32
    config.evaluate.reply_tokens = 64
    config.evaluate.samples_per_prompt = 4
    config.evaluate.judges = _judges(config.task)


def _judges(task: str) -> tuple[str, ...]:
    """Return the judges of a small model: 135M flips with the order of the replies.

    So it is asked only where a list of words cannot tell the attribute. A task of the
    user's has those of the two that it allows.
    """
    known = {"cheerful": ("lexicon",)}
    known |= {name: ("log_odds",) for name in ("harmless", "helpful", "outline")}
    return known.get(task, ("lexicon", "log_odds"))


def _quick(config: ConfigDict) -> None:
    """Set a few minutes on two cores: the whole job, small effects."""
    _full(config)
    config.prompts.limit = 160
    config.engine.prompt_buckets = (32,)  # few programs: compiling counts here
    config.engine.live_buckets = (128,)
    config.pairs.samples_per_prompt = 2
    config.pairs.prompt_tokens = 80
    config.pairs.reply_tokens = 48
    config.preference.held_out = 64
    config.preference.lengths = (80,)
    config.preference.eval_every = 1000
    config.distill.epochs = 1
    config.distill.lengths = (80,)
    config.direct.lengths = (80,)
    config.direct.eval_every = 1000
    config.policy.steps = 6
    config.policy.rollouts = 32
    config.policy.update_batch = 16
    config.policy.warmup_steps = 1
    config.policy.checkpoint_every = 20
    config.policy.dev_prompts = 8
    config.policy.reply_tokens = 40
    config.policy.prompt_tokens = 48
    config.evaluate.reply_tokens = 40
    config.evaluate.samples_per_prompt = 2
    if config.task == "outline":  # a premise in a frame of sentences: 49 to 60 tokens
        config.policy.prompt_tokens = 72
        config.pairs.prompt_tokens = 96
        config.preference.lengths = (128,)
        config.distill.lengths = (128,)
        config.direct.lengths = (128,)


def _smoke(config: ConfigDict) -> None:
    """Set the smallest job that goes through every line: seconds, no effect."""
    _quick(config)
    config.prompts.limit = 8
    config.pairs.samples_per_prompt = 1
    config.pairs.reply_tokens = 12
    config.pairs.prompt_tokens = 256
    config.pairs.max_tries = 3
    config.pairs.unfinished = "keep"
    config.preference.held_out = 2
    config.preference.batch_size = 2
    config.preference.lengths = (320,)
    config.preference.human_pairs = 0
    config.distill.batch_size = 2
    config.distill.lengths = (320,)
    config.direct.batch_size = 2
    config.direct.lengths = (320,)
    config.policy.steps = 2 + config.policy.early_checkpoints  # two are made
    config.policy.rollouts = 4
    config.policy.update_batch = 2
    config.policy.prompt_tokens = 256
    config.policy.reply_tokens = 12
    config.policy.checkpoint_every = 1
    config.policy.dev_prompts = 2
    config.evaluate.prompts = 3
    config.evaluate.samples_per_prompt = 1
    config.evaluate.reply_tokens = 12
    config.evaluate.resamples = 200
    config.engine.slots_per_device = 8
    config.engine.live_buckets = (512,)  # one length: compiling counts here
    if config.task == "outline":  # in bytes, as random models read
        config.pairs.prompt_tokens = 320


SIZES = {
    "paper": _paper,
    "long": _long,
    "full": _full,
    "quick": _quick,
    "smoke": _smoke,
}
