"""The compiled programs of evaluation: drawing, divergence, judging, regression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlcd_jax import sharding
from rlcd_jax.datasets import closed_questions
from rlcd_jax.job import roles
from rlcd_jax.judging import judges
from rlcd_jax.models import llama
from rlcd_jax.planning import drawing, passes, questions, sizes
from rlcd_jax.preference import best_of
from rlcd_jax.scoring import (
    divergence,
    likelihoods,
    packed_texts,
    regression,
    rewards,
)
from rlcd_jax.stages import evaluate_policy

Program = passes.Program
Setting = sizes.Setting


def programs(setting: Setting) -> list[Program]:
    """Return the programs of evaluation: drawing, divergence, judging.

    Held-out prompts are taken to be as long as `pairs.prompt_tokens`.
    """
    config, section = setting.job.config, setting.job.config.evaluate
    specs = llama.param_specs(setting.cfg)
    model = sizes.model_shapes(setting, specs, frozen=True)
    # With adapters all systems share the base, and nobody needs a copy of them.
    shared = setting.job.lora is not None
    policy = sizes.read_shapes(setting, "policy") if shared else model
    copy = sharding.device_bytes(model)
    master = sizes.model_bytes(setting, specs, frozen=False) * (not shared)
    own = sizes.read_bytes(setting, "policy") if shared else master
    best = best_of.NAME in section.systems
    systems = len(section.systems) + len(section.checkpoints) - best  # with weights
    replies = setting.test_prompts * section.samples_per_prompt
    drawn = drawing.plan_drawing(
        setting,
        num_replies=(systems + best * section.best_of) * replies,
        prompt_tokens=config.pairs.prompt_tokens,
        reply_tokens=section.reply_tokens,
        features=drawing.request_features(section, forbid=False),
        most=evaluate_policy.most_requests(section, replies),
    )
    # The last system is let go before the next is read.
    held = {"parameters": master + own * (systems > 1), "frozen": copy}
    held["other"] = drawn.memory.tables
    out = [*passes.quantize(setting), *drawing.merge(setting, drawn, held)]
    out += drawing.generate(setting, drawn, held)
    if best:
        alone = {**held, "parameters": master}
        out += _best_of(setting, alone, section.best_of * replies)
    if systems > 1:
        # Beside what the engine has of the last.
        out.insert(0, Program("read a system", {**held, **drawn.held}))
        copies = copy if shared else 2 * copy
        both = {"parameters": master + own, "frozen": copies, **drawn.held}
        out.append(_divergence(setting, (policy, model), both, systems - 1))
    if section.regression:
        one = {"parameters": master + own * (systems > 1)}
        out += _regression(setting, one, copy, systems)
    chosen, _ = evaluate_policy.usable_judges(setting.job)
    if any(judges.JUDGES[name].reads == judges.LETTERS for name in chosen):
        task, orders = setting.job.task, 1 + section.both_orders
        asked = list(judges.questions(task, section.questions).values())
        judge = setting.of(roles.JUDGE)
        read, kept = sizes.model_bytes, llama.param_specs(judge.cfg)
        if not setting.job.is_model_of(roles.JUDGE):  # it comes in the base's place
            master = read(judge, kept, frozen=False) * (not shared)
            copy = read(judge, kept, frozen=True) + sizes.base_bytes(setting)
        judged = questions.ask(
            judge,
            "judge",
            {
                "parameters": master,
                "frozen": copy + questions.shared_bytes(judge, asked),
            },
            num_texts=len(asked)
            * (orders * replies * (systems + best) * (systems + best - 1) // 2),
            length=questions.longest(judge, asked, section.reply_tokens),
        )
        out.append(judged)
    return out


def _divergence(
    setting: Setting, models: tuple[Any, Any], held: passes.Bytes, systems: int
) -> Program:
    """Return the reading of how far systems went from the base model.

    Args:
      setting: of the plan.
      models: shapes of a system and of the base model.
      held: what is on the device meanwhile.
      systems: that are compared.
    """
    job, section = setting.job, setting.job.config.evaluate
    replies = setting.test_prompts * section.samples_per_prompt
    text = job.config.pairs.prompt_tokens + section.reply_tokens
    longest = packed_texts.made_for(text)
    rows = passes.row_shapes(setting, longest, replies, states=True)
    return passes.read(
        setting,
        "divergence",
        divergence.divergence_program(job),
        models,
        rows,
        held=held,
        num_texts=systems * replies,
        logit_length=rows[0].shape[1],
    )


def _regression(
    setting: Setting, held: passes.Bytes, copy: int, systems: int
) -> Iterator[Program]:
    """Yield the reading of closed questions and of human texts by every system.

    Args:
      setting: of the plan.
      held: what is on the device meanwhile, without the frozen model.
      copy: bytes of that.
      systems: that read.
    """
    most = setting.job.config.evaluate.regression
    choices = sum(
        len(question.choices)
        for own in closed_questions.load(most).values()
        for question in own
    )
    for name, num, length in (
        ("closed questions", choices, regression.CHOICE_TOKENS),
        ("human texts", most, regression.TEXT_TOKENS),
    ):
        longest = packed_texts.made_for(length)
        texts = passes.row_shapes(setting, longest, num, states=True)
        yield passes.read(
            setting,
            name,
            likelihoods.ids_program(setting.job),
            (sizes.model_shapes(setting, llama.param_specs(setting.cfg), frozen=True),),
            texts,
            held=held | {"frozen": copy},
            num_texts=systems * num,
            logit_length=texts[0].shape[1],
        )


def _best_of(setting: Setting, held: passes.Bytes, texts: int) -> Iterator[Program]:
    """Yield the reading and the scoring of the preference model that ranks replies.

    Args:
      setting: of the plan.
      held: what is on the device meanwhile; the engine has let go of its own.
      texts: that are ranked.
    """
    own = setting.job.is_model_of(roles.PREFERENCE)
    setting = setting.of(roles.PREFERENCE)
    whole = sizes.trained_shapes(setting, "preference")
    kept = sizes.read_bytes(setting, "preference")
    kept += 0 if own else sizes.base_bytes(setting)
    master = sharding.device_bytes(whole) * (setting.job.lora is None)
    frozen = held["frozen"] + kept
    yield Program(
        "read a scorer",
        {**held, "parameters": held["parameters"] + master, "frozen": frozen},
    )
    yield passes.read(
        setting,
        "best of n",
        rewards.reward_program(setting.job),
        (sizes.read_shapes(setting, "preference"),),
        passes.row_shapes(setting, setting.job.config.preference.lengths[-1], texts),
        held={**held, "frozen": frozen},
        num_texts=texts,
    )
