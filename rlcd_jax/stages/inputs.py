"""What a stage starts from: mesh, model, tokenizer, task and prompts, by config."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, records, sharding, tasks, tokenizer
from rlcd_jax.datasets import hh_rlhf, parts
from rlcd_jax.models import llama, presets, table
from rlcd_jax.weights import names, resolve

Params = Any
# Of two parts with one text, the first keeps it.
PARTS = ("dev", "test", "agreement", "train")
RANDOM = "random:"  # prefix of a model spec: a preset's shape with random weights


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The things that every stage needs, made once a stage."""

    config: ConfigDict
    task: tasks.Task
    mesh: jax.sharding.Mesh
    cfg: llama.LlamaConfig
    text_tokenizer: tokenizer.Tokenizer
    load_base: Callable[[], Params]  # the unaligned model: float32, training form

    @property
    def end_of_turn(self) -> str | None:
        """The text that closes an assistant turn of the chat format."""
        if self.task.format == "dialogue":
            return None
        end = self.text_tokenizer.end_of_turn
        if not self.text_tokenizer.template_closes_turns:
            said = "The chat template closes no turn with a token: replies end with %s"
            logging.log_first_n(logging.WARNING, said, 1, end)
        return end


def load_inputs(config: ConfigDict) -> Inputs:
    """Return the inputs of a stage; every mistake in the config ends here."""
    task = load_task(config)
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    cfg, text_tokenizer, read = _find_model(config)
    cfg = configured(cfg, config)
    sharding.check_heads(cfg.num_heads, cfg.num_kv_heads, mesh)
    shardings = sharding.param_shardings(llama.param_specs(cfg), mesh)

    def load_base() -> Params:
        return read(cfg, shardings)

    return Inputs(config, task, mesh, cfg, text_tokenizer, load_base)


def configured(cfg: llama.LlamaConfig, config: ConfigDict) -> llama.LlamaConfig:
    """Return a model's numbers with the config's precision, remat and kernel."""
    return dataclasses.replace(
        cfg,
        dtype=config.model.dtype,
        remat=config.model.remat,
        attention=config.model.attention,
    )


def load_task(config: ConfigDict) -> tasks.Task:
    """Return the task with the config's format, wording, lengths and clean-up."""
    task = tasks.load_task(config.task, config.official_wording or None)
    if config.task_format:
        task = tasks.with_format(task, config.task_format)
    cleanup = dataclasses.replace(
        task.cleanup,
        mode=config.pairs.cleanup,
        unfinished=config.pairs.unfinished or task.cleanup.unfinished,
    )
    return dataclasses.replace(
        task,
        cleanup=cleanup,
        prompt_tokens=config.pairs.prompt_tokens,
        reply_tokens=config.pairs.reply_tokens,
    )


def _find_model(config: ConfigDict) -> tuple[llama.LlamaConfig, Any, Callable]:
    spec = config.model.spec
    if spec.startswith(RANDOM):
        cfg = presets.get_preset(spec.removeprefix(RANDOM))
        seed = config.seed

        def draw(cfg: llama.LlamaConfig, shardings: Any) -> Params:
            start = jax.jit(
                llama.init_params, static_argnums=0, out_shardings=shardings
            )
            return start(cfg, jax.random.key(seed))

        return cfg, tokenizer.byte_tokenizer(cfg.vocab_size), draw
    found = resolve.resolve_model(spec, cache_dir(config), logging.info)
    if not found.has_weights:
        raise ValueError(
            f"model={spec!r} is a shape without weights; give hf:PATH_OR_ID or "
            f"gguf:PATH, model=smollm2-135m for the embedded real model, or "
            f"{RANDOM}{spec} for random weights"
        )

    def read(cfg: llama.LlamaConfig, shardings: Any) -> Params:
        del cfg  # the file's own numbers say the same
        return found.load_params(put=names.put_sharded(shardings))

    return found.cfg, found.load_tokenizer(), read


def cache_dir(config: ConfigDict) -> pathlib.Path:
    """Return the folder of fetched models."""
    return pathlib.Path(config.model.cache_dir or "~/.cache/rlcd_jax").expanduser()


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the data without what is in the parts before it; see ``PARTS``."""

    prompts: tuple[records.Prompt, ...]
    shared: int  # how many prompts are left out, because another part has their text


def load_prompts(
    config: ConfigDict, task: tasks.Task, part: str, *, limit: int | None = None
) -> list[records.Prompt]:
    """Return the prompts of a part of the data; no text is in two parts.

    Args:
      config: of the run.
      task: the task.
      part: "train" for simulation and PPO, "dev" for the prompts on which checkpoints
        and settings are chosen, "test" for those of the evaluation.
      limit: how many at most, 0: all; None: as many as the config says, which is
        ``prompts.limit`` for "train" and ``evaluate.prompts`` for the others.
    """
    if limit is None:
        limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    return list(load_part(config, task, part).prompts)[: limit or None]


def load_part(
    config: ConfigDict, task: tasks.Task, part: str, *, human: bool = False
) -> Part:
    """Return a whole part of the data, and how many prompts others have taken.

    A text that is in several parts, whatever its ids, belongs to the first of them in
    the order of ``PARTS``. A part that this config cannot read holds nothing.

    Args:
      config: of the run.
      task: the task.
      part: one of ``PARTS``.
      human: the prompts of human pairs, which are of hh-rlhf whatever the source is.
    """
    found = _read_part(config, task, part, human)
    others: list[records.Prompt] = []
    for name in PARTS[: PARTS.index(part)] if part in PARTS else ():
        try:
            others += _read_part(config, task, name, human=False)
        except ValueError as error:
            logging.warning("no prompts of part %r are kept out: %s", name, error)
    kept = parts.apart(found, others)
    shared = len(found) - len(kept)
    if shared:
        told = "%d of %d prompts of part %r are left out: other parts have their text"
        logging.info(told, shared, len(found), part)
    return Part(tuple(kept), shared)


def _read_part(
    config: ConfigDict, task: tasks.Task, part: str, human: bool
) -> Sequence[records.Prompt]:
    source = config.prompts.source
    if part == "agreement" and not (task.hh_config and config.prompts.hh_dir):
        return ()  # of no human pairs at all
    if human or part == "agreement" or source == "hh_rlhf":
        return _hh_prompts(config, task, part)
    return tasks.load_prompts(task, part, None if source == "package" else source)


def _hh_prompts(
    config: ConfigDict, task: tasks.Task, part: str
) -> Sequence[records.Prompt]:
    """Return a part of hh-rlhf, as its lines are."""
    if not task.hh_config:
        raise ValueError(
            f"prompts.source='hh_rlhf' but task {task.name!r} has no hh-rlhf "
            "subset; accepted for it: 'package' or a path to prompts"
        )
    split = hh_split(config, part)
    if not split:
        return ()
    try:
        return hh_rlhf.load_prompts(
            task.hh_config,
            split,
            manual_dir=config.prompts.hh_dir or None,
            data_dir=data_dir(config),
        )
    except ValueError as error:
        where = f"prompts.hh_{part}_split={split!r}"
        raise ValueError(f"{where} cannot be read: {error}") from error


def hh_split(config: ConfigDict, part: str) -> str:
    """Return the split of hh-rlhf that is a part of the data."""
    splits = {
        "dev": config.prompts.hh_dev_split,
        "test": config.prompts.hh_test_split,
        "agreement": config.prompts.hh_agreement_split,
        "train": config.prompts.hh_train_split,
    }
    return splits[part]


def data_dir(config: ConfigDict) -> pathlib.Path:
    """Return the folder in which data sets are prepared."""
    named = config.prompts.data_dir
    return pathlib.Path(named) if named else cache_dir(config) / "datasets"


def repeat_prompts(dialogues: list[records.Prompt], times: int) -> list[records.Prompt]:
    """Return each prompt ``times`` times, its draws numbered from 0.

    With one draw there is no number.
    """
    if times == 1:
        return dialogues
    return [
        dataclasses.replace(prompt, draw=draw)
        for prompt in dialogues
        for draw in range(times)
    ]


def restore_params(
    found: Inputs, folder: pathlib.Path, item: str, specs: Params
) -> Params:
    """Return one item of the latest checkpoint in ``folder``, on the mesh."""
    step = checkpoint.latest_step(folder)
    if step is None:
        raise ValueError(
            f"{folder} holds no checkpoint; run the stage that makes it first"
        )
    shardings = sharding.param_shardings(specs, found.mesh)
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        table.abstract_params(specs),
        shardings,
    )
    items, _ = checkpoint.restore(folder, step, {item: abstract})
    return items[item]
