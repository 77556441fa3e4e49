"""Which fields of a config go together, told from the config alone.

Every value is one that its field accepts; a rule is about several of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from rlcd_jax import records
from rlcd_jax.job import curriculum, packed_batches, roles
from rlcd_jax.judging import evaluation_table, judges, secrets
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.models import llama, quantized
from rlcd_jax.pairs import draws, few_shots, grid
from rlcd_jax.ppo import credit, kl_penalty, weighted_rewards
from rlcd_jax.preference import best_of
from rlcd_jax.stages import POLICIES, STAGES
from rlcd_jax.training import preferences


def problems(config: ConfigDict, stages: Sequence[str]) -> list[str]:
    """Return a line for each rule that a config breaks: fields, values, what to change.

    Args:
      config: of a run, with values that its fields accept.
      stages: whose rules are asked for.
    """
    told = [*_run(config, stages)]
    comparing = [name for name in stages if STAGES[name].texts == 2]
    if comparing:
        told += _compared(config, comparing)
    for name, rule in _RULES.items():
        if name in stages:
            told += rule(config)
    return told


def _run(config: ConfigDict, stages: Sequence[str]) -> Iterator[str]:
    own = config.model
    for line in llama.only_narrow(own.dtype, own.attention, own.results):
        yield f"model.{line}"
    if "simulate" in stages or "distill" in stages:
        yield from _pairs(config, stages)
    yield from _idle(config, stages)
    if config.lora.get("base") == quantized.INT8:
        if not config.lora.rank:
            yield (
                f"lora.base={quantized.INT8!r} is of the base of adapters, and "
                "lora.rank=0 trains whole models; set lora.rank, or "
                f"lora.base={quantized.AS_COMPUTED!r}"
            )
        elif told := quantized.missing():
            yield told


def _idle(config: ConfigDict, stages: Sequence[str]) -> Iterator[str]:
    """Yield which models are named and would be asked nothing."""
    try:
        asked = {role for name in stages for role in roles.asked(config, name)}
    except ValueError:
        return  # told where the pairs are looked at
    for role, stage, why in (
        (
            roles.SCORER,
            "simulate",
            f"pairs.labels={tuple(config.pairs.labels)} with pairs.drop_disagreeing="
            "False and pairs.min_margin=0 score no pair",
        ),
        (
            roles.JUDGE,
            "evaluate",
            f"evaluate.judges={tuple(config.evaluate.judges)} have none that answers "
            "by letters",
        ),
    ):
        if config.model[role] and stage in stages and role not in asked:
            yield (
                f"model.{role}={config.model[role]!r} is asked nothing: {why}; set "
                f"model.{role}=''"
            )


def _pairs(config: ConfigDict, stages: Sequence[str]) -> Iterator[str]:
    try:
        samplings = {cell.sampling for cell in grid.read_mix(config.pairs.mix)}
    except ValueError as error:
        yield str(error)
        return
    yield from _scoring(config)
    samplings = samplings or {config.pairs.sampling}
    if samplings & {*records.CONTRASTING}:
        return
    if config.pairs.drop_disagreeing:
        yield (
            "pairs.drop_disagreeing=True compares scores with affixes, and no pair is "
            "of contrast prompts; set pairs.drop_disagreeing=False, or "
            "pairs.sampling='contrast'"
        )
    if "construction" in config.pairs.labels and not config.pairs.mix:
        yield (
            "pairs.labels has 'construction' with pairs.sampling='same': two replies "
            "to one prompt have no better side; set pairs.labels=('scoring',) or "
            "pairs.sampling='contrast'"
        )
    if "distill" in stages:
        yield (
            "stage distill learns from replies to positive prompts, and "
            "pairs.sampling='same' has none; set pairs.sampling='contrast' (or a "
            "pairs.mix with rlcd or rescore) or leave distill out of the stages"
        )


def _scoring(config: ConfigDict) -> Iterator[str]:
    """Yield what does not go together in how pairs are asked about."""
    section = config.pairs
    set_alone = {
        f"pairs.instructions={section.instructions}": section.instructions > 1,
        f"pairs.shots={section.shots!r}": bool(section.shots),
        f"pairs.votes={section.votes}": section.votes > 0,
    }
    asked = " and ".join(name for name, wanted in set_alone.items() if wanted)
    if asked and not grid.asks(section):
        yield (
            f"{asked}: nobody is asked about pairs whose labels are by construction; "
            "set pairs.labels=('scoring',) or a pairs.mix with rlaif or rescore, or "
            "set pairs.instructions=1, pairs.shots='' and pairs.votes=0"
        )
    try:
        people = few_shots.human_count(section.shots)
    except ValueError as error:
        yield f"pairs.{error}"
        return
    if people and not config.prompts.hh_dir:
        yield (
            f"pairs.shots={section.shots!r}: human pairs are read from prompts.hh_dir, "
            "which is empty; set it to a folder with hh-rlhf, or pairs.shots='task'"
        )
    if people and section.votes:
        yield (
            f"pairs.shots={section.shots!r} with pairs.votes={section.votes}: answers "
            "in words give a reason, and people gave none; set pairs.shots='task', "
            "name a file of examples with reasons, or set pairs.votes=0"
        )


def _loss(config: ConfigDict) -> Iterator[str]:
    """Yield why the labels of a run are not those that its preference loss is for."""
    section, loss = config.preference, config.preference.loss
    own = section.data == "pairs"
    asked = f"preference.loss={loss!r}"
    if loss == preferences.RANKED and not (own and config.pairs.samples > 2):
        yield (
            f"{asked} ranks more than two replies, and there are pairs with "
            f"preference.data={section.data!r} and pairs.samples={config.pairs.samples}"
            "; set pairs.samples to 3 or more with preference.data='pairs', or "
            "preference.loss='bradley_terry', which is the same of two"
        )
    if loss == preferences.RANKED and section.human_share:
        yield (
            f"{asked} ranks the replies of a draw, and preference.human_share="
            f"{section.human_share} takes pairs out of the draws; set one of them back"
        )
    if loss == preferences.RANKED and section.order != packed_batches.SHUFFLED:
        yield (
            f"{asked} has no label of a pair that preference.order={section.order!r} "
            f"could go by; set preference.order={packed_batches.SHUFFLED!r}, or "
            "another loss"
        )
    if loss == preferences.RANKED and grid.rules_of(config.pairs).asks:
        yield (
            f"{asked} ranks the replies of a draw, and pairs.drop_disagreeing="
            f"{config.pairs.drop_disagreeing} or pairs.min_margin="
            f"{config.pairs.min_margin} leaves out pairs of them; set these back, or "
            "another loss"
        )
    try:
        mixed = {cell.labels for cell in grid.read_mix(config.pairs.mix)}
    except ValueError:
        return  # told where the pairs are looked at
    labels = mixed or {*config.pairs.labels}
    hard = "scoring" not in labels or config.pairs.hard_labels
    if loss == "ties" and (section.data == "hh_rlhf" or (own and hard)):
        yield (
            f"{asked} learns from labels near 1/2, and with preference.data="
            f"{section.data!r}, labels by {' and '.join(sorted(labels))} and "
            f"pairs.hard_labels={config.pairs.hard_labels} all are 0 or 1; have some "
            "by scoring with pairs.hard_labels=False, or set preference.loss='margin'"
        )


def _compared(config: ConfigDict, stages: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the pairs that some stages learn from."""
    section = config.preference
    asked = {
        "preference.data='hh_rlhf'": section.data == "hh_rlhf",
        f"preference.human_share={section.human_share}": section.human_share > 0,
    }
    if "preference" in stages:
        name = f"preference.human_pairs={section.human_pairs}"
        asked[name] = section.human_pairs > 0
    if any(asked.values()) and not config.prompts.hh_dir:
        names = " and ".join(name for name, wanted in asked.items() if wanted)
        yield (
            f"{names}: human pairs are read from prompts.hh_dir, which is empty; set "
            "it to a folder with hh-rlhf, or set preference.human_pairs=0, "
            "preference.human_share=0 and preference.data='pairs'"
        )
    if section.data != "pairs" and section.human_share:
        yield (
            f"preference.human_share={section.human_share} mixes human pairs among "
            f"the run's own, and preference.data={section.data!r} takes none of the "
            "run's; set one of them back"
        )
    if section.data == "pairs" and section.data_limit:
        yield (
            f"preference.data_limit={section.data_limit} limits pairs that are not "
            "the run's own, and preference.data='pairs' takes none; set "
            "preference.data='hh_rlhf' or preference.data_limit=0"
        )
    if section.data != "pairs" and section.data_limit:
        for stage in stages:
            yield from too_few_pairs(config, stage, section.data_limit, 1)
    for stage in stages:
        yield from _best(config, stage)
        yield from _order(config, stage)
        yield from _curriculum(config, stage)


def _order(config: ConfigDict, stage: str) -> Iterator[str]:
    """Yield that all labels are equally sure, so that none comes first."""
    if config[stage].order != packed_batches.CERTAIN:
        return
    asked = f"{stage}.order={config[stage].order!r}"
    own = config.preference.data == "pairs"
    if own:
        try:
            cells = grid.cells_of(config.pairs)
        except ValueError:
            return  # told where the pairs are looked at
    if not own:
        why = f"preference.data={config.preference.data!r} has labels of 0 and 1 alone"
    elif all(cell.labels == "construction" for cell in cells):
        why = "labels by construction are all of 0 and 1"
    elif config.pairs.hard_labels:
        why = "pairs.hard_labels=True makes all labels 0 or 1"
    else:
        return
    yield f"{asked} orders pairs by how sure their labels are: {why}; set it to " + (
        f"{packed_batches.SHUFFLED!r}, or have soft labels by scoring among the pairs"
    )


def _curriculum(config: ConfigDict, stage: str) -> Iterator[str]:
    """Yield why the shares of a mixture cannot change as is asked for."""
    section, asked = config[stage], tuple(config[stage].curriculum)
    if not asked:
        return
    told = f"{stage}.curriculum={asked!r}"
    try:
        named = curriculum.read(asked)
    except ValueError as error:
        yield f"{told}: {error}"
        return
    try:
        cells = grid.read_mix(config.pairs.mix)
    except ValueError:
        return  # told where the pairs are looked at
    if section.order != packed_batches.SHUFFLED:
        yield (
            f"{told} is an order, and so is {stage}.order={section.order!r}; set "
            f"{stage}.order={packed_batches.SHUFFLED!r} or {stage}.curriculum=()"
        )
    if stage == "preference" and section.loss == preferences.RANKED:
        yield (
            f"{told} is of pairs, and {stage}.loss={section.loss!r} learns from whole "
            f"draws; set {stage}.curriculum=(), or another loss"
        )
    mixed = [(cell.sampling, cell.labels) for cell in cells]
    there = [name for name, own in grid.METHODS.items() if own in mixed]
    there += [grid.HUMAN] * (config.preference.human_share > 0)
    if config.preference.data != "pairs":
        there = []
    missing = [name for name in named if name not in there]
    if missing or len(there) < 2:
        what = f"no rows of {', '.join(missing)}" if missing else "one method's rows"
        yield (
            f"{told} changes the shares of a mixture, and there are {what}: "
            f"preference.data={config.preference.data!r}, pairs.mix="
            f"{tuple(config.pairs.mix)!r}, preference.human_share="
            f"{config.preference.human_share}; name methods of a pairs.mix with two or "
            f"more, or set {stage}.curriculum=()"
        )


def _best(config: ConfigDict, stage: str) -> Iterator[str]:
    """Yield why no checkpoint of a stage could be told for the best."""
    section, held_out = config[stage], config.preference.held_out
    asked = f"{stage}.keep_best={section.keep_best!r}"
    if section.keep_best and not held_out:
        yield (
            f"{asked} is of held-out pairs, and preference.held_out=0; raise it or set "
            f"{stage}.keep_best=''"
        )
    if section.keep_best and section.checkpoint_every % section.eval_every:
        yield (
            f"{asked} compares checkpoints, and {stage}.eval_every="
            f"{section.eval_every} does not divide {stage}.checkpoint_every="
            f"{section.checkpoint_every}, so that held-out pairs are not looked at "
            "where a checkpoint is saved; choose a divisor"
        )


def pairs_a_draw(config: ConfigDict) -> int:
    """Return how many pairs a whole draw of a prompt gives, of all labels."""
    return len(grid.cells_of(config.pairs)) * draws.num_pairs(config.pairs.samples)


def pairs_a_row(config: ConfigDict, stage: str) -> int:
    """Return how many pairs a row of a stage that compares is: a ranking, or one."""
    if stage == "preference" and config.preference.loss == preferences.RANKED:
        return draws.num_pairs(config.pairs.samples)
    return 1


def too_few_pairs(
    config: ConfigDict, stage: str, pairs: int, group: int
) -> Iterator[str]:
    """Yield what is wrong when so many pairs leave no batch to train on.

    Args:
      config: of the run.
      stage: that learns from pairs.
      pairs: that there are at most.
      group: of one prompt, which are held out together.
    """
    section, batch = config.preference, config[stage].batch_size
    held_out = min(-(-section.held_out // group) * group, pairs)
    each = pairs_a_row(config, stage)
    train = (pairs - held_out) // each
    if train >= batch:
        return
    most = group * ((pairs - each * batch) // group)
    advice = f"take more pairs, or lower {stage}.batch_size"
    if most >= 0:
        advice = f"set preference.held_out to {most} or less, {advice}"
    yield (
        f"{stage}: {train} training rows are fewer than one batch of "
        f"{stage}.batch_size={batch}: at most {pairs} pairs can come, "
        f"and preference.held_out={section.held_out} takes {held_out} of them; {advice}"
    )


def _policy(config: ConfigDict) -> Iterator[str]:
    section = config.policy
    if section.rollouts % section.update_batch:
        yield (
            f"policy.update_batch={section.update_batch} does not divide "
            f"policy.rollouts={section.rollouts}; choose a divisor"
        )
    for name, whole in (("lone_rows", "update_batch"), ("whiten_rows", "rollouts")):
        rows = section[name]
        if 0 < rows < section[whole] and section[whole] % rows:
            yield (
                f"policy.{name}={rows} does not divide policy.{whole}="
                f"{section[whole]}; choose a divisor, or 0 for all"
            )
    if section.early_checkpoints and section.steps == 1:
        yield (
            "policy.early_checkpoints=True leaves no step of policy.steps=1: a "
            "checkpoint lacks the step it is named after; set it to False or more steps"
        )
    if section.warmup_steps > section.steps:
        yield (
            f"policy.warmup_steps={section.warmup_steps} is more than "
            f"policy.steps={section.steps}, so the rate never gets to its height; "
            f"set it to {section.steps} or less"
        )
    if section.first_step_idle and section.steps - section.early_checkpoints == 1:
        yield (
            f"policy.first_step_idle=True leaves nothing of policy.steps="
            f"{section.steps} with policy.early_checkpoints="
            f"{section.early_checkpoints}: the only step would change "
            "nothing; set policy.first_step_idle=False or more steps"
        )
    if section.terminal_mode == "subtract" and section.terminal_value < 0:
        yield (
            f"policy.terminal_mode='subtract' with policy.terminal_value="
            f"{section.terminal_value} would pay for unfinished replies; set the "
            "value to 0 or more, or policy.terminal_mode='replace'"
        )
    if section.kl_target and section.kl_horizon <= section.rollouts / 5:
        yield (
            f"policy.kl_horizon={section.kl_horizon} replies with policy.rollouts="
            f"{section.rollouts} could make the KL coefficient negative in one step; "
            f"set it to {section.rollouts} or more"
        )
    if section.rollouts % section.samples_per_prompt:
        yield (
            f"policy.samples_per_prompt={section.samples_per_prompt} does not divide "
            f"policy.rollouts={section.rollouts}; choose a divisor"
        )
    yield from _rewards(section)
    yield from _without_values(section)
    yield from _kl_as_loss(section)
    yield from _choice(config)


def _rewards(section: ConfigDict) -> Iterator[str]:
    """Yield what does not go together in a reward of several preference models."""
    try:
        entries = weighted_rewards.read(section.rewards)
    except ValueError as error:
        yield str(error)
        return
    if entries and not section.normalise_reward:
        yield (
            f"policy.rewards={tuple(section.rewards)} with "
            "policy.normalise_reward=False: weights mean something for rewards of one "
            "unit; set policy.normalise_reward=True"
        )
    if not entries and section.reward_weight != 1:
        yield (
            f"policy.reward_weight={section.reward_weight:g} weighs the run's own "
            "preference model against those of policy.rewards, which is empty; set it "
            "to 1, or name other runs"
        )


def _without_values(section: ConfigDict) -> Iterator[str]:
    """Yield what does not go with advantages among replies, or only with them."""
    asked = f"policy.advantages={section.advantages!r}"
    if section.advantages not in credit.GROUPED:
        if section.per_sequence:
            yield (
                f"policy.per_sequence=True with {asked}: the value loss is a mean over "
                "tokens; set policy.per_sequence=False, or policy.advantages='grpo' or "
                "'rloo'"
            )
        return
    if section.samples_per_prompt < 2:
        yield (
            f"{asked} compares replies to one prompt, and policy.samples_per_prompt="
            f"{section.samples_per_prompt}; set it to 2 or more, or "
            "policy.advantages='gae'"
        )
    # Of GAE, or of every token: here a whole reply has one reward.
    wanted = {"gamma": 1.0, "lam": 1.0, "whiten_rewards": False, "statistics": "masked"}
    for name, value in wanted.items():
        if section[name] != value:
            yield (
                f"{asked} takes no part of policy.{name}={section[name]!r}, which is "
                f"of tokens and values; set policy.{name}={value!r}, or "
                "policy.advantages='gae'"
            )


def _kl_as_loss(section: ConfigDict) -> Iterator[str]:
    """Yield what does not go with a KL penalty that is a term of the loss."""
    if section.kl_in != kl_penalty.LOSS:
        return
    if section.kl_estimator not in kl_penalty.AS_LOSS:
        yield (
            f"policy.kl_in='loss' with policy.kl_estimator={section.kl_estimator!r}, "
            "whose gradient holds nothing back in the mean; set policy.kl_estimator to "
            f"{' or '.join(map(repr, kl_penalty.AS_LOSS))}, or policy.kl_in='reward'"
        )
    if section.statistics != "masked":
        yield (
            f"policy.kl_in='loss' with policy.statistics={section.statistics!r}: "
            "padding has no KL; set policy.statistics='masked', or policy.kl_in="
            "'reward'"
        )
    if section.kl_target:
        yield (
            f"policy.kl_target={section.kl_target} moves the coefficient of a penalty "
            "in the reward; set policy.kl_target=0, or policy.kl_in='reward'"
        )


def _choice(config: ConfigDict) -> Iterator[str]:
    """Yield what rules out the choice of a checkpoint that a config asks for."""
    rule, limit = config.policy.choose, config.policy.kl_limit
    if limit and rule == "last":
        yield (
            f"policy.kl_limit={limit} limits nothing with policy.choose='last', which "
            "takes the last step; set policy.choose='dev_score' or policy.kl_limit=0"
        )
    if rule == "dev_score" and not config.policy.dev_prompts:
        yield (
            "policy.choose='dev_score' needs dev prompts, but policy.dev_prompts=0; "
            "raise it or set policy.choose='last'"
        )

    if config.policy.keep_best and not config.policy.dev_prompts:
        yield (
            f"policy.keep_best={config.policy.keep_best!r} needs dev prompts, but "
            "policy.dev_prompts=0; raise it or set policy.keep_best=''"
        )
    if config.policy.keep_best and rule == "dev_score":
        yield (
            f"policy.keep_best={config.policy.keep_best!r} would keep beside it what "
            "policy.choose='dev_score' keeps already, in policy/chosen; set one of the "
            "two back, policy.keep_best='' or policy.choose='last'"
        )


def _api(config: ConfigDict) -> Iterator[str]:
    """Yield what is wrong with the judge behind an interface, and with its address."""
    judge, asked = config.judge, judges.API in config.evaluate.judges
    if judge.url:
        try:
            address = secrets.read_address(judge.url)
        except ValueError as error:
            yield f"judge.url: {error}"
            return
        if address.user or address.values:
            yield (
                f"judge.url of {address.host} holds a name, a password or a query, and "
                "a run keeps its config in its folder for all to read; give the "
                f"address alone, and the key in the variable {api_settings.KEY}"
            )
    if asked and not (judge.url and judge.name):
        yield (
            f"evaluate.judges has {judges.API!r} but judge.url or judge.name is empty; "
            "give both: the address of the interface, such as "
            "http://127.0.0.1:8000/v1, and the model that it has"
        )
    elif asked:
        try:
            api_settings.check_prices(judge)
        except ValueError as error:
            yield str(error)
    elif judge.url or judge.name:
        yield (
            f"the judge {judge.name!r} of section judge is not asked: evaluate.judges="
            f"{tuple(config.evaluate.judges)} has no {judges.API!r}; add it, or leave "
            "judge.url and judge.name empty"
        )


def _evaluate(config: ConfigDict) -> Iterator[str]:
    section = config.evaluate
    if "preference" in section.judges and not section.preference_judge:
        yield (
            "evaluate.judges has 'preference' but evaluate.preference_judge is empty; "
            "name the workdir of a preference model trained on other data"
        )
    if section.preference_judge and "preference" not in section.judges:
        yield (
            f"evaluate.preference_judge={section.preference_judge!r} is not asked: "
            f"evaluate.judges={tuple(section.judges)} has no 'preference'; add it, or "
            "leave evaluate.preference_judge empty"
        )
    yield from _api(config)
    names = [evaluation_table.BASE]
    trained = [name for name in POLICIES if name in section.systems]
    names += [config.name if name == "policy" else name for name in trained]
    if best_of.NAME in section.systems:
        names.append(best_of.shown_name(section.best_of))
    names += [entry.partition("=")[0] for entry in section.checkpoints]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        yield (
            f"two systems of the evaluation are called {double[0]!r}: evaluate.systems "
            f"gives {', '.join(names[: len(names) - len(section.checkpoints)])} and "
            f"evaluate.checkpoints={section.checkpoints}; give each its own name, as "
            "in 'name=folder'"
        )


_RULES = {
    "preference": _loss,
    "policy": _policy,
    "evaluate": _evaluate,
}
