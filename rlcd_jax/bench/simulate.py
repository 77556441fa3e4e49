"""Simulation: whole pairs against the released procedure.

The released script samples static batches of 16, every sample to 300 tokens, and cuts
the text at the next turn afterwards. Here each reply stops where its text stops and
its slot is refilled, and what the two prompts of a pair have in common is prefilled
once. A reply's length is drawn from real replies, and plays the place where it stops.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcd_jax.bench import decode
from rlcd_jax.bench import settings as settings_lib
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.decode import engine as engine_lib
from rlcd_jax.models import llama

RELEASED_BATCH = 16
RELEASED_TOKENS = 300
AFFIX_TOKENS = 8  # from where the two prompts of a pair differ
BYTES_A_TOKEN = 4.5  # English text under a vocabulary of 32,000 to 50,000
PUBLISHED = (73.3, 56.1)  # mean and deviation of RLCD-30B's harmless replies, App. J.4


def reply_lengths(hh_dir: str, count: int) -> np.ndarray:
    """Return reply lengths in tokens, at most 300.

    Args:
      hh_dir: hh-rlhf in the official layout, whose chosen last replies of
        harmless-base are taken; "" draws a log-normal with the published moments.
      count: how many.
    """
    rng = np.random.RandomState(0)
    if hh_dir:
        path = next(iter(hh_rlhf_files.local_files("harmless-base", hh_dir).values()))
        texts = [chosen for chosen, _ in hh_rlhf_files.read_rows(path)]
        sizes = [len(one.rpartition("\n\nAssistant:")[2].encode()) for one in texts]
        lengths = rng.choice(np.asarray(sizes) / BYTES_A_TOKEN, count)
    else:
        mean, deviation = PUBLISHED
        spread = np.log(1 + (deviation / mean) ** 2)
        lengths = rng.lognormal(np.log(mean) - spread / 2, np.sqrt(spread), count)
    return np.clip(np.ceil(lengths), 1, RELEASED_TOKENS).astype(int)


def pair_requests(
    cfg: llama.LlamaConfig, lengths: np.ndarray, prompt: int, top_k: int
) -> list[engine_lib.Request]:
    """Return two requests a pair, whose prompts differ in their last tokens."""
    rng = np.random.RandomState(1)
    made = []
    for index in range(0, len(lengths), 2):
        head = rng.randint(5, cfg.vocab_size, prompt - AFFIX_TOKENS).tolist()
        for side in (0, 1):
            tail = rng.randint(5, cfg.vocab_size, AFFIX_TOKENS).tolist()
            made.append(
                engine_lib.Request(
                    id=f"{index}/{side}",
                    tokens=(*head, *tail),
                    seed=(index, side),
                    max_new_tokens=int(lengths[index + side]),
                    top_k=top_k,
                )
            )
    return made


def run(settings: settings_lib.BenchSettings, cfg: llama.LlamaConfig) -> dict[str, Any]:
    """Return pairs a second, ours and the released procedure's.

    Args:
      settings: what to measure; of `slots` the most are taken.
      cfg: numbers of the model, whose weights are random.

    Raises:
      ValueError: the prompt leaves no room for an affix.
    """
    if settings.prompt <= AFFIX_TOKENS:
        raise ValueError(f"--prompt {settings.prompt}; accepted: above {AFFIX_TOKENS}")
    params = jax.block_until_ready(decode.random_weights(cfg))
    slots, longest = max(settings.slots), settings.prompt + RELEASED_TOKENS
    lengths = reply_lengths(settings.hh_dir, 2 * settings.pairs)
    engine = decode.make_engine(
        cfg,
        params,
        slots,
        longest,
        settings.steps,
        tail_tokens=settings.tail_tokens,
    )
    jobs = pair_requests(cfg, lengths, settings.prompt, settings.top_k)
    engine.generate(jobs)  # compiles

    def ours() -> float:
        return decode.timed(engine, jobs)[0] / settings.pairs

    released = {"static": _static(settings, cfg, params, longest)}
    for name, peer in settings.peers.items():
        released[name] = _released_by(peer, settings)
    times: dict[str, list[float]] = {"ours": []} | {name: [] for name in released}
    for _ in range(settings.repeats):
        times["ours"].append(ours())
        for name, seconds in released.items():
            times[name].append(seconds())
    middle = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {
        "model": settings.model,
        "pairs": settings.pairs,
        "slots": slots,
        "reply_tokens_mean": float(lengths.mean()),
        "pairs_per_second": 1 / middle["ours"],
        "engine": engine.stats,
    }
    for name in released:
        result[f"released_{name}_pairs_per_second"] = 1 / middle[name]
        result[f"ratio_to_released_{name}"] = middle[name] / middle["ours"]
    return result


def _static(
    settings: settings_lib.BenchSettings,
    cfg: llama.LlamaConfig,
    params: llama.Params,
    longest: int,
) -> Callable[[], float]:
    """Return a function: seconds a pair, the released procedure on our engine."""
    static = decode.make_engine(cfg, params, RELEASED_BATCH, longest, settings.steps)
    jobs = decode.requests(
        cfg, RELEASED_BATCH, settings.prompt, RELEASED_TOKENS, top_k=settings.top_k
    )
    static.generate(jobs)  # compiles

    def seconds() -> float:
        return decode.timed(static, jobs)[0] / (RELEASED_BATCH / 2)

    return seconds


def _released_by(
    peer: settings_lib.Peer, settings: settings_lib.BenchSettings
) -> Callable[[], float]:
    """Return a function: seconds a pair, the released procedure on a peer."""
    peer(RELEASED_BATCH, settings.prompt, 4, settings.top_k)

    def seconds() -> float:
        whole = peer(RELEASED_BATCH, settings.prompt, RELEASED_TOKENS, settings.top_k)
        return whole / (RELEASED_BATCH / 2)

    return seconds
