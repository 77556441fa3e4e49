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
from rlcd_jax.datasets import hh_rlhf
from rlcd_jax.models import llama, presets, table
from rlcd_jax.weights import names, resolve

Params = Any
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


def load_prompts(
    config: ConfigDict, task: tasks.Task, part: str, *, limit: int | None = None
) -> list[records.Prompt]:
    """Return the prompts of a part of the data; the others share none with "dev".

    Args:
      config: of the run.
      task: the task.
      part: "train" for simulation and PPO, "dev" for the prompts on which checkpoints
        and settings are chosen, "test" for those of the evaluation.
      limit: how many at most, 0: all; None: as many as the config says, which is
        ``prompts.limit`` for "train" and ``evaluate.prompts`` for the others.
    """
    source = config.prompts.source
    if source == "package":
        found = tasks.load_prompts(task, part)
    elif source == "hh_rlhf":
        found = _hh_prompts(config, task, part)
    else:
        found = tasks.load_prompts(task, part, source)
    if limit is None:
        limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    return list(found)[: limit or None]


def _hh_prompts(
    config: ConfigDict, task: tasks.Task, part: str
) -> Sequence[records.Prompt]:
    """Return a part of hh-rlhf; what belongs to dev is left out of the others."""
    if not task.hh_config:
        raise ValueError(
            f"prompts.source='hh_rlhf' but task {task.name!r} has no hh-rlhf "
            "subset; accepted for it: 'package' or a path to prompts"
        )
    splits = {
        "train": config.prompts.hh_train_split,
        "dev": config.prompts.hh_dev_split,
        "test": config.prompts.hh_test_split,
    }

    def read(name: str) -> Sequence[records.Prompt]:
        if not splits[name]:
            return ()
        try:
            return hh_rlhf.load_prompts(
                task.hh_config,
                splits[name],
                manual_dir=config.prompts.hh_dir or None,
                data_dir=data_dir(config),
            )
        except ValueError as error:
            where = f"prompts.hh_{name}_split={splits[name]!r}"
            raise ValueError(f"{where} cannot be read: {error}") from error

    found = read(part)
    # Slices of two files have nothing in common, and one file may not be there.
    if part == "dev" or _file(splits[part]) != _file(splits["dev"]):
        return found
    chosen_on = {prompt.id for prompt in read("dev")}
    return [prompt for prompt in found if prompt.id not in chosen_on]


def _file(split: str) -> str:
    return split.partition("[")[0]


def data_dir(config: ConfigDict) -> pathlib.Path:
    """Return the folder in which data sets are prepared."""
    named = config.prompts.data_dir
    return pathlib.Path(named) if named else cache_dir(config) / "datasets"


def repeat_prompts(dialogues: list[records.Prompt], times: int) -> list[records.Prompt]:
    """Return each prompt ``times`` times, draw n of prompt p with the id "p#n".

    With one draw the ids stay as they are.
    """
    if times == 1:
        return dialogues
    return [
        dataclasses.replace(prompt, id=f"{prompt.id}#{draw}")
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
