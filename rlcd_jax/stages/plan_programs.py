"""The compiled programs of each stage, in the order in which they run.

What is held between programs is counted too: optimizer moments during generation, the
decode engine's weights and cache during updates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from rlcd_jax import judges
from rlcd_jax.models import footprint, heads, llama
from rlcd_jax.stages import (
    distill_context,
    evaluate_policy,
    plan_passes,
    plan_sizes,
    ppo,
    supervised,
    train_preference,
)

Program = plan_passes.Program
Setting = plan_sizes.Setting
INSTRUCTION_TOKENS = 128  # of a scoring prompt beside prompt and replies, about
MARK_TOKENS = 8  # that end a text for the preference model, at most


def simulate(setting: Setting) -> list[Program]:
    """Return the programs of simulation: loading, generation, scoring."""
    section = setting.found.config.pairs
    specs = llama.param_specs(setting.cfg)
    engine = plan_sizes.engine_bytes(
        setting, section.prompt_tokens, section.reply_tokens
    )
    scored = "scoring" in section.labels
    master = plan_sizes.model_bytes(setting, specs, frozen=False)
    copy = plan_sizes.model_bytes(setting, specs, frozen=True) if scored else 0
    pairs = setting.train_prompts * section.samples_per_prompt
    programs = [
        Program("load", {"frozen": master + copy, "decode": engine["decode"]}),
        plan_passes.generate(
            setting,
            engine,
            {"frozen": copy},
            num_replies=2 * pairs,
            prompt_tokens=section.prompt_tokens,
            reply_tokens=section.reply_tokens,
        ),
    ]
    if not scored:
        return programs
    score = plan_passes.read(
        setting,
        "score",
        {"frozen": copy, "decode": engine["decode"], "cache": engine["cache"]},
        num_texts=pairs * (1 + section.both_orders),
        length=section.prompt_tokens + 2 * section.reply_tokens + INSTRUCTION_TOKENS,
    )
    return [*programs, score]


def preference(setting: Setting) -> list[Program]:
    """Return the programs of preference training: update and held-out rewards."""
    found, section = setting.found, setting.found.config.preference
    length = section.lengths[-1]
    updates = supervised.num_updates(section, num_pairs(setting), "preference")
    tokens = updates * 2 * section.batch_size * length
    learn = plan_passes.update(
        setting,
        "preference",
        train_preference.make_trainer(found, updates),
        forward=footprint.forward_flops(setting.cfg, tokens, length, logit_tokens=0),
        texts=2,
    )
    specs = heads.scalar_specs(setting.cfg)
    look = plan_passes.read(
        setting,
        "held out",
        {
            **state_sizes(learn),
            "frozen": plan_sizes.model_bytes(setting, specs, frozen=True),
        },
        num_texts=2 * section.held_out * -(-updates // section.eval_every),
        length=length,
    )
    return [learn, look]


def num_pairs(setting: Setting) -> int:
    """Return the pairs that a preference model is trained on, if none is dropped."""
    pairs, section = setting.found.config.pairs, setting.found.config.preference
    rows = setting.train_prompts * pairs.samples_per_prompt * len(pairs.labels)
    if section.data != "pairs":
        rows = section.data_limit or setting.test_prompts
    return rows - section.held_out


def state_sizes(learn: Program) -> dict[str, int]:
    """Return what is held of a training's state between its updates."""
    return {name: learn.sizes[name] for name in ("parameters", "moments")}


def distill(setting: Setting) -> list[Program]:
    """Return the program of context distillation."""
    found, section = setting.found, setting.found.config.distill
    length = section.lengths[-1]
    rows = setting.train_prompts * found.config.pairs.samples_per_prompt
    updates = supervised.num_updates(section, rows, "distill")
    tokens = updates * section.batch_size * length
    learn = plan_passes.update(
        setting,
        "distill",
        distill_context.make_trainer(found, updates),
        forward=footprint.forward_flops(
            setting.cfg, tokens, length, logit_tokens=tokens
        ),
        texts=1,
    )
    return [learn]


def policy(setting: Setting) -> list[Program]:
    """Return the programs of PPO: generation, rollout, update."""
    found, section, cfg = setting.found, setting.found.config.policy, setting.cfg
    updates = section.steps * ppo.updates_per_step(section)
    lengths = {
        "prompt_tokens": section.prompt_tokens,
        "reply_tokens": section.reply_tokens,
    }
    length, replies = sum(lengths.values()), section.steps * section.rollouts
    tokens = updates * section.update_batch * length
    logit_tokens = updates * section.update_batch * section.reply_tokens
    learn = plan_passes.update(
        setting,
        "policy",
        ppo.make_trainer(found),
        forward=footprint.forward_flops(cfg, tokens, length, logit_tokens=logit_tokens)
        + footprint.forward_flops(cfg, tokens, length, logit_tokens=0),
        texts=1,
    )
    engine = plan_sizes.engine_bytes(setting, **lengths)
    models = (llama.param_specs(cfg), heads.scalar_specs(cfg))
    held = {
        "frozen": sum(
            plan_sizes.model_bytes(setting, specs, frozen=True) for specs in models
        ),
    }
    settled = {**held, "decode": engine["decode"], "cache": engine["cache"]}
    # Policy, reference, value and reward; logits for the first two.
    roll_out = plan_passes.read(
        setting,
        "roll out",
        {**settled, **state_sizes(learn)},
        num_texts=4 * replies,
        length=-(-(length + MARK_TOKENS) // 16) * 16,
        logit_length=section.reply_tokens,
        rows=ppo.rows_at_once(found),
    )
    return [
        plan_passes.generate(
            setting,
            engine,
            {**held, **state_sizes(learn)},
            num_replies=replies,
            **lengths,
        ),
        roll_out,
        dataclasses.replace(learn, sizes={**settled, **learn.sizes}),
    ]


def evaluate(setting: Setting) -> list[Program]:
    """Return the programs of evaluation: generation, divergence, judging.

    Held-out prompts are taken to be as long as ``pairs.prompt_tokens``.
    """
    config, section = setting.found.config, setting.found.config.evaluate
    specs = llama.param_specs(setting.cfg)
    master, copy = (
        plan_sizes.model_bytes(setting, specs, frozen=frozen)
        for frozen in (False, True)
    )
    lengths = {
        "prompt_tokens": config.pairs.prompt_tokens,
        "reply_tokens": section.reply_tokens,
    }
    engine = plan_sizes.engine_bytes(setting, **lengths)
    systems = len(section.systems) + len(section.checkpoints)
    replies = setting.test_prompts * section.samples_per_prompt
    trained = min(2, systems - 1)  # the next is read before the last is let go
    held = {"frozen": (1 + trained) * master + copy}
    programs = [
        plan_passes.generate(
            setting, engine, held, num_replies=systems * replies, **lengths
        )
    ]
    if trained:
        both = {"frozen": 2 * master + 2 * copy}
        both |= {"decode": engine["decode"], "cache": engine["cache"]}
        length = sum(lengths.values())
        programs.append(
            plan_passes.read(
                setting,
                "divergence",
                both,
                num_texts=2 * (systems - 1) * replies,
                length=length,
                logit_length=length,
            )
        )
    chosen = evaluate_policy.usable_judges(setting.found)
    if any(judges.JUDGES[name].reads == judges.LETTERS for name in chosen):
        judged = plan_passes.read(
            setting,
            "judge",
            {"frozen": master + copy},
            num_texts=2 * replies * systems * (systems - 1) // 2,
            length=length_judged(setting),
        )
        programs.append(judged)
    return programs


def length_judged(setting: Setting) -> int:
    """Return the tokens of a judge's question about two replies, at most."""
    config = setting.found.config
    replies = 2 * config.evaluate.reply_tokens
    return config.pairs.prompt_tokens + replies + INSTRUCTION_TOKENS


STAGES: dict[str, Callable[[Setting], list[Program]]] = {
    "simulate": simulate,
    "preference": preference,
    "distill": distill,
    "policy": policy,
    "evaluate": evaluate,
}
