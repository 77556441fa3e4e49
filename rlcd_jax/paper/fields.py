"""Every field of the config of the tables: what each accepts, as those of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import dotted
from rlcd_jax.checks import fields, kinds
from rlcd_jax.models import presets
from rlcd_jax.paper import published

RUN = "run."  # section with the fields of every run; one without a value is not set
_SPEC = kinds.Field(kinds.TEXT, "a model spec", "hf:DIR", empty=True)
_SHAPE = kinds.Field(kinds.CHOICE, "", "llama-7b", choices=tuple(presets.PRESETS))
_NAMES = kinds.Field(kinds.TEXTS, "", (), wanted="a name", pattern=".+", empty=True)
_RATE = kinds.Field(kinds.NUMBER, "tokens a second", 16_000.0, low=0, open_low=True)
_TEXT = kinds.Field(kinds.TEXT, "", "gpt-4", empty=True)
_FLAG = kinds.Field(kinds.FLAG, "", True)
_STEPS = kinds.Field(kinds.COUNTS, "PPO steps", (20, 40), low=1, high=kinds.MOST)


def _count(example: int, low: int, what: str, high: int = kinds.MOST) -> kinds.Field:
    return kinds.Field(kinds.COUNT, what, example, low=low, high=high)


def _of_run(name: str, **changed: Any) -> kinds.Field:
    """Return what a field of a run accepts, of a field that sets it."""
    return dataclasses.replace(fields.FIELDS[name], **changed)


FIELDS: Mapping[str, kinds.Field] = {
    "table": kinds.Field(kinds.TEXT, "name of a table", "3", argument="table"),
    "scale": kinds.Field(kinds.TEXT, "name of a scale", "tiny", argument="scale"),
    "tasks": dataclasses.replace(
        _NAMES,
        example=("harmless", "outline"),
        wanted="a task's name or file",
        empty=False,
    ),
    "methods": dataclasses.replace(_NAMES, example=("rlcd",), wanted="a method's name"),
    "quirks": dataclasses.replace(
        _NAMES,
        example=("policy.kl_estimator",),
        wanted="a dotted field of a run",
        empty=False,
    ),
    "seeds": kinds.Field(kinds.COUNTS, "", (1, 2), low=0, high=2**32 - 1),
    "size": _of_run("size", argument=""),
    "published": kinds.Field(kinds.CHOICE, "", "7B", choices=published.GENERATORS),
    "model": _SPEC,
    "generator": _SPEC,
    "shapes.model": _SHAPE,
    "shapes.generator": _SHAPE,
    "grid.kl_coef": kinds.Field(kinds.NUMBERS, "reward a nat", (0.001, 0.002), low=0),
    "grid.steps": _STEPS,
    "grid.outline_steps": dataclasses.replace(_STEPS, example=(20,), empty=True),
    "strength.affixes": _of_run("pairs.strength"),
    "strength.alpha": kinds.Field(
        kinds.NUMBERS, "contrast strength", (1.0, 2.0), low=0.5, open_low=True
    ),
    "hh_rlhf.dir": _of_run("prompts.hh_dir"),
    "hh_rlhf.prompts": _FLAG,
    "hh_rlhf.dev": _of_run("prompts.hh_dev_split"),
    "hh_rlhf.test": _of_run("prompts.hh_test_split"),
    "people.judge_pairs": _of_run("preference.data_limit"),
    "people.judge_seed": _of_run("seed"),
    "people.compared_pairs": _count(2000, 2, "human pairs"),
    "people.share": _of_run("preference.human_share", example=0.2, open_low=True),
    **{n: f for n, f in fields.FIELDS.items() if n.startswith("judge.")},
    "shots": dataclasses.replace(_TEXT, example="human:6", wanted="a file, or human:N"),
    "studies": dataclasses.replace(_NAMES, example=("study",), wanted="a folder"),
    "perplexity_model": _SPEC,
    "trials": _count(3_000_000, 2, "draws a shift"),
    "rates.generate": _RATE,
    "rates.train": _RATE,
    "rates.hardware": _TEXT,
    "rates.price": kinds.Field(kinds.NUMBER, "of an hour", 28.0, low=0),
}


def problems(config: ConfigDict) -> list[str]:
    """Return a line for each field whose value is not accepted: of tables and runs."""
    values = dotted.flatten(config.to_dict())
    of_runs = {RUN + name: field for name, field in fields.FIELDS.items()}
    of_runs = {name: field for name, field in of_runs.items() if name in values}
    unset = {name for name in of_runs if values[name] is None}
    return kinds.problems(
        {name: one for name, one in (FIELDS | of_runs).items() if name not in unset},
        {name: one for name, one in values.items() if name not in unset},
        "see --help",
    )
