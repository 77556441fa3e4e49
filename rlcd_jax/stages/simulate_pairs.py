"""Stage 1: prompts become preference pairs.

Leaves `pairs/pairs.jsonl` (one Pair a line with its whole provenance),
`pairs/dropped.jsonl` (each side without an acceptable reply, its raw texts too) and
`pairs/summary.json`. Prompts are taken part by part; a finished part is on disk, so
a killed run goes on where it was, and since a sample depends on its request alone the
result is the same.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import leaving, metrics, processes, record_files, records
from rlcd_jax.job import generation, lengths, prompt_parts, setup, workspace
from rlcd_jax.pairs import counting, draws, grid
from rlcd_jax.scoring import letters

# (prompts) -> (pairs, dropped sides)
Simulate = Callable[
    [Sequence[records.Prompt]], tuple[list[records.Pair], list[records.Dropped]]
]


def simulate_pairs(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Draw and label the pairs of a run.

    Args:
      config: of the run; sections `pairs`, `prompts`, `model`, `engine`.
      workdir: folder of the run.

    Returns:
      The summary: counts, tries and drops a side, mean lengths.
    """
    if workspace.finished(config, workdir, "simulate"):
        return workspace.summary(workdir, "simulate")
    started = time.monotonic()
    job = setup.load_job(config)
    lengths.check(job, "simulate")
    own = prompt_parts.load_part(config, job.task, "train")
    prompts = list(own.prompts)[: config.prompts.limit or None]
    prompts = prompt_parts.repeat_prompts(prompts, config.pairs.samples_per_prompt)
    rows, numbers = grid_rows(config), settings(config)
    folder = workspace.begin(config, workdir, "simulate")
    base = job.load_base()
    score = None
    if "scoring" in config.pairs.labels:
        score = letters.letter_scorer(job, base)
    sampler = generation.make_engine(
        job, config.pairs.prompt_tokens, config.pairs.reply_tokens
    )
    generation.load(sampler, base, job.mesh)
    del base  # the engine has its own copy

    def simulate(part: Sequence[records.Prompt]):
        kept, dropped, _ = grid.simulate(
            part,
            job.task,
            job.text_tokenizer,
            lambda requests: generation.generate(sampler, requests, "simulate"),
            rows=rows,
            settings=numbers,
            score=score,
        )
        return kept, dropped

    with metrics.MetricWriter(workdir, "simulate") as writer:
        kept, dropped = _by_parts(prompts, simulate, folder, config.pairs.part_prompts)
        if sampler.stats:
            writer.write(0, generation.engine_metrics(sampler))
    summary = counting.summarise(kept, dropped)
    _refuse_nothing(kept, len(prompts), summary)
    summary["prompts_in_other_parts"] = own.shared
    summary = {**summary, "seconds": time.monotonic() - started}
    logging.info("simulate: %d pairs, %d sides dropped", len(kept), len(dropped))
    return workspace.finish(config, workdir, "simulate", summary)


def grid_rows(config: ConfigDict) -> list[grid.GridCell]:
    """Return the cells of the paper's grid that a config asks for."""
    return [
        grid.GridCell(sampling=config.pairs.sampling, labels=labels, share=1.0)
        for labels in config.pairs.labels
    ]


def settings(config: ConfigDict) -> draws.DrawSettings:
    """Return the numbers of the simulation."""
    section = config.pairs
    return draws.DrawSettings(
        seed=config.seed,
        generator=config.model.spec,
        temperature=float(section.temperature),
        top_p=float(section.top_p),
        top_k=section.top_k,
        alpha=float(section.alpha),
        max_tries=section.max_tries,
        both_orders=section.both_orders,
        hard_labels=section.hard_labels,
    )


def _by_parts(
    prompts: Sequence[records.Prompt],
    simulate: Simulate,
    folder: pathlib.Path,
    part_prompts: int,
) -> tuple[list[records.Pair], list[records.Dropped]]:
    """Simulate part by part; read the parts that an earlier run has finished."""
    all_kept: list[records.Pair] = []
    all_dropped: list[records.Dropped] = []
    parts = folder / "parts"
    for start in range(0, len(prompts), part_prompts):
        kept_path = parts / f"pairs-{start:08d}.jsonl"
        dropped_path = parts / f"dropped-{start:08d}.jsonl"
        if processes.agreed(kept_path.exists()):  # written last, so the part is whole
            kept = record_files.read_jsonl(kept_path, records.Pair)
            dropped = record_files.read_jsonl(dropped_path, records.Dropped)
        else:
            leaving.leave_if_asked(f"simulate has the pairs of {start} prompts")
            kept, dropped = simulate(prompts[start : start + part_prompts])
            if processes.is_writer():
                parts.mkdir(exist_ok=True)
                record_files.write_jsonl(dropped_path, dropped)
                record_files.write_jsonl(kept_path, kept)
        all_kept += kept
        all_dropped += dropped
    if processes.is_writer():
        record_files.write_jsonl(folder / "dropped.jsonl", all_dropped)
        record_files.write_jsonl(folder / "pairs.jsonl", all_kept)
        for path in parts.glob("*.jsonl"):
            path.unlink()
        parts.rmdir()
    return all_kept, all_dropped


def _refuse_nothing(
    kept: Sequence[records.Pair], num_prompts: int, summary: dict[str, Any]
) -> None:
    if not kept:
        raise ValueError(
            f"no pair was made of {num_prompts} prompts; what was lost, by side: "
            f"{summary}. Raise pairs.reply_tokens, pairs.prompt_tokens or "
            "pairs.max_tries, or set pairs.cleanup='corrected'"
        )
