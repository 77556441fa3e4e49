"""The decode engine as the stages use it: sized by config, shown by a bar."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from rlcd_jax import phases, progress_bar
from rlcd_jax.decode import engine
from rlcd_jax.job import engine_shape, lengths, profiling, setup

Params = Any
SUMS = ("tokens", "replies", "seconds", "slot_steps")  # what jobs add up to


def make_engine(
    job: setup.Job,
    prompt_tokens: int,
    reply_tokens: int,
    *,
    cache_tokens: int = 0,
    most: int = 0,
) -> engine.Engine:
    """Return an engine whose slots hold a longest prompt with a longest reply.

    A config's memory limit, where there is one, is checked here: before anything is
    allocated or compiled.

    Args:
      job: of the stage.
      prompt_tokens: of the longest prompt.
      reply_tokens: of the longest reply.
      cache_tokens: of a device's slots together, at most: longer texts get fewer
        slots, down to one on each device; 0: as many slots as the config has.
      most: requests of a job; 0: any number.
    """
    what = f"a prompt of {prompt_tokens} + a reply of {reply_tokens}"
    advice = "lower the stage's prompt_tokens or reply_tokens"
    lengths.refuse_over(job, prompt_tokens + reply_tokens, what, advice)
    section = job.config.engine
    shape = engine_shape.find(
        job.config,
        job.mesh,
        prompt_tokens=prompt_tokens,
        reply_tokens=reply_tokens,
        cache_tokens=cache_tokens,
        most=most,
    )
    gib = section.memory_gib
    return engine.Engine(
        job.cfg,
        job.text_tokenizer,
        num_slots=shape.num_slots,
        max_length=shape.max_length,
        mesh=shape.mesh,
        weights=shape.weights,
        steps_per_dispatch=section.steps_per_dispatch,
        prompt_buckets=shape.prompt_buckets,
        live_buckets=shape.live_buckets,
        tail_tokens=section.tail_tokens,
        memory_budget=int(gib * 2**30) if gib else None,
    )


def generate(
    sampler: engine.Engine, requests: Sequence[engine.Request], what: str
) -> list[engine.Reply]:
    """Return the replies in the order of the requests, with progress shown."""
    with (
        phases.phase("generate"),
        progress_bar.Progress(what, len(requests), unit="replies") as bar,
    ):

        def show(state: Any) -> None:
            profiling.PROCESS.dispatched()
            bar.advance(
                state.done - bar.done, f"{state.tokens_per_second:.0f} tokens/s"
            )

        return sampler.generate(list(requests), progress=show)


def load(sampler: engine.Engine, params: Params, mesh: jax.sharding.Mesh) -> None:
    """Give the engine the weights of a policy version."""
    alone = contextlib.nullcontext() if mesh.size == 1 else jax.set_mesh(mesh)
    with phases.phase("generate"), alone:
        sampler.load(params)


def engine_metrics(sampler: engine.Engine) -> Mapping[str, float]:
    """Return the figures of the last job as metrics."""
    names = ("tokens_per_second", "seconds", "occupancy", "tokens", "replies")
    return {f"generate/{name}": float(sampler.stats[name]) for name in names}


def add_metrics(calls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what several jobs of an engine took together, as sums alone."""
    added = dict.fromkeys((f"generate/{name}" for name in SUMS), 0.0)
    for call in calls:
        for name in ("tokens", "replies", "seconds"):
            added[f"generate/{name}"] += call[f"generate/{name}"]
        busy = call["generate/occupancy"]
        added["generate/slot_steps"] += busy and call["generate/tokens"] / busy
    return added


def with_rates(sums: Mapping[str, float]) -> dict[str, float]:
    """Return sums of jobs, and of other things, with the rates that follow of them."""
    tokens = sums["generate/tokens"]
    return {
        **sums,
        "generate/tokens_per_second": tokens / max(sums["generate/seconds"], 1e-9),
        "generate/occupancy": tokens / max(sums["generate/slot_steps"], 1.0),
    }
