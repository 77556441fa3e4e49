"""What a stage starts from: mesh, model, tokenizer, task and prompts, by config."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import checkpoint, fingerprints, processes, sharding, tasks
from rlcd_jax.job import kernels, roles
from rlcd_jax.models import frozen, llama, lora, presets, quantized, table
from rlcd_jax.pairs import training_texts
from rlcd_jax.text import byte_tokenizer, tokenizer
from rlcd_jax.weights import names, resolve

Params = Any
_DRAWING = (roles.GENERATOR, roles.SCORER)  # roles whose models make and label pairs
CACHED_LOGITS = 2**24  # bytes of logits that a CPU keeps near while it reads them
RANDOM = "random:"  # prefix of a model spec: a preset's shape with random weights


@dataclasses.dataclass(frozen=True)
class Job:
    """The things that every stage needs, made once a stage, with one of its models."""

    config: ConfigDict
    task: tasks.Task
    mesh: jax.sharding.Mesh
    cfg: llama.LlamaConfig
    text_tokenizer: tokenizer.Tokenizer
    # The unaligned model, float32 in training form. Where adapters are trained, in
    # the frozen form, and all who ask share it, but for those who make pairs.
    load_base: Callable[[], Params]
    # Its fingerprints: `base_hashes` of it before it was brought to eight bits.
    base_hashes: Callable[[], Mapping[str, str]]
    role: str  # whose model it is, of `roles.ROLES`
    find: Callable[[str], Job]  # the job with the model of another role
    backend: kernels.Backend  # of the mesh

    def of(self, role: str) -> Job:
        """Return the job with the model of a role; that of this one, if it is one."""
        if self.is_model_of(role):
            return dataclasses.replace(self, role=role)
        return self.find(role)

    def is_model_of(self, role: str) -> bool:
        """Whether a role has the model that this job has."""
        model = self.config.model
        return roles.spec_of(model, role) == roles.spec_of(model, self.role)

    def longest_text(self, section: str) -> int:
        """Return the tokens that a text of a training stage may have.

        Args:
          section: of the stage: "policy", or one with `lengths`.
        """
        if section == "policy":
            return self.config.policy.prompt_tokens + self.config.policy.reply_tokens
        return self.config[section].lengths[-1]

    def trained_cfg(self, section: str) -> llama.LlamaConfig:
        """Numbers of the model where rows of a stage's texts are read to train it.

        On one GPU each layer of a whole model is compiled by itself; over several, or
        under adapters, XLA would gather or cast the weights of many layers at once.

        Args:
          section: of the stage, as in `longest_text`.
        """
        alone = self.backend.platform == "gpu" and self.mesh.size == 1
        unroll = self.config.model.unroll and alone and self.lora is None
        reach = self.longest_text(section)
        return dataclasses.replace(self.cfg, unroll=unroll, reach=reach)

    @property
    def chunk_tokens(self) -> int:
        """Tokens whose logits exist at once, on all devices together."""
        return self.config.model.chunk_tokens * sharding.batch_ways(self.mesh)

    @property
    def read_chunk_tokens(self) -> int:
        """The same where nothing is trained: on CPUs no more than a cache holds.

        Reading 1,120 states of SmolLM2 took 0.28 s so, where it took 0.41; an update
        would add up the gradient of the table for every chunk.
        """
        ways = sharding.batch_ways(self.mesh)
        if not sharding.is_on_cpu(self.mesh):
            return self.chunk_tokens
        cached = max(1, CACHED_LOGITS // (4 * self.cfg.vocab_size))
        return min(self.chunk_tokens, cached * ways)

    @property
    def lora(self) -> lora.Lora | None:
        """The adapters that are trained; None: models are trained whole."""
        return adapters(self.config)

    @property
    def base_form(self) -> str:
        """How the base of its adapters is read, of `quantized.FORMS`."""
        return base_form(self.config, self.role)

    @property
    def chat_turn(self) -> training_texts.ChatTurn | None:
        """What stands around a reply of the chat format; None in the dialogue one."""
        if self.task.format == "dialogue":
            return None
        end = self.text_tokenizer.end_of_turn
        if not self.text_tokenizer.template_closes_turns:
            said = "The chat template closes no turn with a token: replies end with %s"
            logging.log_first_n(logging.WARNING, said, 1, end)
        return training_texts.ChatTurn(self.text_tokenizer.reply_opening, end)


def load_job(
    config: ConfigDict,
    devices: Sequence[jax.Device] = (),
    *,
    role: str = roles.POLICY,
) -> Job:
    """Return the inputs of a stage; every mistake in the config ends here.

    Args:
      config: of the run.
      devices: of the mesh, with as many replicas as they hold; (): all, as the config
        has them.
      role: whose model it is; `Job.of` finds the others.
    """
    task = load_task(config)
    sizes = mesh_sizes(config)
    if devices:
        sizes |= {"slices": 1, "data": -1, "devices": devices}
    return _with_model(config, task, sharding.make_mesh(**sizes), role)


def _with_model(
    config: ConfigDict, task: tasks.Task, mesh: jax.sharding.Mesh, role: str
) -> Job:
    """Return the job with the model of a role; nothing is read of its weights."""
    with naming(config, role):
        cfg, text_tokenizer, read = _find_model(config, role)
    backend = kernels.this_backend()
    cfg = configured(cfg, config, backend)
    if not cfg.layout.is_own:
        logging.log_first_n(logging.INFO, "%s", 1, cfg.layout.describe())
    shardings = sharding.param_shardings(llama.param_specs(cfg), mesh)
    adapted = adapters(config) is not None
    eight = base_form(config, role) == quantized.INT8

    def load() -> tuple[Params, Mapping[str, str]]:
        params = read(cfg, shardings, cfg.dtype if adapted else None)
        if not eight:
            return params, {}
        hashes = base_hashes(params)
        return quantize(params, cfg, mesh), hashes

    # Pairs are drawn by an engine, which has a copy of its own: nobody shares theirs.
    loaded = functools.cache(load) if adapted and role not in _DRAWING else load

    def load_base() -> Params:
        return loaded()[0]

    def hashes() -> Mapping[str, str]:
        params, own = loaded()
        return own or base_hashes(params)

    find = functools.partial(_with_model, config, task, mesh)
    return Job(
        config,
        task,
        mesh,
        cfg,
        text_tokenizer,
        load_base,
        hashes,
        role,
        find,
        backend,
    )


def base_form(config: ConfigDict, role: str) -> str:
    """Return in which form the base of a role's model is read: `quantized.FORMS`.

    Pairs are drawn from the model as it is, and labelled by it.
    """
    if adapters(config) is None or role in _DRAWING:
        return quantized.AS_COMPUTED
    return config.lora.get("base", quantized.AS_COMPUTED)


def base_hashes(base: Params) -> dict[str, str]:
    """Return a fingerprint of each array, whatever the dtype in which it is kept."""
    return fingerprints.of_tree(base, rounded_to="bfloat16")


def quantize(params: Params, cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh) -> Params:
    """Return a base with its matrices in eight bits, on the mesh; it is used up."""
    where = sharding.param_shardings(quantized.specs(cfg), mesh)["layers"]

    def make(name: str, weight: jax.Array) -> Any:
        return jax.jit(quantized.quantize, out_shardings=where[name])(weight)

    return quantized.form(params, make)


@contextlib.contextmanager
def naming(config: ConfigDict, role: str) -> Iterator[None]:
    """Name the field in errors about a model that one role alone may have."""
    field, spec = (of(config.model, role) for of in (roles.field_of, roles.spec_of))
    try:
        yield
    except ValueError as error:
        if field == f"model.{roles.MODEL}":
            raise
        raise ValueError(f"{field}={spec!r}: {error}") from error


def own_devices(config: ConfigDict) -> list[jax.Device]:
    """Return this process's devices, if each process can hold a replica of its own.

    No devices where the config wants all processes to work together, where there is
    one, or where `mesh.fsdp` x `mesh.tensor` do not divide the devices of each. All
    processes say the same.
    """
    if not (config.engine.per_process and processes.are_many()):
        return []
    counts = collections.Counter(device.process_index for device in jax.devices())
    ways = config.mesh.fsdp * config.mesh.tensor
    if any(count % ways for count in counts.values()):
        logging.info("%d ways of the mesh cross processes: all draw together", ways)
        return []
    return jax.local_devices()


def mesh_sizes(config: ConfigDict) -> dict[str, int]:
    """Return the sizes of a mesh as `sharding.make_mesh` and its like take them."""
    return {name: config.mesh[name] for name in ("slices", "data", "fsdp", "tensor")}


def configured(
    cfg: llama.LlamaConfig, config: ConfigDict, backend: kernels.Backend
) -> llama.LlamaConfig:
    """Return a model's numbers with the config's precision, remat, kernel and ways.

    Args:
      cfg: numbers of a model.
      config: of a run.
      backend: that the model runs on; see `kernels.configured`.
    """
    cfg = dataclasses.replace(
        cfg,
        dtype=config.model.dtype,
        remat=config.model.remat,
        tensor_ways=config.mesh.tensor,
    )
    return kernels.configured(
        cfg,
        attention=config.model.attention,
        results=config.model.results,
        block=config.model.attention_block,
        backend=backend,
    )


def adapters(config: ConfigDict) -> lora.Lora | None:
    """Return the adapters that a config asks for; None: it trains whole models."""
    section = config.lora
    if not section.rank:
        return None
    return lora.Lora(section.rank, float(section.alpha), tuple(section.targets))


def load_task(config: ConfigDict) -> tasks.Task:
    """Return the task with the config's format, wording, lengths and clean-up."""
    task = tasks.load_task(
        config.task, config.official_wording or None, tuple(config.pairs.strength)
    )
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


def _find_model(
    config: ConfigDict, role: str
) -> tuple[llama.LlamaConfig, Any, Callable]:
    spec = roles.spec_of(config.model, role)
    if spec.startswith(RANDOM):
        cfg = presets.get_preset(spec.removeprefix(RANDOM))
        seed = config.seed

        def draw(cfg: llama.LlamaConfig, shardings: Any, dtype: str | None) -> Params:
            places, tree = jax.tree.flatten(shardings)
            return _drawing(cfg, tuple(places), tree, dtype)(jax.random.key(seed))

        return cfg, byte_tokenizer.make(cfg.vocab_size), draw
    resolved = resolve.resolve_model(spec, cache_dir(config), logging.info)
    if not resolved.has_weights:
        raise ValueError(
            f"model={spec!r} is a shape without weights; give hf:PATH_OR_ID or "
            f"gguf:PATH, model=smollm2-135m for the embedded real model, or "
            f"{RANDOM}{spec} for random weights"
        )

    def read(cfg: llama.LlamaConfig, shardings: Any, dtype: str | None) -> Params:
        del cfg  # the file's own numbers say the same
        put = names.put_sharded(shardings)
        return resolved.load_params(put=put if dtype is None else _casting(put, dtype))

    return resolved.cfg, resolved.load_tokenizer(), read


def draw_params(cfg: llama.LlamaConfig, seed: int) -> Params:
    """Return the weights of a run whose model is random, float32 on one device.

    They are drawn as the run draws them, so that not even a last bit is another.
    """
    places, tree = jax.tree.flatten(
        jax.tree.map(
            lambda _: jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
            llama.param_specs(cfg),
        )
    )
    return _drawing(cfg, tuple(places), tree, None)(jax.random.key(seed))


@functools.lru_cache(maxsize=4)  # stages and runs of one model draw it alike
def _drawing(
    cfg: llama.LlamaConfig,
    places: tuple[jax.sharding.Sharding, ...],
    tree: Any,
    dtype: str | None,
) -> Callable[[jax.Array], Params]:
    """Return the compiled (key) -> random weights; `tree` of `places` is theirs."""

    def draw(key: jax.Array) -> Params:
        params = llama.init_params(cfg, key)
        return params if dtype is None else frozen.form(params, dtype)

    return jax.jit(draw, out_shardings=jax.tree.unflatten(tree, places))


def _casting(put: names.Put, dtype: str) -> names.Put:
    """Return a `put` of the frozen form: no device holds a part in float32."""

    def cast(path: str, spec: table.ParamSpec, values: Callable) -> jax.Array:
        form = jnp.dtype(frozen.dtype_of(path, len(spec.shape), np.float32, dtype))
        return put(path, spec, lambda index: np.asarray(values(index)).astype(form))

    return cast


def cache_dir(config: ConfigDict) -> pathlib.Path:
    """Return the folder of fetched models."""
    return pathlib.Path(config.model.cache_dir or "~/.cache/rlcd_jax").expanduser()


def restore_params(
    job: Job,
    folder: pathlib.Path,
    item: str,
    specs: Params,
    step: int | None = None,
) -> Params:
    """Return one item of a checkpoint in `folder`, on the mesh.

    Args:
      job: of the stage.
      folder: of checkpoints.
      item: its name.
      specs: its parameter table.
      step: of the checkpoint; None: the latest.

    Raises:
      Damaged: it is not what was saved; no other step is taken in its place, whose
        parameters would be others than those of the stage's summary.
      ValueError: there is none, or it does not fit.
    """
    step = find_step(folder) if step is None else step
    shardings = sharding.param_shardings(specs, job.mesh)
    abstract = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        table.abstract_params(specs),
        shardings,
    )
    with damage_told(folder):
        items, _ = checkpoint.restore(folder, step, {item: abstract})
    return items[item]


def find_step(folder: pathlib.Path) -> int:
    """Return the latest step of a folder of checkpoints; refuse one that has none."""
    step = checkpoint.latest_step(folder)
    if step is None:
        raise ValueError(
            f"{folder} holds no checkpoint; run the stage that makes it first"
        )
    return step


@contextlib.contextmanager
def damage_told(folder: pathlib.Path) -> Iterator[None]:
    """Say of a damaged checkpoint what can be done about it."""
    try:
        yield
    except checkpoint.Damaged as error:
        raise checkpoint.Damaged(
            f"{error}\nRestore its files from a copy, or delete {folder.parent} to "
            "make it again"
        ) from error
