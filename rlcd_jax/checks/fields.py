"""Every field of a config: its type, what it accepts, and its unit; the one table."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

from rlcd_jax import records, retention, stages, trackers
from rlcd_jax.checks import kinds
from rlcd_jax.datasets import comparisons
from rlcd_jax.decode import layout, requests
from rlcd_jax.job import curriculum, kernels, nonfinite, packed_batches, roles
from rlcd_jax.judging import evaluation_table, judges
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.models import llama, lora, quantized
from rlcd_jax.pairs import grid, reply_cleanup, scoring_prompt, shortening
from rlcd_jax.ppo import choosing, credit, kl_penalty, rollout, weighted_rewards
from rlcd_jax.preference import best_of
from rlcd_jax.tasks import fields as task_fields
from rlcd_jax.text import encoding
from rlcd_jax.training import masked, optimizers, preferences

HH_SPLIT = r"(train|test)(\[[^\[\]]*\])?"


def _flag(example: bool, what: str = "") -> kinds.Field:
    return kinds.Field(kinds.FLAG, what, example)


def _count(
    example: int, low: int, what: str, high: int = kinds.MOST, **more: Any
) -> kinds.Field:
    return kinds.Field(kinds.COUNT, what, example, low=low, high=high, **more)


def _number(example: float, low: float, what: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.NUMBER, what, example, low=low, **more)


def _above(example: float, low: float, what: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.NUMBER, what, example, low=low, open_low=True, **more)


def _choice(*choices: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.CHOICE, "", choices[0], choices=choices, **more)


def _choices(example: tuple[str, ...], *choices: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.CHOICES, "", example, choices=choices, **more)


def _text(example: str, what: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.TEXT, what, example, **more)


def _lengths(example: tuple[int, ...], what: str, **more: Any) -> kinds.Field:
    return kinds.Field(kinds.LENGTHS, what, example, low=1, high=kinds.MOST, **more)


def _split(example: str, **more: Any) -> kinds.Field:
    wanted = "train, test, or a slice of one such as test[:1000]"
    return kinds.Field(kinds.TEXT, "", example, pattern=HH_SPLIT, wanted=wanted, **more)


def _curriculum() -> kinds.Field:
    names = (*grid.METHODS, grid.HUMAN)
    return kinds.Field(
        kinds.TEXTS,
        "in place of an order",
        ("rlaif=1:0", "rlcd=0:1"),
        empty=True,
        pattern=rf"({'|'.join(names)})={curriculum.WEIGHT}:{curriculum.WEIGHT}",
        wanted=f"'NAME=START:END' with {', '.join(names)} and two weights from 0 on",
    )


def _rate(example: float) -> kinds.Field:
    return _above(example, 0, "highest rate", high=1)


def _temperature() -> kinds.Field:
    return _number(1.0, 0.001, "", high=1000)


def _draws(what: str) -> kinds.Field:
    return _count(1, 1, what, high=10_000)


# A word of 32 bits: the generators of JAX drop what is above, and two seeds agree.
_SEED = kinds.Field(kinds.COUNT, "", 42, low=0, high=2**32 - 1)
_RUN = {
    "name": _text("rlcd", "name of the method", argument="config file"),
    "preset": _choice("corrected", "paper", "released", argument="preset"),
    "size": _choice("paper", "long", "full", "quick", "smoke", argument="size"),
    "seed": _SEED,
    "task": _text("cheerful", "a task's name or file", path=True, argument="task"),
    "task_format": _choice("", "dialogue", "chat"),
    "official_wording": _text("", "folder of a checkout", empty=True, path=True),
    "stages": _choices(("simulate", "preference"), *stages.STAGES, ordered=True),
    "keep_moments": _flag(False),
    "trackers": _choices(("tensorboard",), *trackers.TRACKERS, empty=True),
    "stall_minutes": _number(30.0, 0, "minutes; 0: never", high=1e5),
    "keep_checkpoints": _count(2, 2, "steps", high=1000),
}
_MODEL = {
    "spec": _text("smollm2-135m", "a model spec", argument="model"),
    **{role: _text("hf:DIR", "a model spec", empty=True) for role in roles.ROLES},
    "cache_dir": _text("", "a folder", empty=True, path=True),
    "dtype": _choice(*llama.DTYPES),
    "remat": _choice(*llama.REMAT),
    "unroll": _flag(False),
    "results": _choice(kernels.AUTO, *llama.DTYPES),
    "attention": _choice(kernels.AUTO, *llama.ATTENTION),
    "attention_block": _count(
        256,
        kernels.BEST_BLOCK,
        "tokens; 0: texts are one block; -1: the backend's own",
    ),
    "chunk_tokens": _count(2048, 1, "tokens of a device"),
}
_LORA = {
    "rank": _count(8, 0, "rows of an adapter; 0: none are trained", high=65_536),
    "alpha": _above(16.0, 0, "alpha / rank multiplies an adapter's product"),
    "base": _choice(*quantized.FORMS),
    "targets": _choices(lora.TARGETS, *lora.TARGETS),
}
_MESH = {
    "slices": _count(1, 1, "groups of devices"),
    "data": _count(-1, 1, "replicas; -1: the devices that are left", also=(-1,)),
    "fsdp": _count(1, 1, "ways"),
    "tensor": _count(1, 1, "ways"),
}
_PROMPTS = {
    "source": _text(
        "package", "package, hh_rlhf, or a file or folder of prompts", path=True
    ),
    "hh_dir": _text("", "a folder", empty=True, path=True),
    "hh_train_split": _split("train"),
    "hh_test_split": _split("test"),
    "hh_dev_split": _split("test[:1000]", empty=True),
    "hh_agreement_split": _split("train[:5%]", empty=True),
    "as_written": _flag(False),
    "hh_agreement_apart": _flag(True),
    "data_dir": _text("", "a folder", empty=True, path=True),
    "limit": _count(0, 0, "prompts; 0: all"),
}
_PAIRS = {
    "sampling": _choice(*typing.get_args(records.Sampling)),
    "labels": _choices(("construction",), *typing.get_args(records.Labels)),
    "mix": kinds.Field(
        kinds.TEXTS,
        "in place of sampling and labels",
        ("rlcd=1", "rescore=0.5"),
        empty=True,
        pattern=rf"({'|'.join(grid.METHODS)})=(1|1\.0|0?\.\d*[1-9]\d*)",
        wanted=f"'NAME=SHARE' with {', '.join(grid.METHODS)} and a share above 0, "
        "up to 1",
    ),
    "samples_per_prompt": _draws("draws of a prompt"),
    "samples": _count(2, 2, "replies a draw", high=64),
    "temperature": _temperature(),
    "top_k": _count(0, 0, "tokens; 0: all"),
    "top_p": _above(1.0, 0, "probability", high=1),
    # At 1/2 both sides are drawn from one distribution, below it they change places.
    "alpha": _above(1.0, 0.5, "1: plain contrast prompts", high=1000),
    "strength": _choices(("middle",), *typing.get_args(task_fields.Strength)),
    "prompt_tokens": _count(384, 1, "tokens"),
    "reply_tokens": _count(300, 1, "tokens"),
    "part_prompts": _count(4096, 1, "prompts"),
    "max_tries": _count(5, 1, "attempts a side", high=1000),
    "both_orders": _flag(True),
    "hard_labels": _flag(False),
    "drop_disagreeing": _flag(False),
    "min_margin": _number(0.0, 0, "|2 p - 1|", high=1, open_high=True),
    "cleanup": _choice(*typing.get_args(task_fields.CleanupMode)),
    "forbidden": _choice(*requests.FORBIDDING),
    "letters": _choice(*scoring_prompt.LETTERS),
    "instructions": _count(1, 1, "questions a pair", high=1000),
    "shots": _text(
        "task", "task, human:N, or a file of solved examples", empty=True, path=True
    ),
    "votes": _count(0, 0, "answers a question; 0: letters are read", high=10_000),
    "vote_tokens": _count(64, 1, "tokens"),
    "vote_temperature": _temperature(),
    "csv_missing": _flag(False),
    "unfinished": _choice("", *typing.get_args(task_fields.Unfinished)),
}
_ENGINE = {
    "slots_per_device": _count(64, 1, "replies at once", high=65_536),
    "weights": _choice(*layout.WEIGHTS),
    "steps_per_dispatch": _count(8, 1, "tokens a slot", high=65_536),
    "prompt_buckets": _lengths((16, 64, 256), "tokens"),
    "live_buckets": _lengths((), "tokens", empty=True),
    "tail_tokens": _count(128, 0, "tokens; 0: never"),
    "memory_gib": _number(0.0, 0, "GiB; 0: no limit"),
    "per_process": _flag(True),
}
_SUPERVISED = {
    "epochs": _count(1, 1, "passes over the rows"),
    "batch_size": _count(16, 1, "rows an update"),
    "micro_batch": _count(0, 0, "rows; 0: the whole batch"),
    "learning_rate": _rate(3e-6),
    "schedule": _choice(*optimizers.SCHEDULES),
    "warmup_fraction": _number(0.03, 0, "share of the updates", high=1, open_high=True),
    "first_step_idle": _flag(False),
    "weight_decay": _number(0.0, 0, "", high=1),
    "eps": _above(1e-8, 0, "", high=1),
    "max_grad_norm": _above(1.0, 0, ""),
    "lengths": _lengths((512,), "tokens"),
    "too_long": _choice(*shortening.RULES),
    "eval_every": _count(50, 1, "updates"),
    "checkpoint_every": _count(500, 1, "updates"),
    "nonfinite": _choice(*nonfinite.RULES),
}
_PREFERENCE = _SUPERVISED | {
    "data": _text(
        "pairs",
        "",
        pattern=rf"pairs|hh_rlhf|({'|'.join(comparisons.FORMATS)}):.+",
        wanted="pairs, hh_rlhf, or the format and path of a file, as in trl:FILE "
        f"({', '.join(comparisons.FORMATS)})",
    ),
    "loss": _choice(*preferences.REWARDED),
    "margin": _above(1.0, 0, "reward a unit of grade"),
    "tie_width": _above(0.5, 0, "reward"),
    "tie_band": _number(0.1, 0, "around a label of 1/2", high=0.5, open_high=True),
    "data_limit": _count(0, 0, "pairs that are not the run's own; 0: all"),
    "human_share": _number(0.0, 0, "share of the pairs", high=1, open_high=True),
    "held_out": _count(500, 0, "pairs"),
    "human_pairs": _count(0, 0, "pairs"),
    "order": _choice(*packed_batches.ORDERS),
    "curriculum": _curriculum(),
    "keep_best": _choice("", *retention.METRICS["preference"]),
}
_DISTILL = _SUPERVISED | {
    "border": _choice(*encoding.BORDERS),
    "per_sequence": _flag(False),
}
_DIRECT = _SUPERVISED | {
    "loss": _choice(*preferences.DIRECT),
    "beta": _above(0.1, 0, "rewards a nat"),
    "per_token": _flag(False),
    "order": _choice(*packed_batches.ORDERS),
    "curriculum": _curriculum(),
    "keep_best": _choice("", *retention.METRICS["direct"]),
}
_POLICY = {
    "steps": _count(40, 1, "PPO steps"),
    "rollouts": _count(512, 1, "replies a step", high=1_000_000),
    "samples_per_prompt": _draws("replies of a step to a prompt"),
    "update_batch": _count(256, 1, "replies an update"),
    "lone_rows": _count(0, 0, "replies; 0: the update batch"),
    "micro_batch": _count(0, 0, "replies; 0: the update batch"),
    "epochs": _count(2, 1, "passes over a step's replies"),
    "learning_rate": _rate(1e-5),
    "warmup_steps": _count(5, 0, "PPO steps"),
    "first_step_idle": _flag(False),
    "early_checkpoints": _flag(False),
    "weight_decay": _number(0.0, 0, "", high=1),
    "eps": _above(1e-5, 0, "", high=1),
    "max_grad_norm": _above(1.0, 0, ""),
    "joint_clip": _flag(False),
    "advantages": _choice(*credit.ADVANTAGES),
    "group_deviation": _flag(True),
    "per_sequence": _flag(False),
    "kl_coef": _number(0.004, 0, "reward a nat"),
    "kl_in": _choice(*kl_penalty.PLACES),
    "kl_estimator": _choice(*kl_penalty.KL_ESTIMATORS),
    "kl_target": _number(0.0, 0, "nats a reply; 0: a fixed coefficient"),
    "kl_horizon": _count(10000, 1, "replies"),
    "gamma": _number(1.0, 0, "discount a token", high=1),
    "lam": _number(1.0, 0, "lambda of GAE", high=1),
    "clip": _above(0.2, 0, "of the ratio", high=1, open_high=True),
    "value_clip": _above(0.2, 0, "of the value"),
    "value_coef": _number(0.1, 0, "weight of the value loss"),
    "whiten_rewards": _flag(False),
    "whiten_advantages": _flag(True),
    "whiten_rows": _count(0, 0, "replies; 0: all of a step"),
    "statistics": _choice(*masked.STATISTICS),
    "normalise_reward": _flag(True),
    "rewards": kinds.Field(
        kinds.TEXTS,
        "",
        ("harmless=runs/harmless:0.5",),
        empty=True,
        pattern=weighted_rewards.PATTERN,
        wanted=weighted_rewards.WANTED,
        path=True,
    ),
    "reward_weight": _above(1.0, 0, "of the run's own preference model"),
    "terminal_mode": _choice(*rollout.TERMINAL_MODES),
    "finished": _choice(*rollout.FINISHED),
    "past_mark": _flag(False),
    "terminal_value": _number(-1.0, -math.inf, "reward"),
    "prompt_tokens": _count(192, 1, "tokens"),
    "reply_tokens": _count(300, 1, "tokens"),
    "temperature": _temperature(),
    "ratio_tolerance": _above(0.05, 0, "largest |ratio - 1|"),
    "engine_tolerance": _above(0.1, 0, "mean nats a token"),
    "checkpoint_every": _count(20, 1, "PPO steps"),
    "keep_best": _choice("", *retention.METRICS["policy"]),
    "nonfinite": _choice(*nonfinite.RULES),
    "dev_prompts": _count(64, 0, "prompts; 0: none"),
    "choose": _choice(*choosing.RULES),
    "kl_limit": _number(0.0, 0, "nats a reply; 0: no limit"),
}
# The base model, its best of n, and what the stages before evaluation have trained.
_SYSTEMS = (evaluation_table.BASE, *stages.POLICIES, best_of.NAME)
_EVALUATE = {
    "systems": _choices(("base", "policy"), *_SYSTEMS, empty=True),
    "checkpoints": kinds.Field(
        kinds.TEXTS,
        "",
        ("rlcd=runs/rlcd/policy/checkpoints",),
        empty=True,
        pattern=r"[^=|\s][^=|]*=\S.*",  # tables have the name
        wanted="'name=folder'",
        path=True,
    ),
    "best_of": _count(16, 2, "replies of which one is taken", high=10_000),
    "prompts": _count(0, 0, "prompts; 0: all"),
    "samples_per_prompt": _draws("replies a prompt"),
    "temperature": _temperature(),
    "top_p": _above(0.9, 0, "probability", high=1),
    "reply_tokens": _count(300, 1, "tokens"),
    "cleanup": _choice(*reply_cleanup.FINAL),
    "both_orders": _flag(True),
    "judges": _choices(("log_odds",), *judges.JUDGES, empty=True),
    "questions": _choice(*judges.QUESTIONS),
    "preference_judge": _text("", "workdir of another run", empty=True, path=True),
    "regression": _count(0, 2, "questions a subject; 0: none", high=120, also=(0,)),
    "interval": _above(0.95, 0, "coverage", high=1, open_high=True),
    "resamples": _count(10000, 1, "resamples", high=1_000_000),
}
_PRICE = kinds.Field(kinds.NUMBER, "of a million tokens", 2.5, low=0, unset=True)
_JUDGE = {
    "url": _text("http://127.0.0.1:8000/v1", "of the interface", empty=True),
    "name": _text("gpt-4", "of the model", empty=True),
    "offline": _flag(True),
    "max_tokens_field": _choice(*api_settings.FIELDS),
    "price_input": _PRICE,
    "price_output": _PRICE,
    "max_cost": kinds.Field(kinds.NUMBER, "0: no limit", 20.0, low=0),
}
_SECTIONS = {
    "model": _MODEL,
    "lora": _LORA,
    "mesh": _MESH,
    "prompts": _PROMPTS,
    "pairs": _PAIRS,
    "engine": _ENGINE,
    "preference": _PREFERENCE,
    "distill": _DISTILL,
    "direct": _DIRECT,
    "policy": _POLICY,
    "evaluate": _EVALUATE,
    "judge": _JUDGE,
}
FIELDS: Mapping[str, kinds.Field] = _RUN | {
    f"{section}.{name}": field
    for section, own in _SECTIONS.items()
    for name, field in own.items()
}
