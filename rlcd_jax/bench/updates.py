"""Training on texts: whole updates of a stage, against the rate of one large product.

The update is that of a run: its packing, its parts of a batch, its mesh. Only the texts
are made up: prompts of one length and replies as long as real ones are.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from rlcd_jax.bench import peak_memory, product_rate, ratios, simulate
from rlcd_jax.bench import settings as settings_lib
from rlcd_jax.job import (
    in_flight,
    packed_batches,
    rates,
    setup,
    supervised,
    trainer,
)
from rlcd_jax.preference import pair_ids
from rlcd_jax.stages import distill_context, train_preference
from rlcd_jax.training import train_state

FIRST_ID = 5  # below it are ids with a meaning


def train(settings: settings_lib.BenchSettings, job: setup.Job) -> dict[str, Any]:
    """Return the figures of fine-tuning on replies, as the stage distill does it."""

    def example(ids: Sequence[int]) -> distill_context.Example:
        is_reply = tuple(place >= settings.prompt for place in range(len(ids)))
        return distill_context.Example(tuple(ids), is_reply)

    count = settings.repeats * job.config.distill.batch_size
    rows = [example(ids) for ids in _texts(settings, job, "distill", count)]
    return _measure(settings, job, "distill", distill_context, rows)


def preference(settings: settings_lib.BenchSettings, job: setup.Job) -> dict[str, Any]:
    """Return the figures of training the preference model on pairs of a prompt each."""
    count = settings.repeats * job.config.preference.batch_size
    texts = _texts(settings, job, "preference", 2 * count)
    pairs = zip(texts[::2], texts[1::2], strict=True)
    rows = [
        pair_ids.TokenPair(
            tuple(a), (*a[: settings.prompt], *b[settings.prompt :]), prob_2=1.0
        )
        for a, b in pairs
    ]
    return _measure(settings, job, "preference", train_preference, rows)


def _in_a_row(
    program: trainer.Trainer,
    batches: packed_batches.Batches,
    state: train_state.TrainState,
) -> float:
    """Return the seconds of an update among others, as a run makes them.

    Args:
      program: that is compiled for all batches.
      batches: each makes an update.
      state: before; it is used up.
    """
    updates = in_flight.Updates(program)
    supervised.wait(state)
    start = time.perf_counter()
    for index in range(batches.total):
        state = updates.make(
            state,
            batches.arrays(index),
            lambda *_: None,
            functools.partial(batches.prepare, index + 1),
        )
    updates.land(state)
    return (time.perf_counter() - start) / batches.total


def _texts(
    settings: settings_lib.BenchSettings, job: setup.Job, stage: str, count: int
) -> list[list[int]]:
    """Return texts of ids without a meaning: a prompt and a reply each.

    Raises:
      ValueError: the stage's lengths leave no room for a reply.
    """
    longest = job.config[stage].lengths[-1]
    room = longest - settings.prompt
    if room < 1:
        raise ValueError(
            f"--prompt {settings.prompt} leaves no room for a reply in "
            f"{stage}.lengths[-1]={longest}; lower it"
        )
    lengths = np.minimum(simulate.reply_lengths(settings.hh_dir, count), room)
    rng = np.random.RandomState(0)
    vocab = job.cfg.vocab_size
    sizes = settings.prompt + lengths
    return [rng.randint(FIRST_ID, vocab, size).tolist() for size in sizes]


def _measure(
    settings: settings_lib.BenchSettings,
    job: setup.Job,
    stage: str,
    module: ModuleType,
    rows: Sequence[Any],
) -> dict[str, Any]:
    """Return the figures of updates, in turns with the peers'."""
    section = job.config[stage]
    collate = module.collate(job)
    batches = packed_batches.Batches(
        rows,
        collate,
        seed=job.config.seed,
        batch_size=section.batch_size,
        total=settings.repeats,
    )
    program = module.make_trainer(job, settings.repeats)
    state = program.create(module.start_params(job))
    shown: dict[str, float] = {}

    def ours(index: int) -> float:
        nonlocal state, shown
        start = time.perf_counter()
        state, out = program.update(state, batches.arrays(index))
        shown = trainer.host_metrics(out)
        return time.perf_counter() - start

    sizes = {size: index for index, size in enumerate(batches.sizes)}
    compile_seconds = sum(map(ours, sizes.values()))
    parts = supervised.micro_batches(job, stage)

    texts = [
        [list(collate.texts(row)) for row in batches.rows(index)]
        for index in range(settings.repeats)
    ]
    shown_to_peers: list[settings_lib.Texts] = [
        [[(text.ids, settings.prompt) for text in one] for one in batch]
        for batch in texts
    ]
    for peer in settings.peers.values():
        peer(shown_to_peers[0], parts)
    products: list[float] = []
    times: dict[str, list[float]] = {ratios.OURS: []}
    times |= {name: [] for name in settings.peers}
    for index, batch in enumerate(shown_to_peers):
        products.append(product_rate.product_rate())
        times[ratios.OURS].append(ours(index))
        for name, peer in settings.peers.items():
            times[name].append(peer(batch, parts))
    in_a_row = _in_a_row(program, batches, state)
    flat = [[text for one in batch for text in one] for batch in texts]
    tokens = [sum(len(text.ids) for text in batch) for batch in flat]
    adapted = job.lora is not None
    shared = [batches.shared(index) for index in range(settings.repeats)]
    flops = [
        rates.update_flops(job.cfg, batch, adapted=adapted, shared=own)
        for batch, own in zip(flat, shared, strict=True)
    ]
    own = times[ratios.OURS]
    made = [flop / seconds for flop, seconds in zip(flops, own, strict=True)]
    speeds = [count / seconds for count, seconds in zip(tokens, own, strict=True)]
    product = statistics.median(products) * job.mesh.size
    figures = {
        "model": settings.model,
        "dtype": job.cfg.dtype,
        "attention": job.cfg.attention,
        "remat": job.cfg.remat,
        "batch_size": section.batch_size,
        "parts": parts,
        "tokens_an_update": statistics.mean(tokens),
        "useful_share": batches.useful_share(),
        "shared_share": batches.shared_share(),
        "seconds_an_update": statistics.median(own),
        "seconds_an_update_in_a_row": in_a_row,
        "first_updates_seconds": compile_seconds,
        "tokens_per_second": statistics.median(speeds),
        "model_tflops": statistics.median(made) / 1e12,
        "product_tflops": product / 1e12,
        "fraction_of_product_rate": statistics.median(made) / product,
        "last_loss": shown[f"{stage}/loss"],
        **peak_memory.peak_gib(),
    }
    return figures | ratios.of_peers(times, "an_update")
