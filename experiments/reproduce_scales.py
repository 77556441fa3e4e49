"""How large a reproduction is: models, sizes, grids, and the rates of its estimates."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import common
from rlcd_jax import chat_api
from rlcd_jax.weights import embedded


@dataclasses.dataclass(frozen=True)
class Scale:
    """One value of ``--scale``.

    Attributes:
      name: of the scale.
      model: spec of the model that is aligned; "" where the user must give one.
      generator: spec of the model that makes and labels pairs; "" where the user must
        give one.
      shapes: presets of model and generator, for messages.
      size: of the configs.
      paper: the size whose figures stand beside ours.
      kl: coefficients of the PPO grid.
      steps: PPO steps of the grid.
      human_pairs: human pairs to train a held-out preference model on, 0: all.
      fields: dotted config fields that the scale sets.
      generate_rate: tokens a second when replies are drawn.
      train_rate: tokens a second through forward and backward pass of one model.
      hardware: what the rates are of, and where they are from.
    """

    name: str
    model: str
    generator: str
    shapes: tuple[str, str]
    size: str
    paper: str
    kl: tuple[float, ...]
    steps: tuple[int, ...]
    human_pairs: int
    fields: Mapping[str, Any]
    generate_rate: float
    train_rate: float
    hardware: str


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the command line asks for."""

    scale: Scale
    root: pathlib.Path
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    methods: tuple[str, ...]  # of the comparison with the base model; (): all
    model: str
    generator: str
    kl: tuple[float, ...]
    steps: tuple[int, ...]
    fields: Mapping[str, Any]
    hh_dir: str
    shots: str  # the text, not the file; or human:N
    studies: tuple[pathlib.Path, ...]
    api: chat_api.ApiSettings | None
    api_key: str | None = dataclasses.field(repr=False)
    api_missing: str  # why there is no API judge
    perplexity_model: str
    trials: int
    dry: bool = False  # list nodes even if their models and data are not there


PAPER_KL = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)  # Appendix E
PAPER_STEPS = (20, 40, 60, 80)  # Appendix E; 20 alone for outlines
_POD = "eight accelerators; a guess: 2,000 and 8,000 tokens a second on each"

SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            model="random:tiny",
            generator="random:tiny",
            shapes=("tiny", "tiny"),
            size="smoke",
            paper="7B",
            kl=(0.02,),
            steps=(1,),
            human_pairs=0,
            fields={
                "model.dtype": "float32",
                "preference.learning_rate": 1e-3,
                "policy.learning_rate": 1e-2,  # one step must be seen
                "policy.terminal_mode": "none",
            },
            generate_rate=1_000.0,
            train_rate=2_000.0,
            hardware="two CPU cores; a guess, compilation outweighs it",
        ),
        Scale(
            name="smollm2-135m",
            model="smollm2-135m",
            generator="smollm2-135m",
            shapes=("smollm2-135m", "smollm2-135m"),
            size="full",
            paper="7B",
            kl=(0.01, 0.02, 0.04),
            steps=(20, 40),
            human_pairs=4_000,
            # Few replies of a 135M model end within the limit of any task.
            fields={"pairs.unfinished": "cut_sentence"},
            generate_rate=300.0,
            train_rate=250.0,
            hardware="two CPU cores with bfloat16 products, measured order of size",
        ),
        Scale(
            name="llama-7b",
            model="",
            generator="",
            shapes=("llama-7b", "llama-7b"),
            size="paper",
            paper="7B",
            kl=PAPER_KL,
            steps=PAPER_STEPS,
            human_pairs=0,
            fields={"prompts.source": "hh_rlhf"},
            generate_rate=16_000.0,
            train_rate=64_000.0,
            hardware=_POD,
        ),
        Scale(
            name="llama-30b",
            model="",
            generator="",
            shapes=("llama-7b", "llama-30b"),
            size="paper",
            paper="30B",
            kl=PAPER_KL,
            steps=PAPER_STEPS,
            human_pairs=0,
            fields={"prompts.source": "hh_rlhf"},
            generate_rate=16_000.0,
            train_rate=64_000.0,
            hardware=_POD + "; the 30B model's share is slower",
        ),
    )
}


def get_scale(name: str, size: str = "") -> Scale:
    """Return a scale by its name, with another size of its configs unless ""."""
    if name not in SCALES:
        raise ValueError(f"scale is {name!r}; accepted: {', '.join(SCALES)}")
    if size not in ("", *common.SIZES):
        raise ValueError(f"--size {size!r}; accepted: {', '.join(common.SIZES)}")
    return dataclasses.replace(SCALES[name], size=size or SCALES[name].size)


def make_config(
    scale: Scale, method: str, task: str, seed: int, fields: Mapping[str, Any]
) -> ConfigDict:
    """Return the config of a method at a scale.

    Args:
      scale: the scale; its model and generator are set.
      method: name of a config file.
      task: name of the task.
      seed: root seed of the run.
      fields: dotted fields of the user, which win over the scale's.
    """
    module = importlib.import_module(f"configs.{method}")
    model = scale.model or scale.shapes[0]
    config = module.get_config(f"task={task},model={model},size={scale.size}")
    own = dict(scale.fields)
    if task not in ("harmless", "helpful"):
        own.pop("prompts.source", None)  # no hh-rlhf subset has its prompts
    own |= {"seed": seed, **fields}
    if not config.model.cache_dir:
        own.setdefault("model.cache_dir", str(embedded.default_cache_dir(os.environ)))
    known = config.to_dict()
    for name in own:
        section, _, field = name.rpartition(".")
        if field not in (known.get(section, {}) if section else known):
            raise ValueError(f"--set {name}: no such field of a config")
    with config.unlocked():
        config.update_from_flattened_dict(own)
    return config


def parse_fields(entries: Sequence[str]) -> dict[str, Any]:
    """Return the fields of ``--set name=value``; a value is Python's, else a text."""
    fields = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not (name and equals):
            raise ValueError(f"--set {entry!r}; accepted: section.field=value")
        try:
            fields[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            fields[name] = text
    return fields
