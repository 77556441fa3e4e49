"""What a stage draws with its decode engine: the engine's programs and their work."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from rlcd_jax import sharding
from rlcd_jax.decode import engine, jitted, programs
from rlcd_jax.decode import plan as decode_plan
from rlcd_jax.job import engine_shape
from rlcd_jax.models import footprint, llama
from rlcd_jax.planning import messages, passes, sizes

GPU_SUMS = 0.25  # of adapted matrices, of those that are merged, held at once


@dataclasses.dataclass(frozen=True)
class EngineProgram:
    """One program of an engine: its name, its arguments in bytes, how to lower it."""

    name: str
    given: tuple[tuple[str, int], ...]
    lower: Callable[[], jax.stages.Lowered]


@dataclasses.dataclass(frozen=True)
class Built:
    """What the shapes of an engine say: its memory, its programs, and its loading.

    Attributes:
      memory: that it needs.
      works: its programs.
      decode_form: the program that makes its weights.
    """

    memory: decode_plan.Memory
    works: tuple[EngineProgram, ...]
    decode_form: Callable


def request_features(
    section: ConfigDict, *, forbid: bool, contrast: bool = False
) -> programs.Features:
    """Return what the requests of a stage ask of the decode program.

    Args:
      section: of the config, with `top_k` and `top_p` if its replies have them.
      forbid: whether some strings may not be drawn.
      contrast: whether a request has two prompts whose logits are mixed.
    """
    top_k, top_p = section.get("top_k", 0), section.get("top_p", 1.0)
    truncate = top_k > 0 or top_p < 1
    return programs.Features(
        truncate=truncate,
        few=truncate and 0 < top_k <= programs.FEW,
        forbid=forbid,
        contrast=contrast and section.alpha != 1.0,
    )


@functools.cache  # a search asks for the same engine again and again
def _build(
    cfg: llama.LlamaConfig,
    mesh: Any,
    shape: engine_shape.EngineShape,
    num_steps: int,
    platform: str,
    features: programs.Features,
) -> Built:
    sizes_of = shape.sizes(cfg, platform)
    common = {"mesh": mesh, "num_slots": shape.num_slots}
    common["string_states"] = engine.STRING_STATES
    made = jitted.make(
        cfg,
        mesh,
        weights=shape.weights,
        num_slots=shape.num_slots,
        num_steps=num_steps,
    )
    works = jitted.works(made, cfg, sizes_of, features=features, **common)
    return Built(
        memory=decode_plan.estimate(
            cfg,
            sizes_of,
            num_steps=num_steps,
            weights=shape.weights,
            platform=platform,
            **common,
        ),
        works=tuple(
            EngineProgram(
                work.name,
                (
                    ("decode", sharding.device_bytes(work.weights)),
                    ("cache", sharding.device_bytes(work.cache)),
                    ("other", sharding.device_bytes(work.copies)),
                ),
                work.lower,
            )
            for work in works
        ),
        decode_form=made.decode_form,
    )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What a stage draws with its decode engine.

    Attributes:
      shape: of the engine.
      built: the engine, as far as its shapes go.
      num_replies: in all, each as long as allowed.
      prompt_tokens: of a prompt, at most.
      reply_tokens: of a reply, at most.
    """

    shape: engine_shape.EngineShape
    built: Built
    num_replies: int
    prompt_tokens: int
    reply_tokens: int

    @property
    def memory(self) -> decode_plan.Memory:
        """What the engine needs on a device."""
        return self.built.memory

    @property
    def held(self) -> dict[str, int]:
        """Bytes that stay between the engine's programs."""
        memory = self.memory
        held = {"decode": memory.weights, "cache": memory.cache}
        return {**held, "other": memory.tables}


def plan_drawing(
    setting: sizes.Setting,
    *,
    num_replies: int,
    prompt_tokens: int,
    reply_tokens: int,
    features: programs.Features,
    most: int = 0,
) -> Drawing:
    """Return what the engine that a stage makes for texts of these lengths draws.

    Args:
      setting: of the plan.
      num_replies: in all.
      prompt_tokens: of a prompt, at most.
      reply_tokens: of a reply, at most.
      features: that the requests ask of the decode program.
      most: requests of a job; 0: any number.
    """
    job = setting.job
    shape = engine_shape.find(
        job.config,
        job.mesh,
        prompt_tokens=prompt_tokens,
        reply_tokens=reply_tokens,
        most=most,
    )
    built = _build(
        dataclasses.replace(setting.cfg, remat="full"),  # which decoding never does
        job.mesh,
        shape,
        job.config.engine.steps_per_dispatch,
        setting.chip.platform,
        features,
    )
    return Drawing(shape, built, num_replies, prompt_tokens, reply_tokens)


def load(setting: sizes.Setting, drawn: Drawing, held: passes.Bytes) -> passes.Program:
    """Return the making of the engine's weights from a model that goes away.

    Args:
      setting: of the plan.
      drawn: what is drawn.
      held: what is on the device meanwhile, without the model.
    """
    master, shared = llama.param_specs(setting.cfg), setting.job.lora is not None
    shapes = sizes.model_shapes(setting, master, frozen=shared)
    given = {"parameters": sharding.device_bytes(shapes)}
    if shared:
        given = {"frozen": given["parameters"]}

    def lower() -> jax.stages.Lowered:
        with jax.set_mesh(setting.job.mesh):
            return drawn.built.decode_form.lower(shapes)

    made = {"decode": drawn.memory.weights}
    if _gathers_first(setting, drawn):
        made["other"] = drawn.memory.weights
    return passes.Program(
        "load",
        {**held, "cache": drawn.memory.cache, "other": drawn.memory.tables},
        given=given,
        made=made,
        lower=lower,
    )


def _gathers_first(setting: sizes.Setting, drawn: Drawing) -> bool:
    """Say whether XLA gathers all layers before it lays out the first: on TPUs."""
    gathered = setting.job.mesh.shape["fsdp"] > 1 and drawn.shape.weights == "whole"
    return gathered and setting.chip.platform == "tpu"


def merge(
    setting: sizes.Setting, drawn: Drawing, held: passes.Bytes
) -> Iterator[passes.Program]:
    """Yield the making of the engine's weights from a base and the policy's adapters.

    A compiler may make the sums of all layers, float32, before it casts the first; one
    for GPUs was seen to hold a fifth of them. Whole models are only cast and laid out,
    which takes no more.

    Args:
      setting: of the plan.
      drawn: what is drawn.
      held: what is on the device meanwhile, base and adapters too.
    """
    if setting.job.lora is None:
        return
    shapes = sizes.read_shapes(setting, "policy")
    summed = sharding.device_bytes(
        sizes.model_shapes(setting, llama.param_specs(setting.cfg), frozen=False)
    )
    summed = int(summed * (GPU_SUMS if setting.chip.platform == "gpu" else 1))
    if _gathers_first(setting, drawn):
        summed = max(summed, drawn.memory.weights)
    given = sharding.device_bytes(shapes)

    def lower() -> jax.stages.Lowered:
        with jax.set_mesh(setting.job.mesh):
            return drawn.built.decode_form.lower(shapes)

    yield passes.Program(
        "merge",
        {**held, "cache": drawn.memory.cache, "frozen": held["frozen"] - given},
        given={"frozen": given},
        made={"decode": drawn.memory.weights, "other": summed},
        lower=lower,
    )


def generate(
    setting: sizes.Setting, drawing: Drawing, held: passes.Bytes
) -> Iterator[passes.Program]:
    """Yield the decode engine's programs; every reply as long as allowed.

    Args:
      setting: of the plan.
      drawing: what is drawn.
      held: what else is on the device meanwhile; "other" has the engine's tables.
    """
    shape = drawing.shape
    widest = max(shape.prompt_buckets)
    for work in drawing.built.works:
        given = dict(work.given)
        beside = {
            **held,
            "decode": drawing.memory.weights - given["decode"],
            "cache": drawing.memory.cache - given["cache"],
        }
        # The engine counts copies among what a program makes: they come and go.
        made = drawing.memory.work[work.name] - given["other"]
        if work.name == "decode":
            given["other"] = drawing.memory.tables
            beside["other"] -= drawing.memory.tables
        program = passes.Program(
            work.name,
            beside,
            given=given,
            made={"other": made},
            lower=work.lower,
        )
        if work.name == "decode":
            program = dataclasses.replace(program, **_decoding(setting, drawing))
        elif work.name == f"prefill {min(widest, shape.max_length)}":
            program = dataclasses.replace(program, **_prefilling(setting, drawing))
        yield program


def _decoding(setting: sizes.Setting, drawing: Drawing) -> dict[str, Any]:
    """Return the work of drawing all tokens of all replies."""
    cfg, slots = setting.cfg, drawing.shape.num_slots
    steps = -(-drawing.num_replies // slots) * drawing.reply_tokens
    drawn = drawing.num_replies * drawing.reply_tokens
    seen = drawing.prompt_tokens + drawing.reply_tokens / 2
    moved = messages.of_decoding(cfg, setting.job.mesh, rows=slots // setting.ways)
    return {
        "flops": footprint.forward_flops(cfg, drawn, seen, logit_tokens=drawn),
        "traffic": steps * (drawing.memory.weights + 0.75 * drawing.memory.cache),
        "moved": moved * steps,
        "runs": steps / setting.job.config.engine.steps_per_dispatch,
    }


def _prefilling(setting: sizes.Setting, drawing: Drawing) -> dict[str, Any]:
    """Return the work of reading all prompts once, none of them shared."""
    cfg, tokens = setting.cfg, drawing.num_replies * drawing.prompt_tokens
    rows = drawing.shape.sizes(cfg, setting.chip.platform).rows
    width = min(max(drawing.shape.prompt_buckets), drawing.shape.max_length)
    runs = -(-tokens // (rows[width, False] * width))
    here = rows[width, False] // setting.ways * width
    moved = messages.of_decoding(cfg, setting.job.mesh, rows=here)
    return {
        "flops": footprint.forward_flops(
            cfg, tokens, drawing.prompt_tokens, logit_tokens=0
        ),
        "traffic": runs * drawing.memory.weights,
        "moved": moved * runs,
        "runs": runs,
    }
