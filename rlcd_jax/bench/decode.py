"""Decoding: equal prompts and replies, against the memory roofline."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import tree
from rlcd_jax.bench import settings as settings_lib
from rlcd_jax.decode import engine as engine_lib
from rlcd_jax.models import llama
from rlcd_jax.text import byte_tokenizer

COPIED = {"cpu": 2**28, "gpu": 2**32, "tpu": 2**30}  # bytes, by backend


class Endless:
    """The byte tokenizer without an end token, so that replies have exact lengths."""

    eos_ids = ()

    def __init__(self, vocab_size: int) -> None:
        self._bytes = byte_tokenizer.make(max(vocab_size, 259))
        self.vocab_size = vocab_size
        self.special_ids = self._bytes.special_ids

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of an id."""
        return self._bytes.token_bytes(token_id)

    def decode(self, ids: Any) -> str:
        """Return the text of ids."""
        return self._bytes.decode(ids)


def random_weights(cfg: llama.LlamaConfig) -> llama.Params:
    """Return random weights in decode form; the float32 form is never held whole."""

    def make(key: jax.Array) -> llama.Params:
        return llama.decode_form(llama.init_params(cfg, key), cfg)

    shapes = jax.eval_shape(make, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)

    draw = jax.jit(_normal, static_argnums=(1, 2))  # compiles once a shape

    def one(index: int, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.ndim == 1:
            return jnp.ones(leaf.shape, leaf.dtype)
        key = jax.random.fold_in(jax.random.key(0), index)
        return draw(key, leaf.shape, leaf.dtype)

    return structure.unflatten([one(i, leaf) for i, leaf in enumerate(leaves)])


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return (0.02 * jax.random.normal(key, shape)).astype(dtype)


def copy_bandwidth(num_bytes: int = 0, repeats: int = 8) -> float:
    """Return the bytes a second, read and written, of going over one large buffer.

    The buffer is donated: fresh memory would cost a CPU more for its pages than for
    the copy, and the roofline would be too easy to reach.

    Args:
      num_bytes: of the buffer; 0: so many that starting a copy takes no time beside
        it on this backend.
      repeats: of which the best counts.
    """
    num_bytes = num_bytes or COPIED.get(jax.default_backend(), 2**30)
    copy = jax.jit(lambda x: x ^ jnp.uint32(1), donate_argnums=0)
    x = jax.block_until_ready(copy(jnp.zeros(num_bytes // 4, jnp.uint32)))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        x = jax.block_until_ready(copy(x))
        best = min(best, time.perf_counter() - start)
    return 2 * num_bytes / best


def step_bytes(cfg: llama.LlamaConfig, params: Any, slots: int, entries: float) -> int:
    """Return the bytes a decode step has to read: weights once and the live cache.

    An untied embedding is looked up by rows, which is next to nothing.
    """
    weights = tree.count_bytes(params)
    if not cfg.tie_embeddings:
        weights -= tree.count_bytes(params["embed"])
    row = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim
    return int(
        weights + slots * entries * row * np.dtype(jnp.dtype(cfg.dtype)).itemsize
    )


def requests(
    cfg: llama.LlamaConfig, count: int, prompt: int, new: int, **other: Any
) -> list[engine_lib.Request]:
    """Return requests with random prompts of one length."""
    rng = np.random.RandomState(prompt)
    return [
        engine_lib.Request(
            id=str(index),
            tokens=tuple(rng.randint(5, cfg.vocab_size, prompt).tolist()),
            seed=(index, new),
            max_new_tokens=new,
            **other,
        )
        for index in range(count)
    ]


def make_engine(
    cfg: llama.LlamaConfig,
    params: Any,
    slots: int,
    max_length: int,
    steps: int | None,
    *,
    tail_tokens: int = 0,
) -> engine_lib.Engine:
    """Return an engine with these weights."""
    settings = {} if steps is None else {"steps_per_dispatch": steps}
    engine = engine_lib.Engine(
        cfg,
        Endless(cfg.vocab_size),
        num_slots=slots,
        max_length=max_length,
        tail_tokens=tail_tokens,
        **settings,
    )
    engine.load(params)
    return engine


def run(settings: settings_lib.BenchSettings, cfg: llama.LlamaConfig) -> dict[str, Any]:
    """Return the figures of decoding at each number of slots.

    Args:
      settings: what to measure.
      cfg: numbers of the model, whose weights are random.
    """
    params = jax.block_until_ready(random_weights(cfg))
    return {
        "model": settings.model,
        "dtype": cfg.dtype,
        "attention": cfg.attention,
        "prompt": settings.prompt,
        "new": settings.new,
        "decode": [_measure(settings, cfg, params, slots) for slots in settings.slots],
    }


def _measure(
    settings: settings_lib.BenchSettings,
    cfg: llama.LlamaConfig,
    params: llama.Params,
    slots: int,
) -> dict[str, Any]:
    prompt, new, top_k = settings.prompt, settings.new, settings.top_k
    engine = make_engine(cfg, params, slots, prompt + new, settings.steps)
    jobs = requests(cfg, slots, prompt, new, top_k=top_k)
    batch = settings.peer_batch or slots
    steps: list[float] = []

    def ours() -> float:
        seconds, dispatches = timed(engine, jobs)
        steps.extend(one / engine.steps_per_dispatch for one in dispatches)
        if not dispatches:  # one for all tokens, whose time is that of the prompts too
            steps.append(seconds / new)
        return seconds

    for _ in range(2):  # compiles, from a short cache and from a long one
        ours()
    for peer in settings.peers.values():
        peer(batch, prompt, 4, top_k)
    steps.clear()
    times: dict[str, list[float]] = {"ours": [], "bandwidth": []}
    times |= {name: [] for name in settings.peers}
    for _ in range(settings.repeats):
        times["bandwidth"].append(copy_bandwidth())
        times["ours"].append(ours())
        for name, peer in settings.peers.items():
            times[name].append(peer(batch, prompt, new, top_k))
    middle = {name: statistics.median(values) for name, values in times.items()}
    step = statistics.median(steps)
    floor = step_bytes(cfg, params, slots, prompt + new / 2) / max(times["bandwidth"])
    speed = slots * new / middle["ours"]
    row: dict[str, Any] = {
        "slots": slots,
        "tokens_per_second": speed,
        "ms_a_step": step * 1e3,
        "roofline_ms": floor * 1e3,
        "fraction_of_roofline": floor / step,
        "copy_gb_per_second": max(times["bandwidth"]) / 1e9,
        "compiles": engine.compiles,
    }
    for name in settings.peers:
        theirs = batch * new / middle[name]
        row[f"{name}_tokens_per_second"] = theirs
        row[f"ratio_to_{name}"] = speed / theirs
    return row


def timed(
    engine: engine_lib.Engine, jobs: list[engine_lib.Request]
) -> tuple[float, list[float]]:
    """Return the seconds of a job from empty slots, and those between its dispatches.

    The first dispatch waits for the prompts and is left out of the second.
    """
    engine.scheduler.forget()
    start = time.perf_counter()
    reads: list[float] = []
    engine.generate(jobs, progress=lambda _: reads.append(time.perf_counter()))
    seconds = time.perf_counter() - start
    return seconds, np.diff(reads).tolist()
