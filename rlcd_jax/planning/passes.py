"""The kinds of compiled programs that stages consist of: updates and readings.

Each is what a device holds while the program runs, how much work all its runs are, and
how to give it to a compiler. What is held and what is given are exact; what a program
makes on its way is an estimate (`models.footprint`, `decode.plan`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.job import trainer
from rlcd_jax.models import footprint, llama
from rlcd_jax.planning import messages, sizes
from rlcd_jax.scoring import reading
from rlcd_jax.training import packing, train_state

Setting = sizes.Setting
Bytes = Mapping[str, int]  # on a device, by the names of SIZES
SIZES = (
    "parameters",  # of what is trained, float32
    "moments",  # of the optimizer
    "gradients",
    "activations",
    "logits",
    "frozen",  # models that are only read
    "decode",  # weights of the decode engine
    "cache",
    "other",  # batch, weights gathered for a moment, the engine's work space
)


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled program of a stage; bytes are those of a device.

    Attributes:
      name: what it does.
      beside: what is held while it runs and is none of its arguments.
      given: its arguments, exactly.
      made: what it makes on its way, and its results: an estimate.
      flops: operations of the model in all its runs, on all devices together.
      repeated: operations that rematerialisation adds to them.
      traffic: bytes of its memory that a device reads and writes in all runs.
      moved: bytes that a device sends to others in all runs.
      runs: how often it is run.
      lower: gives it to the compiler of the setting's mesh; None: it is not compiled,
        but a moment at which much is held.
    """

    name: str
    beside: Bytes
    given: Bytes = dataclasses.field(default_factory=dict)
    made: Bytes = dataclasses.field(default_factory=dict)
    flops: float = 0.0
    repeated: float = 0.0
    traffic: float = 0.0
    moved: messages.Moved = messages.NOTHING
    runs: float = 0.0
    lower: Callable[[], jax.stages.Lowered] | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Everything on a device, by the names of `SIZES`."""
        parts = (self.beside, self.given, self.made)
        return {name: sum(part.get(name, 0) for part in parts) for name in SIZES}

    @property
    def held(self) -> int:
        """Bytes of arrays that there are when it begins."""
        return sum(self.beside.values()) + self.arguments

    @property
    def arguments(self) -> int:
        """Bytes of its arguments."""
        return sum(self.given.values())

    @property
    def peak(self) -> int:
        """Bytes that it takes itself, arguments included: what a compiler plans."""
        return self.arguments + sum(self.made.values())

    @property
    def total(self) -> int:
        """Bytes on a device, all together."""
        return sum(self.beside.values()) + self.peak


def start(setting: Setting, program: trainer.Trainer) -> Program:
    """Return the making of a training's state, of which its parameters become part."""
    state = program.state_shapes
    return Program(
        "start",
        {"frozen": sizes.base_bytes(setting)},
        given={"parameters": sharding.device_bytes(state.params)},
        made={"moments": sharding.device_bytes((state.opt_state, state.updates))},
        lower=program.lower_create,
    )


def update(
    setting: Setting,
    stage: str,
    program: trainer.Trainer,
    *,
    forward: float,
    updates: int,
    beside: Bytes | None = None,
    item: str = train_state.ALL,
    unread: Iterable[str] = (),
) -> Program:
    """Return the update of a training stage, or of one of its models.

    Args:
      setting: of the plan.
      stage: "preference", "distill" or "policy".
      program: its trainer.
      forward: operations of all its forward passes.
      updates: how many there are.
      beside: what else is held meanwhile; the state of other items is not meant.
      item: which of the models that are updated apart.
      unread: arrays of a batch that are for the others.
    """
    cfg, mesh = setting.job.trained_cfg(stage), setting.job.mesh
    batch = sizes.update_batch(setting.job, stage)
    num_rows, num_micro = batch["tokens"].shape[0], program.num_micro
    whole = program.state_shapes
    state = train_state.part(whole, item)
    parameters = sharding.device_bytes(state.params)
    adapted = setting.job.lora is not None
    is_scalar = all("trunk" in own for own in state.params.values())
    base = _base_read(program, is_scalar)
    held = sharding.device_bytes((state.opt_state, state.updates))
    rows = sizes.batch_bytes(
        setting, batch, unread=(*unread, *[program.weight] * (num_micro == 1))
    )
    rows_at_once = num_rows // num_micro // setting.ways
    length = batch["tokens"].shape[-1]
    wanted = 0 if is_scalar or "states" not in batch else batch["states"].shape[-1]
    flops, repeated = footprint.training_flops(cfg, forward, adapted=adapted)
    models = len(state.params)
    messages_once = messages.of_training(
        cfg,
        mesh,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        tokens=rows_at_once * length,
        models=models,
        num_micro=num_micro,
    )
    weights = parameters // 2 * mesh.shape["fsdp"]  # in bfloat16, gathered
    if adapted:
        weights = models * base * mesh.shape["fsdp"]
    beside = {"frozen": sizes.base_bytes(setting), **(beside or {})}
    moments = sharding.device_bytes((whole.opt_state, whole.updates))
    others = {
        "parameters": sharding.device_bytes(whole.params) - parameters,
        "moments": moments - held,
    }
    behind = sharding.device_bytes(trainer.BEHIND, sharding.replicated(mesh))
    given = {"parameters": parameters, "moments": held, "other": rows + behind}
    return Program(
        f"update {item}".strip(),
        {**beside, **others, "frozen": beside["frozen"] - base},
        given=given | ({"frozen": base} if adapted else {}),
        made={
            "gradients": parameters * (1 if num_micro == 1 else 2),
            **working(
                setting,
                cfg,
                rows_at_once,
                length,
                models=models,
                logits=logits(setting, num_rows // num_micro, wanted, 2),
                cast=not adapted,
            ),
        },
        flops=flops,
        repeated=repeated,
        # Forwards, again, and backwards; then read and written with two moments.
        traffic=updates * (3 * num_micro * weights + 7 * parameters),
        moved=messages_once * updates,
        runs=updates,
        lower=lambda: program.lower(batch, item),
    )


def quantize(setting: Setting) -> Iterator[Program]:
    """Yield the bringing of the base to eight bits, where it is in them."""
    if sizes.is_quantized(setting):
        yield Program("quantize", {"frozen": sizes.quantizing_bytes(setting)})


def _base_read(program: trainer.Trainer, is_scalar: bool) -> int:
    """Return the bytes of the base that an update reads: no output table for scalars.

    A compiler leaves out what is not read.
    """
    read = dict(program.base_shapes)
    if is_scalar:
        read.pop("unembed", None)
    return sharding.device_bytes(read)


def working(
    setting: Setting,
    cfg: llama.LlamaConfig,
    rows: int,
    length: int,
    *,
    models: int,
    logits: int,
    cast: bool = True,
    before: int = 0,
) -> Bytes:
    """Return what a pass of a model makes on its way; others as `footprint.Pass`'s."""
    one = footprint.Pass(
        rows=rows,
        length=length,
        models=models,
        logits=logits,
        fsdp_ways=setting.job.mesh.shape["fsdp"],
        tensor_ways=setting.tensor,
        cast=cast,
        before=before,
        platform=setting.chip.platform,
        adapted=setting.job.lora is not None,
        quantized=sizes.is_quantized(setting),
    )
    return footprint.working_bytes(cfg, one)


def logits(
    setting: Setting, rows: int, length: int, arrays: int, *, trained: bool = True
) -> int:
    """Return the bytes of the logits of `rows` texts on all devices at once."""
    job = setting.job
    return footprint.logits_bytes(
        setting.cfg,
        rows,
        length,
        chunk_tokens=job.chunk_tokens if trained else job.read_chunk_tokens,
        batch_ways=setting.ways,
        tensor_ways=setting.tensor,
        arrays=arrays,
    )


def read(
    setting: Setting,
    name: str,
    program: jax.stages.Wrapped,
    models: tuple[Any, ...],
    texts: Any,
    *,
    held: Bytes,
    own: str = "frozen",
    num_texts: float,
    logit_length: int = 0,
    at_once: int = 0,
    reach: int = 0,
) -> Program:
    """Return a program that only reads texts: scores, rewards, log-probabilities.

    Args:
      setting: of the plan.
      name: of the program.
      program: jitted; takes models and then texts.
      models: shapes of those that it is given; what several share is among `held`
        once, and each counts it among its arguments, as a compiler does.
      texts: shapes of arrays, the first of them tokens [B, T].
      held: what is on the device meanwhile, those models too.
      own: under which name of `held` they are.
      num_texts: texts in all.
      logit_length: tokens of a row whose logits are made.
      at_once: texts of all rows; 0: one a row.
      reach: tokens of a text, where a row has several; 0: as many as a row.
    """
    cfg, mesh = dataclasses.replace(setting.cfg, reach=reach), setting.job.mesh
    rows, length = jax.tree.leaves(texts)[0].shape
    at_once = at_once or rows
    all_rows = num_texts * rows / at_once
    weights = sharding.device_bytes(models)
    where = sharding.batch_sharding(mesh)
    batch = sum(
        sharding.device_bytes(leaf, where)
        for leaf in jax.tree.leaves(texts)
        if leaf.ndim > 1
    )
    scores = 0
    if logit_length:
        # One array a model: what is read off them is fused into what reduces them.
        scores = logits(setting, rows, logit_length, len(models), trained=False)
    made = working(
        setting,
        cfg,
        -(-rows // setting.ways),
        length,
        models=0,
        logits=scores,
        cast=own == "parameters" and setting.job.lora is None,
        before=len(models) - 1,
    )
    runs = -(-num_texts // at_once)
    moved = messages.of_reading(
        cfg, mesh, tokens=-(-rows // setting.ways) * length, models=len(models)
    )

    def lower() -> jax.stages.Lowered:
        with jax.set_mesh(mesh):
            return program.lower(*models, *texts)

    return Program(
        name,
        {**held, own: held.get(own, 0) - weights},
        given={own: weights, "other": batch},
        made=made,
        flops=len(models)
        * footprint.forward_flops(
            cfg,
            all_rows * length,
            footprint.keys_computed(cfg, length),
            logit_tokens=all_rows * logit_length,
        ),
        traffic=runs * weights * mesh.shape["fsdp"],
        moved=moved * runs,
        runs=runs,
        lower=lower,
    )


def row_shapes(
    setting: Setting, longest: int, texts: int, *, states: bool = False
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return the shapes of tokens and segments [N, W] of texts up to `longest`.

    Args:
      setting: of the plan.
      longest: in tokens.
      texts: that are read one after the other, each of which may need a row.
      states: whether those of states [N, C] are wanted too, as many as there are.
    """
    width = packing.row_width(longest)
    one = jax.ShapeDtypeStruct((rows_at(setting, width, texts), width), jnp.int32)
    return (one, one, one) if states else (one, one)


def rows_at(setting: Setting, length: int, texts: int) -> int:
    """Return how many of the texts of a length scorers read at once."""
    return reading.rows_at(setting.job)(length, texts)
