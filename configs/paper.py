r"""The tables of the paper: grid, seeds, data, judge, and the scale they are made at.

Command:  python -m experiments.reproduce --workdir D \
              --config configs/paper.py:table=3,scale=smollm2-135m [--dry_run]
Hardware: scale=tiny and scale=smollm2-135m: two CPU cores; the others: a pod.
Result:   see experiments/README.md for what was measured, on what, and when.

The argument holds what changes several fields at once:

  table=2|3|5|6|16|23|28|29|36|40
        |length|diversity|perplexity|theory|strength|methods|quirks|all
  scale=llama-7b|llama-30b|smollm2-135m|tiny
  hardware=8xh100|v5e-64|v5p-16   of every run: mesh, slots, rates, the price of an hour

`--config.run.SECTION.FIELD=value` sets a field of every run, such as
`--config.run.mesh.fsdp=8`. Sources: tables, sections and appendices are the paper's
(arXiv 2307.12950).
"""

from ml_collections import ConfigDict, config_dict

from configs import common, hardware, switches

# Fields of a run that the tables set themselves, or that no node of theirs reads.
SET_BY_TABLES = (
    "name",
    "preset",
    "size",
    "seed",
    "task",
    "stages",
    "model.spec",
    "model.generator",
    "model.scorer",
    "model.preference",
    "model.policy",
    "model.judge",
    "prompts.hh_dir",
    "prompts.hh_dev_split",
    "prompts.hh_test_split",
    "pairs.sampling",
    "pairs.labels",
    "pairs.mix",
    "pairs.samples",
    "preference.data",
    "preference.data_limit",
    "preference.human_share",
    "preference.human_pairs",
    "preference.loss",
    "direct.loss",
    "policy.advantages",
    "policy.kl_coef",
    "policy.steps",
    "evaluate.systems",
    "evaluate.checkpoints",
    "evaluate.judges",
    "evaluate.preference_judge",
    "judge",
)


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the locked config; `arg` holds table and scale."""
    fields = _parse(arg)
    config = ConfigDict()
    config.table = fields["table"]  # its name, or "all"; set by the argument
    config.scale = fields["scale"]  # its name, for captions; set by the argument
    config.tasks = ("harmless", "helpful")  # names or files; outline: no paper prompts
    # Compared with the base model by table=methods; (): all but ipo, kto, rloo, grpo
    # and rlcd_alpha15.
    config.methods = ()
    # Fields that table=quirks turns to what the released code does, one a row.
    config.quirks = tuple(switches.SWITCHES)
    config.seeds = (1,)  # root seeds; a figure is the mean over them
    config.size = "paper"  # of the runs' configs, as in configs.common
    config.published = "7B"  # generator whose figures of the paper stand beside ours
    config.model = ""  # spec of the model that is aligned; "": the user must say
    config.generator = ""  # spec of the model that makes pairs; "": as above
    config.shapes = ConfigDict()
    config.shapes.model = "llama-7b"  # preset that costs and messages take; Section 4
    config.shapes.generator = "llama-7b"  # Section 4: 7B, and 30B for some pairs
    config.grid = _grid()
    config.strength = _strength()
    config.hh_rlhf = _hh_rlhf()
    config.people = _people()
    config.judge = common.get_judge()  # none: a local one
    # Of Table 16: a file, task: the task's, or human:N pairs of hh-rlhf; unpublished.
    config.shots = ""
    config.studies = ()  # folders of experiments.human, for Tables 2 and 23
    config.perplexity_model = ""  # spec; "": the aligned model; App. J.2 names none
    config.trials = 3_000_000  # of the check of Appendix N, for each shift
    config.rates = _rates()
    config.run = _unset(common.get_base("rlcd", None))  # of every run; None: its own
    SCALES[fields["scale"]](config)
    if "hardware" in fields:
        _set_machine(config, fields["hardware"])
    return config.lock()


def _grid() -> ConfigDict:
    """Return the policies among which each method's preference model chooses."""
    grid = ConfigDict()
    grid.kl_coef = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)  # App. E
    grid.steps = (20, 40, 60, 80)  # of PPO; App. E
    grid.outline_steps = (20,)  # App. E: outlines stay at these, where steps has them
    return grid


def _strength() -> ConfigDict:
    """Return how strong the contrasts of table=strength are: each with each."""
    strength = ConfigDict()
    strength.affixes = ("weak", "middle", "strong")  # those that a task has
    strength.alpha = (1.0, 1.5, 2.0)  # at decoding; 1: plain contrast prompts
    return strength


def _hh_rlhf() -> ConfigDict:
    hh_rlhf = ConfigDict()
    hh_rlhf.dir = ""  # folder in the official layout; "": none
    hh_rlhf.prompts = True  # of harmless and helpful, whatever the size says; Section 4
    hh_rlhf.dev = "test[:1000]"  # whose prompts choose from the grid; App. E
    hh_rlhf.test = "test[1000:2000]"  # whose replies are compared; Section 4
    return hh_rlhf


def _people() -> ConfigDict:
    """Return what human pairs are for: judges of the tables, and Tables 5 and 40."""
    people = ConfigDict()
    people.judge_pairs = 0  # that train the held-out preference model, 0: all; ours
    people.judge_seed = 42  # of that model, one for all seeds of the tables; ours
    people.compared_pairs = 2_000  # on which preference models are compared; Table 5
    people.share = 0.2  # of human pairs among a method's own; Table 40
    return people


def _rates() -> ConfigDict:
    """Return the speeds that the forecast reckons with."""
    rates = ConfigDict()
    rates.generate = 16_000.0  # tokens a second when replies are drawn; a guess
    rates.train = 64_000.0  # tokens a second forward and backward; a guess
    # What the rates are of, and where they are from.
    rates.hardware = (
        "eight accelerators; a guess: 2,000 and 8,000 tokens a second on each"
    )
    rates.price = 0.0  # of an hour on all of it, in any currency; 0: not known
    return rates


def _unset(fields: ConfigDict, prefix: str = "") -> ConfigDict:
    """Return the same fields and types without values, less what tables set."""
    run = ConfigDict()
    for name, value in fields.items():
        path = prefix + name
        if path in SET_BY_TABLES:
            continue
        if isinstance(value, ConfigDict):
            run[name] = _unset(value, f"{path}.")
        else:
            run[name] = config_dict.placeholder(type(value))
    return run


def _set_machine(config: ConfigDict, machine: str) -> None:
    """Set mesh, slots and rates to what the planner says of a machine."""
    hardware.set_machine(config.run, machine)
    config.rates.update(hardware.RATES[machine])
    config.rates.hardware = f"{machine}: planned, not measured"


def _llama_7b(config: ConfigDict) -> None:
    """Leave the paper's numbers: LLaMA-7B, aligned with its own pairs."""


def _llama_30b(config: ConfigDict) -> None:
    """Set the paper's other scale: LLaMA-7B, aligned with pairs by LLaMA-30B."""
    config.published = "30B"
    config.shapes.generator = "llama-30b"
    config.rates.hardware += "; the 30B model's share is slower"


def _smollm2_135m(config: ConfigDict) -> None:
    """Set what the embedded real model can show on two CPU cores."""
    config.model = config.generator = "smollm2-135m"
    config.shapes.model = config.shapes.generator = "smollm2-135m"
    config.size = "full"
    config.grid.kl_coef = (0.01, 0.02, 0.04)  # around what size=full has
    config.grid.steps = (20, 40)
    config.hh_rlhf.prompts = False
    config.people.judge_pairs = 4_000
    # Few replies of a 135M model end within the limit of any task.
    config.run.pairs.unfinished = "cut_sentence"
    config.rates.generate = 300.0
    config.rates.train = 250.0
    config.rates.hardware = (
        "two CPU cores with bfloat16 products, measured order of size"
    )


def _tiny(config: ConfigDict) -> None:
    """Set the smallest job that goes through every node, on random weights."""
    config.model = config.generator = "random:tiny"
    config.shapes.model = config.shapes.generator = "tiny"
    config.size = "smoke"
    config.grid.kl_coef = (0.02,)
    config.grid.steps = (1,)
    config.hh_rlhf.prompts = False
    config.run.model.dtype = "float32"
    config.run.preference.learning_rate = 1e-3
    config.run.policy.learning_rate = 1e-2  # one step must be seen
    config.run.policy.terminal_mode = "none"
    config.rates.generate = 1_000.0
    config.rates.train = 2_000.0
    config.rates.hardware = "two CPU cores; a guess, compilation outweighs it"


SCALES = {
    "llama-7b": _llama_7b,
    "llama-30b": _llama_30b,
    "smollm2-135m": _smollm2_135m,
    "tiny": _tiny,
}
ARGUMENTS = {
    "table": None,  # the tables check it
    "scale": tuple(SCALES),
    "hardware": tuple(hardware.RATES),
}


def _parse(arg: str | None) -> dict[str, str]:
    """Return table and scale of the config's argument string."""
    own = {"table": "3", "scale": "smollm2-135m"}
    return own | common.read_arg(arg, ARGUMENTS)
