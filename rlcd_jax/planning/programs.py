"""The compiled programs of each stage, in the order in which they run.

What is held between programs is counted too: optimizer moments during generation, the
decode engine's weights and cache during updates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from rlcd_jax import records, sharding, stages
from rlcd_jax.checks import rules
from rlcd_jax.decode import programs as engine_programs
from rlcd_jax.job import roles, supervised
from rlcd_jax.models import footprint, llama
from rlcd_jax.pairs import grid
from rlcd_jax.planning import counts, drawing, evaluation, passes, questions, sizes
from rlcd_jax.ppo import acting, frozen_files, learning, reply_reading, reply_rows
from rlcd_jax.scoring import likelihoods, packed_texts, rewards
from rlcd_jax.training import train_state

Program = passes.Program
Setting = sizes.Setting
Shapes = Any  # tree of jax.ShapeDtypeStruct


def simulate(setting: Setting) -> list[Program]:
    """Return the programs of simulation: loading, drawing, scoring."""
    section, scorer = setting.job.config.pairs, setting.of(roles.SCORER)
    specs = llama.param_specs(scorer.cfg)
    cells = grid.cells_of(section)
    drawn = drawing.plan_drawing(
        setting,
        num_replies=math.ceil(
            section.samples * setting.draws * grid.draws_a_prompt(cells)
        ),
        prompt_tokens=section.prompt_tokens,
        reply_tokens=section.reply_tokens,
        features=drawing.request_features(
            section,
            forbid=True,
            contrast=any(cell.sampling in records.CONTRASTING for cell in cells),
        ),
    )
    scored = grid.asks(section)
    reads = [*_reads(setting, scored)]
    if not scored:
        return [*reads, *_drawn(setting, drawn, {})]
    task = setting.job.task
    asked = task.all_instructions
    if section.instructions == 1:
        asked = task.scoring_instructions
    before = questions.shots_tokens(scorer)
    length = questions.longest(scorer, asked, section.reply_tokens, before)
    num_texts = math.ceil(
        setting.pairs
        * grid.scored_a_prompt(section)
        * (1 + section.both_orders)
        * section.instructions
    )
    if section.votes:
        return [*reads, *_voted(setting, drawn, length, num_texts)]
    copy = sizes.model_bytes(scorer, specs, frozen=True)
    held = {"frozen": copy + questions.shared_bytes(scorer, asked, before)}
    # Of adapters' base the scorer's copy is the base itself, if they are one model.
    own = setting.job.is_model_of(roles.SCORER) and setting.job.lora is not None
    score = questions.ask(
        scorer,
        "score",
        {**held, **drawn.held},
        num_texts=num_texts,
        length=length,
    )
    return [*reads, *_drawn(setting, drawn, held, copy * own), score]


def _drawn(
    setting: Setting, drawn: drawing.Drawing, held: passes.Bytes, read: int = 0
) -> list[Program]:
    """Return the loading of an engine and its drawing, beside what is held.

    Args:
      setting: of the plan.
      drawn: what is drawn.
      held: what is on the device meanwhile.
      read: bytes of it that are the model which the engine loads.
    """
    tables = drawn.memory.tables
    others = {**held, "frozen": held.get("frozen", 0) - read}
    return [
        drawing.load(setting, drawn, others),
        *drawing.generate(setting, drawn, {**held, "other": tables}),
    ]


def _voted(
    setting: Setting,
    drawn: drawing.Drawing,
    length: int,
    num_texts: int,
) -> list[Program]:
    """Return the programs of simulation where votes are drawn by an engine of theirs.

    Args:
      setting: of the plan.
      drawn: the replies.
      length: of a question, in tokens.
      num_texts: questions in all.
    """
    section, scorer = setting.job.config.pairs, setting.of(roles.SCORER)
    votes = drawing.plan_drawing(
        scorer,
        num_replies=num_texts * section.votes,
        prompt_tokens=length,
        reply_tokens=section.vote_tokens,
        features=engine_programs.Features(),
    )
    alone = _drawn(scorer, votes, {})
    # Both engines hold their weights and caches to the end.
    beside = [_beside(one, drawn.held) for one in alone[1:]]
    programs = [alone[0]]
    programs += [_beside(one, votes.held) for one in _drawn(setting, drawn, {})]
    programs += [dataclasses.replace(one, name=f"votes, {one.name}") for one in beside]
    return programs


def _beside(program: Program, held: passes.Bytes) -> Program:
    """Return a program with more that is held meanwhile."""
    both = {
        name: program.beside.get(name, 0) + held.get(name, 0)
        for name in {*program.beside, *held}
    }
    return dataclasses.replace(program, beside=both)


def _reads(setting: Setting, scored: bool) -> Iterator[Program]:
    """Yield the reading of a scorer that is another model than the generator."""
    if not scored or setting.job.is_model_of(roles.SCORER):
        return
    scorer = setting.of(roles.SCORER)
    specs, whole = llama.param_specs(scorer.cfg), setting.job.lora is None
    yield Program(
        "read the scorer",
        {
            "parameters": sizes.model_bytes(scorer, specs, frozen=False) * whole,
            "frozen": sizes.model_bytes(scorer, specs, frozen=True),
        },
    )


def preference(setting: Setting) -> list[Program]:
    """Return the programs of preference training: update and held-out rewards."""
    job, section = setting.job, setting.job.config.preference
    learn = train(setting, "preference")
    updates = num_updates(setting, "preference")
    # Read as it is where it lies on a base, else in a copy.
    frozen = sizes.base_bytes(setting) or sizes.read_bytes(setting, "preference")
    look = passes.read(
        setting,
        "held out",
        rewards.reward_program(job),
        (sizes.read_shapes(setting, "preference"),),
        passes.row_shapes(setting, section.lengths[-1], 2 * section.held_out),
        held={**state_sizes(learn[-1]), "frozen": frozen},
        num_texts=2 * section.held_out * -(-updates // section.eval_every),
    )
    return [*learn, look]


def direct(setting: Setting) -> list[Program]:
    """Return the programs of a policy on pairs: what the base says of them, update."""
    job, section = setting.job, setting.job.config.direct
    held_out = job.config.preference.held_out
    model = sizes.model_shapes(setting, llama.param_specs(setting.cfg), frozen=True)
    copy = {"frozen": sharding.device_bytes(model)}
    start, update = train(setting, "direct")
    length = packed_texts.made_for(section.lengths[-1])

    def read(
        name: str, who: Shapes, held: passes.Bytes, pairs: int, looks: int = 1
    ) -> Program:
        texts = passes.row_shapes(setting, length, 2 * pairs, states=True)
        return passes.read(
            setting,
            name,
            likelihoods.ids_program(job),
            (who,),
            texts,
            held=held | copy,
            num_texts=2 * pairs * looks,
            logit_length=texts[0].shape[1],
        )

    looks = -(-num_updates(setting, "direct") // section.eval_every)
    reference = read("reference", model, {}, setting.preference_pairs)
    policy = sizes.read_shapes(setting, "policy")
    held = read("held out", policy, state_sizes(update), held_out, looks)
    return [reference, start, update, held]


def train(setting: Setting, name: str) -> list[Program]:
    """Return the start and the update of a stage that trains on texts that are there.

    The stage's own file says what an update reads.
    """
    stage = stages.STAGES[name]
    job, section = setting.job, setting.job.config[stage.section]
    updates, length = num_updates(setting, name), job.longest_text(stage.section)
    texts = stage.texts
    if rules.pairs_a_row(job.config, name) > 1:
        texts = job.config.pairs.samples
    tokens = updates * section.batch_size * texts * length
    learner = stage.load().make_trainer(job, updates)
    learn = passes.update(
        setting,
        name,
        learner,
        forward=footprint.forward_flops(
            setting.cfg,
            tokens,
            footprint.keys_computed(setting.cfg, length),
            logit_tokens=tokens * stage.policy,
        ),
        updates=updates,
    )
    return [*passes.quantize(setting), passes.start(setting, learner), learn]


def num_updates(setting: Setting, name: str) -> int:
    """Return the updates of a stage that trains on texts, if none is dropped.

    Raises:
      ValueError: all pairs would be held out, or an epoch has no whole batch.
    """
    stage = stages.STAGES[name]
    section = setting.job.config[stage.section]
    config, rows, held_out = setting.job.config, setting.draws, 0
    if stage.texts == 2:
        rows = setting.preference_pairs
        held_out = config.preference.held_out
    if rows <= held_out:
        raise ValueError(
            f"preference.held_out={held_out} takes all of the {rows} pairs "
            f"that there are at most; accepted here: below {rows}, so that some are "
            "left to train on; lower it, or make more pairs with "
            "pairs.samples_per_prompt"
        )
    left = (rows - held_out) // rules.pairs_a_row(config, name)
    return supervised.num_updates(section, left, name)


def state_sizes(learn: Program) -> dict[str, int]:
    """Return what is held of a training's state between its updates."""
    return {name: learn.sizes[name] for name in ("parameters", "moments")}


def policy(setting: Setting) -> list[Program]:
    """Return the programs of PPO: drawing, rollout, update."""
    job, section, cfg = setting.job, setting.job.config.policy, setting.cfg
    rewarder = setting.of(roles.PREFERENCE)
    updates = learning.last_step(section) * learning.updates_per_step(section)
    length = job.longest_text("policy")
    replies, dev = counts.policy_replies(job.config)
    rows = updates * reply_rows.rows_of_update(section)
    tokens, logit_tokens = rows * length, rows * section.reply_tokens
    keys = footprint.keys_computed(cfg, length)
    specs = llama.param_specs(cfg)
    frozen = {
        "reference": sizes.model_shapes(setting, specs, frozen=True),
        "rewards": sizes.read_shapes(rewarder, "preference"),
    }
    # Those of other runs are taken to be of the form of this run's own.
    copies = sizes.read_bytes(rewarder, "preference") * (1 + len(section.rewards))
    if not job.is_model_of(roles.PREFERENCE):
        copies += sizes.base_bytes(rewarder)
    copies += sharding.device_bytes(frozen["reference"])  # which is the base, if any
    drawn = drawing.plan_drawing(
        setting,
        num_replies=replies + dev,
        prompt_tokens=section.prompt_tokens,
        reply_tokens=section.reply_tokens,
        features=drawing.request_features(section, forbid=False),
        most=acting.most_requests(section),
    )
    # Copies may be parked but for the one that is read, and weights and cache go
    # between the steps of drawing (`Engine.unload`).
    parks = frozen_files.parks(job, on_cpu=setting.chip.platform == "cpu")
    held = {"frozen": copies * (not parks), "other": drawn.memory.tables}
    step = {**held, "other": held["other"] + sizes.rollout_bytes(job)}
    learner = learning.make_trainer(job)
    forward = {
        learning.POLICY: footprint.forward_flops(
            cfg, tokens, keys, logit_tokens=logit_tokens
        )
    }
    if learning.VALUE in learning.trained(section):
        forward[learning.VALUE] = footprint.forward_flops(
            cfg, tokens, keys, logit_tokens=0
        )
    learn = [
        passes.update(
            setting,
            "policy",
            learner,
            forward=forward.get(name, sum(forward.values())),
            updates=updates,
            beside=step,
            item=name,
            unread=learning.unread(name),
        )
        for name in learner.apart or (train_state.ALL,)
    ]
    between = {**step, **state_sizes(learn[0])}
    return [
        *_reads_frozen(setting, held),
        *passes.quantize(setting),
        dataclasses.replace(passes.start(setting, learner), beside=held),
        *drawing.merge(setting, drawn, between),
        *drawing.generate(setting, drawn, between),
        *roll_out(setting, learner.model_shapes, frozen, between),
        *learn,
    ]


def _reads_frozen(setting: Setting, held: passes.Bytes) -> Iterator[Program]:
    """Yield the reading of reference and preference model, where these are two models.

    Two of one model are less than what training begins with.
    """
    if setting.job.is_model_of(roles.PREFERENCE):
        return
    rewarder, masters = setting.of(roles.PREFERENCE), 0
    if setting.job.lora is None:
        masters = sharding.device_bytes(sizes.trained_shapes(rewarder, "preference"))
        own = llama.param_specs(setting.cfg)
        masters += sizes.model_bytes(setting, own, frozen=False)
    yield Program("read the models", {**held, "parameters": masters})


def roll_out(
    setting: Setting,
    trained: Mapping[str, Shapes],
    frozen: Mapping[str, Shapes],
    held: passes.Bytes,
) -> Iterator[Program]:
    """Yield what reads the replies of a step, one model after the other.

    Args:
      setting: of the plan.
      trained: shapes of what is trained: "policy", and "value" if there is one.
      frozen: shapes of "reference" and "rewards".
      held: what is on the device meanwhile, all four and models of other runs too,
        but for those that are parked.
    """
    job, section = setting.job, setting.job.config.policy
    parks = frozen_files.parks(job, on_cpu=setting.chip.platform == "cpu")

    def beside(name: str) -> passes.Bytes:
        if name not in frozen or not parks:
            return held
        return {**held, "frozen": sharding.device_bytes(frozen[name])}

    replies, dev = counts.policy_replies(job.config)
    batch = sizes.update_batch(job, "policy")
    parts = reply_rows.rows_of_update(section) // reply_rows.rows_at_once(job)
    rows = tuple(
        jax.ShapeDtypeStruct(
            (batch[name].shape[0] // parts, *batch[name].shape[1:]), batch[name].dtype
        )
        for name in reply_rows.READ
    )
    states = rows[reply_rows.READ.index("states")]
    models = {learning.POLICY: trained[learning.POLICY], **frozen}
    if learning.VALUE in trained:
        models["values"] = trained[learning.VALUE]
    for name, program in reply_reading.READINGS.items():
        if name not in models:
            continue
        yield passes.read(
            setting,
            name,
            reply_reading.rows_program(job, program),
            (models[name],),
            rows,
            held=beside(name),
            own="frozen" if name in frozen else "parameters",
            num_texts=replies + dev * (name != "values"),
            logit_length=states.shape[1] * (name != "values"),
            at_once=reply_rows.rows_at_once(job),
            reach=job.longest_text("policy"),
        )
    rewarder = setting.of(roles.PREFERENCE)
    length = acting.reward_length(job, rewarder.job)
    yield passes.read(
        rewarder,
        "rewards",
        rewards.reward_program(rewarder.job),
        (frozen["rewards"],),
        passes.row_shapes(rewarder, length, max(section.rollouts, section.dev_prompts)),
        held=beside("rewards"),
        num_texts=(replies + dev) * (1 + len(section.rewards)),
    )


# Those of stages that train on texts are `train`'s, and these of some of them more.
PROGRAMS: dict[str, Callable[[Setting], list[Program]]] = {
    "simulate": simulate,
    "preference": preference,
    "direct": direct,
    "policy": policy,
    "evaluate": evaluation.programs,
}


def of_stage(setting: Setting, name: str) -> list[Program]:
    """Return the programs of a stage, in the order in which they run."""
    if name in PROGRAMS:
        return PROGRAMS[name](setting)
    if stages.STAGES[name].supervised:
        return train(setting, name)
    return [Program("on the host", {})]
