"""One step of PPO as a run makes it: draw, score and read replies, then update."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlcd_jax import phases
from rlcd_jax.bench import peak_memory, product_rate, ratios
from rlcd_jax.bench import settings as settings_lib
from rlcd_jax.job import logs, nonfinite, rates, setup, trained_form, trainer
from rlcd_jax.models import heads, lora
from rlcd_jax.ppo import acting, learning, step_notes
from rlcd_jax.preference import model
from rlcd_jax.stages import train_policy

MOST_WARM_UPS = 4  # steps until one compiles nothing; sizes differ from step to step
COMPILES = 0.05  # of a step's time, from which on it is one that compiles


def run(settings: settings_lib.BenchSettings, job: setup.Job) -> dict[str, Any]:
    """Return the figures of steps of PPO, the preference model being an untrained one.

    Args:
      settings: what to measure.
      job: with the sizes of PPO in its config, and the prompts of its task.
    """
    actor, learner = acting.Actor(job), learning.make_trainer(job)
    preference = model.start_params(job)
    value = heads.value_from_preference(model.start_params(job))
    state = learner.create({"policy": trained_form.start_policy(job), "value": value})
    base = job.load_base()
    scored = (
        preference if job.lora is None else lora.lay(base, preference, job.lora.scale)
    )
    actor.set_frozen(reference=base, preference=scored)
    del base, preference, value, scored
    notes = step_notes.Notes.from_meta({}, actor.section)
    look = nonfinite.Look("policy", step=0)
    shown: dict[str, Any] = {}
    spent: list[dict[str, float]] = []  # by phase, of each step

    def ours(step: int) -> float:
        nonlocal state, notes, shown
        start = time.perf_counter()
        phases.begin()
        with logs.compilations_shown():
            state, notes, shown = train_policy.improve(
                actor, learner, state, notes, step, look, lambda: None
            )
        spent.append(phases.of(phases.take()))
        return time.perf_counter() - start

    first = ours(1)
    while len(spent) < MOST_WARM_UPS and _compiles(spent[-1]):
        ours(len(spent) + 1)
    warm_ups = len(spent)
    section = actor.section
    sizes = {
        "rollouts": section.rollouts,
        "update_batch": section.update_batch,
        "micro_batch": section.micro_batch or section.update_batch,
        "epochs": section.epochs,
        "reply_tokens": section.reply_tokens,
    }
    times: dict[str, list[float]] = {ratios.OURS: []} | {
        name: [] for name in settings.peers
    }
    products: list[float] = []
    for step in range(warm_ups + 1, warm_ups + 1 + settings.repeats):
        products.append(product_rate.product_rate())
        times[ratios.OURS].append(ours(step))
        prompts = [list(one.ids) for one in actor.draw_prompts(step)]
        for name, peer in settings.peers.items():
            times[name].append(peer(prompts, sizes))
    finished = learning.finish_metrics(shown)
    seconds = statistics.median(times[ratios.OURS])
    product = statistics.median(products) * job.mesh.size
    figures: dict[str, Any] = {
        "model": settings.model,
        "dtype": job.cfg.dtype,
        "attention": job.cfg.attention,
        **sizes,
        "prompt_tokens_mean": float(np.mean([len(one.ids) for one in actor.prompts])),
        "reply_tokens_mean": finished["rollout/response_length_mean"],
        "seconds_a_step": seconds,
        "first_step_seconds": first,
        "warm_ups": warm_ups,
        "rollouts_per_second": section.rollouts / seconds,
        "seconds_by_phase": _medians(spent[warm_ups:]),
        "model_tflops_of_updates": finished[rates.TFLOPS],
        "product_tflops": product / 1e12,
        "fraction_of_product_rate": finished[rates.TFLOPS] * 1e12 / product,
        "generate_tokens_per_second": finished["generate/tokens_per_second"],
        "useful_share": finished[trainer.USEFUL],
        **peak_memory.peak_gib(),
    }
    return figures | ratios.of_peers(times, "a_step")


def _compiles(spent: Mapping[str, float]) -> bool:
    """Return whether a step, given its seconds by phase, compiled a program."""
    return spent.get(phases.COMPILE, 0.0) > COMPILES * sum(spent.values())


def _medians(spent: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median seconds of each phase of some steps."""
    names = dict.fromkeys(name for one in spent for name in one)
    return {
        name: statistics.median(one.get(name, 0.0) for one in spent) for name in names
    }
