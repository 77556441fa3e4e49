"""``--what simulate``: whole pairs against the released procedure.

The released script samples static batches of 16, every sample to 300 tokens, and cuts
the text at the next turn afterwards. Here each reply stops where its text stops and
its slot is refilled, and what the two prompts of a pair have in common is prefilled
once. A reply's length is drawn from real replies, and plays the place where it stops.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import numpy as np

from experiments import bench_decode, bench_peer
from rlcd_jax.datasets import hh_rlhf
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
        path = next(iter(hh_rlhf.local_files("harmless-base", hh_dir).values()))
        texts = [chosen for chosen, _ in hh_rlhf.read_rows(path)]
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


def run(args: argparse.Namespace, cfg: llama.LlamaConfig) -> dict[str, Any]:
    """Measure pairs a second, ours and the released procedure's."""
    if args.prompt <= AFFIX_TOKENS:
        raise ValueError(f"--prompt {args.prompt}; accepted: above {AFFIX_TOKENS}")
    params = jax.block_until_ready(bench_decode.random_weights(cfg))
    slots = max(int(one) for one in args.slots.split(","))
    lengths = reply_lengths(args.hh_dir, 2 * args.pairs)
    longest = args.prompt + RELEASED_TOKENS
    engine = bench_decode.make_engine(cfg, params, slots, longest, args.steps)
    jobs = pair_requests(cfg, lengths, args.prompt, args.top_k)
    engine.generate(jobs)  # compiles

    def ours() -> float:
        return bench_decode.timed(engine, jobs)[0] / args.pairs

    released = {"static": _static(args, cfg, params, longest)}
    if args.peer == "hf":
        dtypes = ["bfloat16"]
        if jax.default_backend() == "cpu":
            dtypes = ["float32", "bfloat16"]
        for dtype in dtypes:
            released[f"hf_{dtype}"] = _hf(args, bench_peer.HfPeer(cfg, dtype))
    times: dict[str, list[float]] = {"ours": []} | {name: [] for name in released}
    for _ in range(args.repeats):
        times["ours"].append(ours())
        for name, seconds in released.items():
            times[name].append(seconds())
    middle = {name: statistics.median(values) for name, values in times.items()}
    result: dict[str, Any] = {
        "model": args.model,
        "pairs": args.pairs,
        "slots": slots,
        "reply_tokens_mean": float(lengths.mean()),
        "pairs_per_second": 1 / middle["ours"],
        "engine": engine.stats,
    }
    for name in released:
        result[f"released_{name}_pairs_per_second"] = 1 / middle[name]
        result[f"ratio_to_released_{name}"] = middle[name] / middle["ours"]
    return result


def _static(args, cfg, params, longest: int):
    """Return a function: seconds a pair, the released procedure on our engine."""
    static = bench_decode.make_engine(cfg, params, RELEASED_BATCH, longest, args.steps)
    jobs = bench_decode.requests(
        cfg, RELEASED_BATCH, args.prompt, RELEASED_TOKENS, top_k=args.top_k
    )
    static.generate(jobs)  # compiles

    def seconds() -> float:
        return bench_decode.timed(static, jobs)[0] / (RELEASED_BATCH / 2)

    return seconds


def _hf(args, peer: bench_peer.HfPeer):
    peer.seconds(RELEASED_BATCH, args.prompt, 4, args.top_k)

    def seconds() -> float:
        whole = peer.seconds(RELEASED_BATCH, args.prompt, RELEASED_TOKENS, args.top_k)
        return whole / (RELEASED_BATCH / 2)

    return seconds
