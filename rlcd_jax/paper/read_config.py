"""Reads and checks the config of the tables, and makes the config of each run of it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import tasks
from rlcd_jax.checks import kinds, refusals
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.pairs import few_shots
from rlcd_jax.paper import fields

MakeConfig = Callable[[str, str], ConfigDict]  # of a method and its argument string


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all tables of one command share.

    Attributes:
      config: of the tables; what is not below is read there.
      root: folder of the graph and the tables.
      make_config: from a method's name and an argument string to its config.
      cache_dir: of fetched models, for runs whose config names none.
      seeds: root seeds.
      tasks: names or files.
      methods: of the comparison with the base model; (): all.
      quirks: fields that the table of this name turns to their released values.
      model: spec of the model that is aligned; "": not given.
      generator: spec of the model that makes pairs; "": not given.
      fields: dotted fields of every run's config that are set.
      shots: the text, not the file; or task, or human:N.
      studies: folders.
      api: settings of the API judge; None: there is none.
      api_key: of the judge.
      api_missing: why there is no API judge.
      dry: list nodes even if their models and data are not there.
    """

    config: ConfigDict
    root: pathlib.Path
    make_config: MakeConfig
    cache_dir: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    quirks: tuple[str, ...]
    model: str
    generator: str
    fields: Mapping[str, Any]
    shots: str
    studies: tuple[pathlib.Path, ...]
    api: api_settings.ApiSettings | None
    api_key: str | None = dataclasses.field(repr=False)
    api_missing: str
    dry: bool

    @property
    def model_name(self) -> str:
        """The aligned model's spec, or what it would be."""
        return self.model or self.config.shapes.model

    @property
    def generator_name(self) -> str:
        """The spec of the model that makes pairs, or what it would be."""
        return self.generator or self.config.shapes.generator


def read_setup(
    config: ConfigDict,
    root: str | pathlib.Path,
    *,
    make_config: MakeConfig,
    cache_dir: str,
    api_key: str | None,
    dry: bool = False,
) -> Setup:
    """Return what a config of the tables asks for.

    Args:
      config: of the tables, as `configs/paper.py` makes it.
      root: folder of the graph and the tables.
      make_config: from a method's name and an argument string to its config.
      cache_dir: of fetched models, for runs whose config names none.
      api_key: of the API judge; None: there is none.
      dry: whether nodes are only listed.

    Raises:
      ValueError: a field's value is not accepted.
    """
    refusals.refuse(fields.problems(config))
    asked = _names("tasks", config.tasks)
    api, api_missing = api_settings.read(config.judge, root, api_key)
    shapes = config.shapes
    same = config.model if shapes.model == shapes.generator else ""
    return Setup(
        config=config,
        root=pathlib.Path(root),
        make_config=make_config,
        cache_dir=cache_dir,
        seeds=tuple(config.seeds),
        tasks=asked,
        methods=_names("methods", config.methods),
        quirks=_names("quirks", config.quirks),
        model=config.model,
        generator=config.generator or same,
        fields=set_fields(config.run),
        shots=few_shots.read(config.shots, "shots"),
        studies=tuple(map(pathlib.Path, config.studies)),
        api=api,
        api_key=api_key,
        api_missing=api_missing,
        dry=dry,
    )


def run_config(
    setup: Setup, name: str, task: str, seed: int, preset: str = "corrected"
) -> ConfigDict:
    """Return the config of a run.

    Args:
      setup: of the tables.
      name: of a method's config.
      task: name or file of the task.
      seed: root seed of the run.
      preset: of the method.
    """
    whole = setup.config
    shape = whole.shapes.model  # the spec is set by what the run is for
    asked = {"task": task, "model": shape, "size": whole.size, "preset": preset}
    argument = ",".join(f"{key}={value}" for key, value in asked.items())
    config = setup.make_config(name, argument)
    own = {"seed": seed, **setup.fields}
    if whole.hh_rlhf.prompts and tasks.load_task(task).hh_config:
        own.setdefault("prompts.source", "hh_rlhf")
    if not config.model.cache_dir:
        own.setdefault("model.cache_dir", setup.cache_dir)
    config.update_from_flattened_dict(own)
    return config


def set_fields(run: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return the fields that have a value, by their dotted names."""
    given = {}
    for name, value in run.items():
        if isinstance(value, ConfigDict):
            given |= set_fields(value, f"{prefix}{name}.")
        elif value is not None:
            given[prefix + name] = value
    return given


def _names(field: str, entries: Sequence[str]) -> tuple[str, ...]:
    """Return names; the command line gives "one,two" as a single one."""
    parts = (part.strip() for entry in entries for part in entry.split(","))
    names = tuple(filter(None, parts))
    if len(set(names)) < len(names) or (entries and not names):
        accepted = kinds.accepted(fields.FIELDS[field])
        raise ValueError(f"{field}={tuple(entries)}; accepted: {accepted}")
    return names
