"""What all configs share: one complete, commented set of fields, presets and sizes.

A config file calls `get_base` with its argument string and sets what makes its
method. The argument holds only what changes several fields at once:

  task=harmless|helpful|outline|cheerful or a path to a task file
  model=smollm2-135m|tinyllama-1.1b|llama-7b|...|hf:PATH_OR_ID|gguf:PATH|random:PRESET
  preset=corrected|paper|released   known defects mended, as the text says, as the code
                                is: see configs.switches
  size=paper|long|full|quick|smoke   how much: the paper's numbers, those with replies
                                of 1,024 tokens, down to a few seconds
  hardware=8xh100|v5e-64|...    mesh and slots for a machine: see configs/hardware.py

Single fields are set on the command line: `--config.policy.steps=40`.
Sources: "method" is the paper (arXiv 2307.12950) and its released code with
AlpacaFarm; tables and sections are the paper's.
"""

from ml_collections import ConfigDict, config_dict

from configs import hardware, sizes, switches

ARGUMENTS = {
    "task": None,  # any name or path: the task loader checks it
    "model": None,  # any spec: the weights loader checks it
    "preset": switches.PRESETS,
    "size": tuple(sizes.SIZES),
    "hardware": tuple(hardware.HARDWARE),
}
RENAMED = {("preset", "alpacafarm"): "released"}


def parse_arg(arg: str | None, **defaults: str) -> dict[str, str]:
    """Return the fields of a config's argument string, `name=value,name=value`."""
    fields = {"task": "cheerful", "preset": "corrected", **defaults}
    fields |= read_arg(arg, ARGUMENTS)
    fields.setdefault("model", "smollm2-135m")
    fields.setdefault("size", "full" if fields["model"] == "smollm2-135m" else "paper")
    return fields


def read_arg(
    arg: str | None, arguments: dict[str, tuple[str, ...] | None]
) -> dict[str, str]:
    """Return what an argument string gives, `name=value,name=value`.

    Args:
      arg: the string, or None for an empty one.
      arguments: the names that are accepted, with their values; None: any.
    """
    fields = {}
    for part in filter(None, (arg or "").split(",")):
        name, equals, value = part.partition("=")
        if not (equals and value) or name not in arguments:
            raise ValueError(
                f"config argument {part!a}; accepted: name=value with the names "
                f"{', '.join(arguments)}; single fields are set with "
                "--config.field=value"
            )
        if name in fields:
            raise ValueError(
                f"config argument {name} is given twice, {fields[name]!a} and "
                f"{value!a}; give it once"
            )
        fields[name] = value
    for name, value in fields.items():
        accepted = arguments[name]
        if accepted and (name, value) in RENAMED:
            raise ValueError(
                f"config argument {name}={value} is now called "
                f"{name}={RENAMED[name, value]}; write that"
            )
        if accepted and value not in accepted:
            raise ValueError(
                f"config argument {name}={value!a}; accepted: {', '.join(accepted)}"
            )
    return fields


def get_base(name: str, arg: str | None, **defaults: str) -> ConfigDict:
    """Return the config of method `name`, locked, before the method sets its own.

    Args:
      name: of the method, as tables show it.
      arg: the config's argument string.
      **defaults: arguments that this method sets otherwise than `parse_arg`.
    """
    fields = parse_arg(arg, **defaults)
    config = _run(name, fields)
    config.pairs = _pairs()
    config.engine = _engine()
    config.preference = _preference()
    config.distill = _distill()
    config.direct = _direct()
    config.policy = _policy()
    config.evaluate = _evaluate()
    config.judge = get_judge()
    switches.set_preset(config, fields["preset"])
    sizes.SIZES[fields["size"]](config)
    if "hardware" in fields:
        hardware.set_machine(config, fields["hardware"])
    return config.lock()


def _run(name: str, fields: dict[str, str]) -> ConfigDict:
    config = ConfigDict()
    config.name = name  # of the method, as tables show it
    config.preset = fields["preset"]
    config.size = fields["size"]
    config.seed = 42  # root of all randomness; method: 42 for training
    config.task = fields["task"]  # a task's name or the path of a task file
    config.task_format = ""  # "dialogue" or "chat"; "": the task's own
    # Checkout of the released code, whose words replace the task's: affixes, scoring,
    # what a judge is told; "": the task's own.
    config.official_wording = ""
    # What --stage=all runs, in this order; distill and direct are there too.
    config.stages = ("simulate", "preference", "policy", "evaluate")
    # Whether a stage that is done keeps its optimizer's moments: two thirds of its
    # checkpoints, which no stage and no export reads; without them it cannot go on.
    config.keep_moments = False
    # Latest checkpoints of a stage that stay: of two, one is whole if the other is not.
    config.keep_checkpoints = 2
    # Where curves are drawn beside metrics.jsonl, on this machine alone: tensorboard,
    # wandb, mlflow, trackio, each but the first with its extra of setup.py.
    config.trackers = ("tensorboard",)
    # Without a step, reply or save for so long a process shows its stacks; 0: never.
    config.stall_minutes = 30.0
    config.model = ConfigDict()
    config.model.spec = fields["model"]
    # Other models for some roles, specs like the one above. Where only text passes,
    # tokenizers may differ.
    config.model.generator = ""  # draws pairs; "": model.spec
    config.model.scorer = ""  # labels pairs by scoring; "": the generator, as the paper
    config.model.preference = ""  # is made the preference model; "": model.spec
    # Is aligned, and is the reference. The value model begins as the preference model;
    # where its shapes or tokenizer are others, as this. "": model.spec
    config.model.policy = ""
    # Judges by letters. "": the policy as it was, so that what drew and labelled the
    # pairs has no voice, and runs with other generators have one judge.
    config.model.judge = ""
    config.model.cache_dir = ""  # of the embedded model; "": ~/.cache/rlcd_jax
    config.model.dtype = "bfloat16"  # operands of products; float32 everything else
    config.model.remat = "full"  # what the backward pass recomputes: none, dots, full
    # On one GPU layers of a model that is trained whole are compiled one by one, not as
    # a loop: an update reads and writes a quarter less, its program takes seconds more.
    config.model.unroll = True
    # auto: bfloat16 on GPUs, whose layers are a third reading and writing, and float32
    # elsewhere. Of a layer's products; all sums and norms between them are float32.
    config.model.results = "auto"
    # auto: cudnn on NVIDIA GPUs that read several texts a row (H100 and later), in
    # bfloat16, splash on TPUs, in bfloat16 too, and xla elsewhere.
    config.model.attention = "auto"
    # With "xla" texts of more than twice as many tokens are attended to in blocks of so
    # many, so that no array has the scores of all tokens with all; 0: never; -1: 128 on
    # CPUs, 256 elsewhere.
    config.model.attention_block = -1
    config.model.chunk_tokens = 2048  # of a device, whose logits exist at once
    config.lora = ConfigDict()
    # Rank of the adapters that are trained in place of whole models, which then share
    # one frozen base in model.dtype; 0: whole models are trained, as in the paper.
    config.lora.rank = 0
    config.lora.alpha = 16.0  # an adapter's product is multiplied by alpha / rank
    # The base: "compute", in model.dtype, or "int8", half of that, with a scale a row.
    config.lora.base = "compute"
    # The matrices of every layer that have one.
    config.lora.targets = ("q", "k", "v", "o", "gate", "up", "down")
    config.mesh = ConfigDict()
    config.mesh.slices = 1  # groups that only the data centre's network joins
    config.mesh.data = -1  # replicas in a slice; -1: all devices the others leave
    config.mesh.fsdp = 1  # ways in which parameters are split
    config.mesh.tensor = 1  # ways in which heads and vocabulary are split
    config.prompts = ConfigDict()
    # "package": the task's; "hh_rlhf"; or a path: our JSONL, somebody's rows with a
    # field "prompt" (JSONL, JSON, CSV, Parquet, a folder of HF datasets or TFDS), text.
    config.prompts.source = "package"
    config.prompts.hh_dir = ""  # folder of hh-rlhf in the official layout
    config.prompts.hh_train_split = "train"  # the part of hh-rlhf to simulate on
    config.prompts.hh_test_split = "test"  # to hold out; released: test[1000:2000]
    config.prompts.hh_dev_split = "test[:1000]"  # to choose checkpoints on; App. E
    # Whose human pairs the preference model is compared with; released: train[:2000].
    # A text of two parts is dev's, test's, this one's first.
    config.prompts.hh_agreement_split = "train[:5%]"
    # Whether training prompts are none of those; released: False.
    config.prompts.hh_agreement_apart = True
    # Whether a prompt of hh-rlhf is a text, in which headers are replaced; else turns.
    config.prompts.as_written = False  # released: True
    config.prompts.data_dir = ""  # where data sets are prepared; "": ~/.cache/rlcd_jax
    config.prompts.limit = 0  # training prompts, 0: all
    return config


def _pairs() -> ConfigDict:
    pairs = ConfigDict()
    # "contrast": p+ and p-; "same": one prompt again; "graded": a scale of the task.
    pairs.sampling = "contrast"
    pairs.labels = ("construction",)  # p+ wins; "scoring": the LLM says; both: mixed
    # In place of sampling and labels, shares of the prompts that get rows of a method:
    # "rlcd=1", "rescore=0.5", "rlaif=0.5"; a smaller share is a part of a larger.
    pairs.mix = ()
    pairs.samples = 2  # replies of a draw, of which all pairs are labelled; method
    pairs.samples_per_prompt = 1  # draws of each prompt
    pairs.temperature = 1.0  # method
    pairs.top_k = 0  # released: 50, by a library's default; corrected: off
    pairs.top_p = 1.0  # method
    pairs.alpha = 1.0  # contrast strength; 1: plain contrast prompts
    pairs.strength = ("middle",)  # of the task's affix pairs: weak, middle, strong
    pairs.prompt_tokens = 384  # longer prompts are left out and counted; released: 1280
    pairs.reply_tokens = 300  # method
    pairs.part_prompts = 4096  # prompts between two saves; a --part takes whole ones
    # Attempts a side, then the prompt is dropped; released: 5, in the text 5 more.
    pairs.max_tries = 5
    pairs.both_orders = True  # scoring: ask in both orders; released: False
    pairs.hard_labels = False  # scoring: keep the probability; method: soft
    # Contrast pairs whose positive side the model scores lower are left out.
    pairs.drop_disagreeing = False
    # Pairs with |2 p - 1| below it are left out, p the scored chance of a reply.
    pairs.min_margin = 0.0
    pairs.cleanup = "corrected"  # "released": the rules of the released code
    # Where a forbidden string of the task is not drawn: "anywhere", however it is
    # spelled; "word_initial", only by the tokens of the string alone, as released.
    pairs.forbidden = "anywhere"
    # Scoring: of "continuation", the letters as they go on behind the question, or
    # "bare", as words of their own, as released.
    pairs.letters = "continuation"
    # Scoring: questions of the task that are asked about a pair, whose answers are
    # averaged; 1: that of the affix pair or a drawn one; method.
    pairs.instructions = 1
    # Scoring: solved examples before each question, few-shot RLAIF, App. C; "task": the
    # task's own; "human:N" pairs of hh-rlhf; or a file of them, as it stands; "": none.
    pairs.shots = ""
    # Scoring: answers in words that are drawn to each question, of which the label is
    # the share of votes, arXiv 2203.11171; 0: the chance of the letters is read.
    pairs.votes = 0
    pairs.vote_tokens = 64  # of such an answer, which first gives a reason
    pairs.vote_temperature = 0.7  # as in that paper
    # Training reads replies such as "None" and "NA" as empty texts; released: True.
    pairs.csv_missing = False
    pairs.unfinished = ""  # of cut replies: reject, cut_sentence, keep; "": the task's
    return pairs


def _engine() -> ConfigDict:
    engine = ConfigDict()
    # Replies under way at once; devices of one tensor group share theirs. LLaMA-7B on
    # eight devices of 80 GB has room for no more beside PPO.
    engine.slots_per_device = 16
    # Weights of decoding: "whole", but for mesh.tensor, or split over mesh.fsdp too:
    # less memory, and every step sends activations round.
    engine.weights = "whole"
    engine.steps_per_dispatch = 8  # tokens a slot between looks by the host
    engine.prompt_buckets = (16, 64, 128, 256)  # widths of prefill; each is compiled
    # Leading parts of the cache to read; (): four parts, of 128 entries or more.
    engine.live_buckets = ()
    # The last replies of a job move to fewer slots where one may take so many tokens
    # more: for a half, a quarter, and so on, a program is compiled. 0: never, so that a
    # reply is rounded alike whatever else is drawn; of 128 replies one came out other.
    engine.tail_tokens = 0
    engine.memory_gib = 0.0  # refuse a larger plan; 0: no limit
    # In a job of several processes each draws pairs of its own on its own devices,
    # where mesh.fsdp x mesh.tensor divide these; False: all draw the same ones.
    engine.per_process = True
    return engine


def _preference() -> ConfigDict:
    preference = ConfigDict()
    # "pairs": the run's own; "hh_rlhf": human pairs; or a file of somebody's pairs:
    # "trl:FILE", "alpaca_farm:FILE" (the released CSV too), "rlcd:FILE" of a run.
    preference.data = "pairs"
    preference.data_limit = 0  # of pairs that are not the run's own, 0: all
    preference.human_share = 0.0  # of human pairs among the run's own; Table 40: 0.2
    # What is learnt of labels, see training.preferences: "bradley_terry", the method;
    # "margin": the better reply is ahead by a margin; "ties": two may be equally good;
    # "plackett_luce": all pairs.samples replies of a draw are ranked at once.
    preference.loss = "bradley_terry"
    # Of "margin": of replies one grade apart, or without grades by |2 label - 1|, in
    # reward; Llama 2, Table 27, has 1 between its four grades, or 1/3.
    preference.margin = 1.0
    preference.tie_width = 0.5  # of "ties": about how near rewards of a tie are; ours
    preference.tie_band = 0.1  # of "ties": labels as near to 1/2 are ties; ours
    preference.epochs = 1  # method
    # Of the pairs of each epoch: "shuffled", the method, or "certain_first": by
    # |2 p - 1| of their labels, a curriculum from what is sure to what is not.
    preference.order = "shuffled"
    # In place of an order, weights of the rows of pairs.mix at the beginning and at the
    # end, and a straight line between: ("rlaif=1:0", "rlcd=0:1") goes from rows of
    # RLAIF to rows of RLCD; "human" is of human_share. Each row is used as often as
    # without; methods that are not named have 1:1.
    preference.curriculum = ()
    preference.batch_size = 16  # pairs an update, or rankings; method
    preference.micro_batch = 0  # pairs at once on all devices; 0: the whole batch
    preference.learning_rate = 3e-6  # method
    preference.schedule = "cosine"  # to zero; method
    preference.warmup_fraction = 0.03  # method
    preference.first_step_idle = False  # released: the warm-up starts at rate zero
    preference.weight_decay = 0.0  # method
    preference.eps = 1e-8  # of Adam; method
    preference.max_grad_norm = 1.0  # method
    preference.lengths = (512,)  # tokens of a text: the last are the most that is read
    # "shorten_prompt": leave out its oldest turns; "cut_right": the end, as released.
    preference.too_long = "drop"
    preference.held_out = 500  # pairs, of prompts that training never sees; method
    preference.eval_every = 50  # updates between looks at held-out pairs
    preference.checkpoint_every = 500  # updates; the last is always saved
    # At a loss, gradient or reward that is not finite: "stop" leaves a note of the
    # step and ends; "skip" leaves the update out, notes it, and counts it; "rollback"
    # goes back to the checkpoint before, leaves out all batches since, and counts them.
    preference.nonfinite = "stop"
    # Of which metric the best checkpoint stays beside the newest: "", none;
    # "preference/held_out_accuracy" or "preference/held_out_loss".
    preference.keep_best = ""
    preference.human_pairs = 0  # agreement with this many human pairs; method: 2000
    return preference


def _distill() -> ConfigDict:
    distill = ConfigDict()
    distill.epochs = 3  # method
    distill.batch_size = 128  # method
    distill.micro_batch = 0  # replies at once on all devices; 0: the whole batch
    distill.learning_rate = 2e-5  # method
    distill.schedule = "cosine"  # method
    distill.warmup_fraction = 0.03  # method
    distill.first_step_idle = False  # released: the warm-up starts at rate zero
    distill.weight_decay = 0.0  # method
    distill.eps = 1e-8  # method
    distill.max_grad_norm = 1.0  # method
    distill.lengths = (512,)  # tokens of a text: the last are the most that is read
    # "shorten_prompt": leave out its oldest turns; "cut_right": the end, as released.
    distill.too_long = "drop"
    # Where a reply begins: by its "text", or by the "tokens" of prompt and space, which
    # leaves its first token untrained, as released.
    distill.border = "text"
    distill.per_sequence = False  # released: every reply weighs alike, not every token
    distill.eval_every = 100  # updates; nothing is held out, so nothing is looked at
    distill.checkpoint_every = 500  # updates; the last is always saved
    # At a loss, gradient or reward that is not finite: "stop" leaves a note of the
    # step and ends; "skip" leaves the update out, notes it, and counts it; "rollback"
    # goes back to the checkpoint before, leaves out all batches since, and counts them.
    distill.nonfinite = "stop"
    return distill


def _direct() -> ConfigDict:
    # Which pairs it learns from, and which are held out: the fields of preference.
    direct = ConfigDict()
    direct.loss = "dpo"  # "ipo", "kto": on the same pairs; see training.preferences
    direct.beta = 0.1  # rewards a nat; large: near the base model; DPO, Sec. 6
    # Whether what policy and base model say of a reply is divided by its tokens, as for
    # IPO in TRL: long replies then weigh no more, and beta is rewards a nat a token,
    # so larger by about as much as replies are long.
    direct.per_token = False
    direct.epochs = 1  # DPO, App. B
    direct.order = "shuffled"  # "certain_first": as of preference
    direct.curriculum = ()  # shares of pairs.mix that change: as of preference
    direct.batch_size = 64  # pairs an update; DPO, App. B
    direct.micro_batch = 0  # pairs at once on all devices; 0: the whole batch
    direct.learning_rate = 1e-6  # DPO, App. B, there by RMSprop
    direct.schedule = "constant"  # after the warm-up; DPO, App. B
    direct.warmup_fraction = 0.1  # DPO, App. B: 150 updates
    direct.first_step_idle = False  # True: the warm-up starts at rate zero
    direct.weight_decay = 0.0  # as the other stages
    direct.eps = 1e-8  # of Adam
    direct.max_grad_norm = 1.0  # as the other stages
    direct.lengths = (512,)  # tokens of a text: the last are the most that is read
    # "shorten_prompt": leave out its oldest turns; "cut_right": the end, as released.
    direct.too_long = "drop"
    direct.eval_every = 50  # updates between looks at held-out pairs
    direct.checkpoint_every = 500  # updates; the last is always saved
    # At a loss, gradient or reward that is not finite: "stop" leaves a note of the
    # step and ends; "skip" leaves the update out, notes it, and counts it; "rollback"
    # goes back to the checkpoint before, leaves out all batches since, and counts them.
    direct.nonfinite = "stop"
    # Of which metric the best checkpoint stays beside the newest: "", none;
    # "direct/held_out_accuracy" or "direct/held_out_loss".
    direct.keep_best = ""
    return direct


def _policy() -> ConfigDict:
    policy = ConfigDict()
    policy.steps = 40  # PPO steps; method: 20 to 80, 20 for outlines
    policy.rollouts = 512  # replies a step; method
    policy.samples_per_prompt = 1  # of them to one prompt, drawn apart; method
    policy.update_batch = 256  # replies an update; method
    # Replies whose gradient an update is by, divided by the number of such parts; 0:
    # all of its batch. Released: 16, the last micro-batch alone.
    policy.lone_rows = 0
    policy.micro_batch = 0  # replies at once on all devices; 0: the update batch
    policy.epochs = 2  # passes over a step's rollouts; method
    policy.learning_rate = 1e-5  # method
    policy.warmup_steps = 5  # PPO steps; then linear to zero; method
    policy.first_step_idle = False  # released: the first step runs at rate zero
    policy.early_checkpoints = False  # released: a checkpoint lacks its own step
    policy.weight_decay = 0.0  # method
    policy.eps = 1e-5  # of Adam; method
    policy.max_grad_norm = 1.0  # method
    policy.joint_clip = False  # released: one norm over policy and value model
    # What a token earned: "gae", by a value model, the method; or by how much its reply
    # is better than others to its prompt, without a value model: "rloo", than the mean
    # of the others (arXiv 2402.14740); "grpo", than the mean (arXiv 2402.03300).
    policy.advantages = "gae"
    policy.group_deviation = True  # grpo: in deviations of the group; False: Dr. GRPO
    policy.per_sequence = False  # rloo, grpo: replies weigh alike, not tokens, as GRPO
    policy.kl_coef = 0.004  # grid 0.001 … 0.032; App. E
    policy.kl_in = "reward"  # "loss": a term of the loss, with k2 or k3, as in GRPO
    policy.kl_estimator = "k1"  # released: k1_clamped
    policy.kl_target = 0.0  # nats a reply; 0: the coefficient is fixed; method: fixed
    # Replies over which an adaptive coefficient moves by up to a fifth of itself, as
    # in lm-human-preferences; AlpacaFarm's factor of 0.1 a step is 10 x rollouts.
    policy.kl_horizon = 10000
    policy.gamma = 1.0  # method
    policy.lam = 1.0  # method
    policy.clip = 0.2  # method
    policy.value_clip = 0.2  # method
    policy.value_coef = 0.1  # method
    policy.whiten_rewards = False  # released: True; adds a drift over positions
    policy.whiten_advantages = True  # method
    policy.whiten_rows = 0  # replies whitened together; 0: all of a step; released: 64
    policy.statistics = "masked"  # released: "padded", pads count in all means
    policy.normalise_reward = True  # mean 0, deviation 1 on the first rollouts
    # Preference models of other runs that the reward is a weighted sum of, with the own
    # one: "NAME=RUN:WEIGHT", each in deviations of its first rollouts; (): it is alone.
    policy.rewards = ()
    policy.reward_weight = 1.0  # of the run's own model in that sum
    policy.terminal_mode = "replace"  # of unfinished replies: replace, subtract, none
    policy.terminal_value = -1.0  # method
    # When a reply is whole: it "ended", or has the "mark" of the next turn; released.
    policy.finished = "ended"
    policy.past_mark = False  # released: it writes on, and trains on, behind the mark
    policy.prompt_tokens = 192  # longer prompts are left out and counted; method
    policy.reply_tokens = 300  # method
    policy.temperature = 1.0  # method
    # Largest |ratio - 1| on the first minibatch. In bfloat16 single tokens are rounded
    # otherwise where their text lies beside others: 0.07 was seen with SmolLM2.
    policy.ratio_tolerance = 0.25
    # Largest mean difference of a drawn token's log-probability between the engine,
    # which may hold bfloat16, and the trainer; looked at in every step.
    policy.engine_tolerance = 0.1  # nats
    policy.checkpoint_every = 20  # PPO steps; method
    # At a loss, gradient or reward that is not finite: "stop" leaves a note of the
    # step and ends; "skip" leaves the update out, notes it, and counts it; "rollback"
    # goes back to the checkpoint before, leaves out all batches since, and counts them.
    policy.nonfinite = "stop"
    # Of which metric the best checkpoint stays beside the newest, whole: "", none;
    # "dev/reward_mean". The policy is still that which policy.choose takes.
    policy.keep_best = ""
    # Held-out prompts of the part dev that each checkpoint answers; 0: none.
    policy.dev_prompts = 64
    # Which checkpoint is the policy: "last", the method; "dev_score": the one whose
    # replies to these prompts the preference model scores highest, as App. E does
    # over its grid. There are as many to choose from as checkpoint_every makes.
    policy.choose = "last"
    policy.kl_limit = 0.0  # nats a reply, of those chosen from; 0: none; method: none
    return policy


def _evaluate() -> ConfigDict:
    evaluate = ConfigDict()
    # Of this run: base, distill, direct, policy, and best_of_n: of n replies of the
    # base model the one that the run's preference model scores highest.
    evaluate.systems = ("base", "policy")
    evaluate.best_of = 16  # n of best_of_n
    evaluate.checkpoints = ()  # of other runs, each "name=RUN/policy/checkpoints"
    evaluate.prompts = 0  # held-out prompts, 0: all
    evaluate.samples_per_prompt = 1  # replies of a system to each prompt
    evaluate.temperature = 1.0  # method
    evaluate.top_p = 0.9  # method
    evaluate.reply_tokens = 300  # method
    evaluate.cleanup = "corrected"  # "released": names of roles are cut as well
    # Of two replies side by side: shown in both orders, or in one by a coin; released.
    evaluate.both_orders = True
    # Those that the task allows are used; "api" is the one of section judge.
    evaluate.judges = ("lexicon", "log_odds")
    # Which of the task's questions judges of two replies are asked: "first", or "all",
    # a column of win rates each; on harmless prompts the paper's Harm and Help.
    evaluate.questions = "first"
    # Workdir of a preference model of other data, made of this run's model.preference.
    evaluate.preference_judge = ""
    # What alignment cost: closed questions of each of five subjects, up to 120, and
    # human texts, that every system reads for a paired difference to base; 0: none.
    evaluate.regression = 0
    evaluate.interval = 0.95  # coverage of the bootstrap intervals
    evaluate.resamples = 10000  # of the bootstrap
    return evaluate


def get_judge() -> ConfigDict:
    """Return the judge behind an OpenAI-compatible interface: none, until it is named.

    Its key is read from the environment variable OPENAI_API_KEY.
    """
    judge = ConfigDict()
    judge.url = ""  # of the interface; "": none
    judge.name = ""  # of the model that it has; the paper asks GPT-4, Section 4.1
    judge.offline = False  # answer from what was asked before, ask nothing
    # What an API calls the limit of an answer: max_tokens, max_completion_tokens, none.
    judge.max_tokens_field = "max_tokens"
    judge.price_input = config_dict.placeholder(float)  # of a million tokens
    judge.price_output = config_dict.placeholder(float)  # of a million tokens
    judge.max_cost = 0.0  # refuse to ask above it; 0: no limit
    return judge
