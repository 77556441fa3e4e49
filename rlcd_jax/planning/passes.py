"""The kinds of compiled programs that stages consist of: update, reading, generation.

Each is what a device holds while the program runs, and how much work all its runs
are. Sums of what is held are exact; what a pass makes on its way is an estimate
(`models.footprint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rlcd_jax import sharding
from rlcd_jax.job import trainer
from rlcd_jax.models import footprint
from rlcd_jax.planning import sizes
from rlcd_jax.scoring import reading

Setting = sizes.Setting
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
    """One compiled program of a stage.

    Attributes:
      name: what it does.
      sizes: bytes a device by the names of `SIZES`; what is 0 may be left out.
      arguments: bytes a device of what an update is given, exactly; else 0.
      flops: operations of the model in all its runs, on all devices together.
      repeated: operations that rematerialisation adds to them.
      traffic: bytes of memory that one device reads in all runs of a decode program.
    """

    name: str
    sizes: Mapping[str, int]
    arguments: int = 0
    flops: float = 0.0
    repeated: float = 0.0
    traffic: float = 0.0

    @property
    def total(self) -> int:
        """Bytes a device, all together."""
        return sum(self.sizes.values())


def update(
    setting: Setting,
    stage: str,
    program: trainer.Trainer,
    *,
    forward: float,
    texts: int,
) -> Program:
    """Return the update of a training stage.

    Args:
      setting: of the plan.
      stage: "preference", "distill" or "policy".
      program: its trainer.
      forward: operations of all its forward passes.
      texts: texts in a row of a batch.
    """
    cfg, mesh = setting.cfg, setting.job.mesh
    batch = sizes.update_batch(setting.job, stage)
    num_rows, num_micro = batch["tokens"].shape[0], program.num_micro
    state = program.state_shapes
    parameters = sharding.device_bytes(state.params)
    held = sharding.device_bytes((state.opt_state, state.updates))
    rows = sizes.batch_bytes(
        setting, batch, unread=program.weight if num_micro == 1 else ""
    )
    with_logits = stage != "preference"
    passes = footprint.activation_bytes(
        cfg,
        texts * num_rows // num_micro // setting.ways,
        batch["tokens"].shape[-1],
        tensor_ways=setting.tensor,
        backward=True,
    )
    gathered = footprint.gathered_bytes(
        cfg,
        fsdp_ways=mesh.shape["fsdp"],
        tensor_ways=setting.tensor,
        with_logits=with_logits,
    )
    wanted = batch["targets" if stage == "distill" else "tokens"].shape[-1]
    if stage == "policy":
        wanted = batch["logprobs"].shape[-1]
    flops, repeated = footprint.training_flops(cfg, forward)
    return Program(
        "update",
        {
            "parameters": parameters,
            "moments": held,
            "gradients": parameters * (1 if num_micro == 1 else 2),
            "activations": passes * len(state.params),
            "logits": with_logits * logits(setting, num_rows // num_micro, wanted, 2),
            "other": rows + gathered,
        },
        arguments=parameters + held + rows,
        flops=flops,
        repeated=repeated,
    )


def logits(setting: Setting, rows: int, length: int, arrays: int) -> int:
    """Return the bytes of the logits of `rows` texts on all devices at once."""
    return footprint.logits_bytes(
        setting.cfg,
        rows,
        length,
        chunk_tokens=setting.job.chunk_tokens,
        batch_ways=setting.ways,
        tensor_ways=setting.tensor,
        arrays=arrays,
    )


def read(
    setting: Setting,
    name: str,
    held: Mapping[str, int],
    *,
    num_texts: float,
    length: int,
    logit_length: int = 0,
    rows: int | None = None,
) -> Program:
    """Return a program that only reads texts: scores, rewards, log-probabilities.

    Args:
      setting: of the plan.
      name: of the program.
      held: what is on the device meanwhile.
      num_texts: texts in all.
      length: tokens of a text, at most.
      logit_length: tokens of a text whose logits are made.
      rows: texts at once on all devices; None: as the scorers take them.
    """
    rows = reading.rows_at(setting.job)(length) if rows is None else rows
    passes = footprint.activation_bytes(
        setting.cfg,
        -(-rows // setting.ways),
        length,
        tensor_ways=setting.tensor,
        backward=False,
    )
    gathered = footprint.gathered_bytes(
        setting.cfg,
        fsdp_ways=setting.job.mesh.shape["fsdp"],
        tensor_ways=setting.tensor,
        with_logits=logit_length > 0,
    )
    needed = {**held, "activations": passes, "other": gathered}
    if logit_length:
        needed["logits"] = logits(setting, rows, logit_length, 2)
    flops = footprint.forward_flops(
        setting.cfg, num_texts * length, length, logit_tokens=num_texts * logit_length
    )
    return Program(name, needed, flops=flops)


def generate(
    setting: Setting,
    engine: sizes.EngineSizes,
    held: Mapping[str, int],
    *,
    num_replies: int,
    prompt_tokens: int,
    reply_tokens: int,
) -> Program:
    """Return the decode engine's programs; every reply as long as allowed.

    Args:
      setting: of the plan.
      engine: of the stage.
      held: what else is on the device meanwhile.
      num_replies: replies in all.
      prompt_tokens: of a prompt, at most.
      reply_tokens: of a reply, at most.
    """
    steps = -(-num_replies // engine.shape.num_slots) * reply_tokens
    drawn = num_replies * reply_tokens
    flops = footprint.forward_flops(
        setting.cfg, drawn, prompt_tokens + reply_tokens / 2, logit_tokens=drawn
    ) + footprint.forward_flops(
        setting.cfg, num_replies * prompt_tokens, prompt_tokens, logit_tokens=0
    )
    return Program(
        "generate",
        {**held, **engine.running},
        flops=flops,
        traffic=steps * (engine.memory.weights + 0.75 * engine.memory.cache),
    )
