"""The compiled programs of each stage, in the order in which they run.

What is held between programs is counted too: optimizer moments during generation, the
decode engine's weights and cache during updates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rlcd_jax.job import batching, lengths, supervised
from rlcd_jax.judging import judges
from rlcd_jax.models import footprint, heads, llama
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.planning import counts, passes, sizes
from rlcd_jax.ppo import acting, learning
from rlcd_jax.stages import distill_context, evaluate_policy, train_preference

Program = passes.Program
Setting = sizes.Setting
BYTES_A_TOKEN = 4  # of English, about


def simulate(setting: Setting) -> list[Program]:
    """Return the programs of simulation: loading, generation, scoring."""
    section = setting.job.config.pairs
    specs = llama.param_specs(setting.cfg)
    room = {
        "prompt_tokens": section.prompt_tokens,
        "reply_tokens": section.reply_tokens,
    }
    engine = sizes.engine_sizes(setting, **room)
    scored = "scoring" in section.labels
    master = sizes.model_bytes(setting, specs, frozen=False)
    copy = sizes.model_bytes(setting, specs, frozen=True) if scored else 0
    programs = [
        Program("load", {"frozen": master + copy, "decode": engine.memory.weights}),
        passes.generate(
            setting,
            engine,
            {"frozen": copy},
            num_replies=2 * setting.pairs,
            **room,
        ),
    ]
    if not scored:
        return programs
    score = passes.read(
        setting,
        "score",
        {"frozen": copy, **engine.held},
        num_texts=setting.pairs * (1 + section.both_orders),
        length=question_length(
            setting, setting.job.task.scoring_instructions, section.reply_tokens
        ),
    )
    return [*programs, score]


def question_length(
    setting: Setting, questions: Sequence[str], reply_tokens: int
) -> int:
    """Return the row length of a question about two replies, at most, in tokens.

    The words around prompt and replies are taken as `BYTES_A_TOKEN`: plans have no
    tokenizer.

    Args:
      setting: of the plan.
      questions: of the task.
      reply_tokens: of each reply, at most.
    """
    words = [scoring_prompt.scoring_prompt("", "", "", one) for one in questions]
    own = max(len(text.encode()) for text in words) // BYTES_A_TOKEN
    prompt_tokens = setting.job.config.pairs.prompt_tokens
    return batching.rising_lengths(prompt_tokens + 2 * reply_tokens + own)[-1]


def preference(setting: Setting) -> list[Program]:
    """Return the programs of preference training: update and held-out rewards."""
    found, section = setting.job, setting.job.config.preference
    length = section.lengths[-1]
    updates = supervised.num_updates(section, num_pairs(setting), "preference")
    tokens = updates * 2 * section.batch_size * length
    learn = passes.update(
        setting,
        "preference",
        train_preference.make_trainer(found, updates),
        forward=footprint.forward_flops(setting.cfg, tokens, length, logit_tokens=0),
        texts=2,
    )
    specs = heads.scalar_specs(setting.cfg)
    look = passes.read(
        setting,
        "held out",
        {
            **state_sizes(learn),
            "frozen": sizes.model_bytes(setting, specs, frozen=True),
        },
        num_texts=2 * section.held_out * -(-updates // section.eval_every),
        length=length,
    )
    return [learn, look]


def num_pairs(setting: Setting) -> int:
    """Return the pairs that a preference model is trained on, if none is dropped.

    Raises:
      ValueError: all of them would be held out.
    """
    rows, section = setting.preference_pairs, setting.job.config.preference
    if rows <= section.held_out:
        raise ValueError(
            f"preference.held_out={section.held_out} takes all of the {rows} pairs "
            f"that there are at most; accepted here: below {rows}, so that some are "
            "left to train on; lower it, or make more pairs with "
            "pairs.samples_per_prompt"
        )
    return rows - section.held_out


def state_sizes(learn: Program) -> dict[str, int]:
    """Return what is held of a training's state between its updates."""
    return {name: learn.sizes[name] for name in ("parameters", "moments")}


def distill(setting: Setting) -> list[Program]:
    """Return the program of context distillation."""
    found, section = setting.job, setting.job.config.distill
    length = section.lengths[-1]
    updates = supervised.num_updates(section, setting.pairs, "distill")
    tokens = updates * section.batch_size * length
    learn = passes.update(
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
    job, section, cfg = setting.job, setting.job.config.policy, setting.cfg
    updates = section.steps * learning.updates_per_step(section)
    room = {
        "prompt_tokens": section.prompt_tokens,
        "reply_tokens": section.reply_tokens,
    }
    length = sum(room.values())
    replies, dev = counts.policy_replies(job.config)
    tokens = updates * section.update_batch * length
    logit_tokens = updates * section.update_batch * section.reply_tokens
    learn = passes.update(
        setting,
        "policy",
        learning.make_trainer(job),
        forward=footprint.forward_flops(cfg, tokens, length, logit_tokens=logit_tokens)
        + footprint.forward_flops(cfg, tokens, length, logit_tokens=0),
        texts=1,
    )
    engine = sizes.engine_sizes(setting, **room)
    models = (llama.param_specs(cfg), heads.scalar_specs(cfg))
    held = {
        "frozen": sum(
            sizes.model_bytes(setting, specs, frozen=True) for specs in models
        ),
    }
    settled = {**held, **engine.held}
    # Policy, reference, value and reward, of dev prompts all but value; logits for the
    # first two.
    roll_out = passes.read(
        setting,
        "roll out",
        {**settled, **state_sizes(learn)},
        num_texts=4 * replies + 3 * dev,
        length=acting.reward_length(section, lengths.mark_tokens(job)),
        logit_length=section.reply_tokens,
        rows=learning.rows_at_once(job),
    )
    return [
        passes.generate(
            setting,
            engine,
            {**held, **state_sizes(learn)},
            num_replies=replies + dev,
            **room,
        ),
        roll_out,
        dataclasses.replace(learn, sizes={**settled, **learn.sizes}),
    ]


def evaluate(setting: Setting) -> list[Program]:
    """Return the programs of evaluation: generation, divergence, judging.

    Held-out prompts are taken to be as long as `pairs.prompt_tokens`.
    """
    config, section = setting.job.config, setting.job.config.evaluate
    specs = llama.param_specs(setting.cfg)
    master, copy = (
        sizes.model_bytes(setting, specs, frozen=frozen) for frozen in (False, True)
    )
    room = {
        "prompt_tokens": config.pairs.prompt_tokens,
        "reply_tokens": section.reply_tokens,
    }
    engine = sizes.engine_sizes(setting, **room)
    systems = len(section.systems) + len(section.checkpoints)
    replies = setting.test_prompts * section.samples_per_prompt
    trained = min(2, systems - 1)  # the next is read before the last is let go
    held = {"frozen": (1 + trained) * master + copy}
    programs = [
        passes.generate(setting, engine, held, num_replies=systems * replies, **room)
    ]
    if trained:
        both = {"frozen": 2 * master + 2 * copy, **engine.held}
        length = batching.rising_lengths(sum(room.values()))[-1]
        programs.append(
            passes.read(
                setting,
                "divergence",
                both,
                num_texts=2 * (systems - 1) * replies,
                length=length,
                logit_length=length,
            )
        )
    chosen, _ = evaluate_policy.usable_judges(setting.job)
    if any(judges.JUDGES[name].reads == judges.LETTERS for name in chosen):
        judged = passes.read(
            setting,
            "judge",
            {"frozen": master + copy},
            num_texts=2 * replies * systems * (systems - 1) // 2,
            length=question_length(
                setting,
                list(setting.job.task.judge_questions.values()),
                section.reply_tokens,
            ),
        )
        programs.append(judged)
    return programs


PROGRAMS: dict[str, Callable[[Setting], list[Program]]] = {
    "simulate": simulate,
    "preference": preference,
    "distill": distill,
    "policy": policy,
    "evaluate": evaluate,
}
