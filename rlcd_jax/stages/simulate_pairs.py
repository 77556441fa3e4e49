"""Stage 1: prompts become preference pairs.

Leaves `pairs/pairs.jsonl` (one Pair a line with its whole provenance),
`pairs/dropped.jsonl` (each side without an acceptable reply, its raw texts too),
`pairs/filtered.jsonl` (pairs that were left out by their scores, where a rule asks for
it) and `pairs/summary.json`. Prompts are taken block by block; a finished block is on
disk, so a killed run goes on where it was. Since a sample depends on its request alone,
blocks can be drawn by any number of processes, together or one by one, in parts k of n:
the last puts them together, and the files are the bytes of a run in one piece.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import (
    done_mark,
    leaving,
    locks,
    metrics,
    phases,
    processes,
    record_files,
    records,
)
from rlcd_jax.job import (
    disk_notes,
    generation,
    lengths,
    prompt_parts,
    roles,
    setup,
    workspace,
)
from rlcd_jax.pairs import (
    blocks,
    counting,
    cut_counts,
    draws,
    filtering,
    grid,
    scored_labels,
    work_parts,
)
from rlcd_jax.preference import human_shots
from rlcd_jax.scoring import letters, votes

Draw = Callable[[Sequence[records.Prompt]], blocks.Drawn]


def simulate_pairs(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Draw and label the pairs of a run.

    Args:
      config: of the run; sections `pairs`, `prompts`, `model`, `engine`.
      workdir: folder of the run.

    Returns:
      The summary: counts, tries and drops a side, mean lengths.

    Raises:
      ValueError: parts of this simulation were begun and some are not whole; they are
        listed. Asking for part 1/1 draws what they lack.
    """
    if workspace.finished(config, workdir, "simulate"):
        return _done_before(workdir)
    folder = workspace.stage_folder(workdir, "simulate")

    def lacks() -> list[str]:
        known = blocks.begun(folder)
        return blocks.missing(folder, block_places(config)) if known else []

    if lacking := processes.by_writer(lacks):
        listed = "\n  ".join(lacking)
        raise ValueError(
            f"{folder} is drawn in parts, and these are not whole:\n  {listed}\n"
            "Start them (again) with --stage=simulate --part=K/N and this command "
            "after them, or draw here all that they lack with --part=1/1"
        )
    summary = simulate_part(config, workdir, work_parts.WHOLE)
    assert summary is not None, "the part is the whole"
    return summary


def simulate_part(
    config: ConfigDict, workdir: str | pathlib.Path, part: work_parts.WorkPart
) -> dict[str, Any] | None:
    """Draw one part of the pairs of a run; put all together if this was the last.

    Parts of one run may be drawn at once, by processes that share nothing but the
    folder.

    Args:
      config: of the run.
      workdir: its folder.
      part: which blocks of prompts are drawn.

    Returns:
      The summary of the stage if it is whole now, else None.
    """
    if workspace.finished(config, workdir, "simulate"):
        return _done_before(workdir)
    own = setup.own_devices(config)
    job = setup.load_job(config, own, role=roles.GENERATOR)
    lengths.check(job, "simulate")
    prompts, shared = run_prompts(config)
    places = blocks.starts(len(prompts), config.pairs.part_prompts)
    blocks.check_part(part, len(places))
    folder = workspace.begin(config, workdir, "simulate")
    notes = disk_notes.DiskNotes(*blocks.notes_of(folder, part))

    def find_waiting() -> list[int]:
        notes.clear()
        return _waiting(config, folder, part.of(places))

    with contextlib.ExitStack() as held:
        if processes.is_writer():  # a second job of this part waits, and skips
            held.enter_context(locks.held(blocks.lock_path(folder, part), logging.info))
        waiting = processes.by_writer(find_waiting)
        if waiting and own:
            _draw_apart(job, prompts, folder, waiting, notes)
            left = processes.by_writer(lambda: _waiting(config, folder, waiting))
            if left:
                told = f"{len(left)} of {len(waiting)} blocks are not drawn yet"
                raise leaving.Left(told)
        elif waiting:
            _draw_together(job, prompts, folder, waiting)

    def put_together() -> dict[str, Any] | None:
        with locks.held(folder / blocks.LOCK, logging.info):
            return _put_together(config, workdir, prompts, shared)

    return processes.by_writer(put_together)


def _done_before(workdir: str | pathlib.Path) -> dict[str, Any]:
    """Return the summary of the stage, which is done.

    A run that was killed between the mark and the end has left blocks.
    """
    if processes.is_writer():
        blocks.remove(workspace.stage_folder(workdir, "simulate"))
    return workspace.summary(workdir, "simulate")


def block_places(config: ConfigDict) -> Sequence[int]:
    """Return where the blocks of a run begin, by the number of the first prompt."""
    return blocks.starts(len(run_prompts(config)[0]), config.pairs.part_prompts)


def run_prompts(config: ConfigDict) -> tuple[list[records.Prompt], int]:
    """Return a run's prompts, each as often as it is drawn; how many others have."""
    own = prompt_parts.load_part(config, setup.load_task(config), "train")
    prompts = list(own.prompts)[: config.prompts.limit or None]
    times = config.pairs.samples_per_prompt
    return prompt_parts.repeat_prompts(prompts, times), own.shared


def _waiting(
    config: ConfigDict, folder: pathlib.Path, places: Sequence[int]
) -> list[int]:
    """Return which blocks are still to be drawn; none of a stage that is done."""
    if done_mark.check_done(folder, workspace.stage_config(config, "simulate")):
        return []
    return [start for start in places if not blocks.is_whole(folder, start)]


def _draw_together(
    job: setup.Job,
    prompts: Sequence[records.Prompt],
    folder: pathlib.Path,
    places: Sequence[int],
) -> None:
    """Draw blocks with all processes of the job, and write each when it is whole."""
    draw, size = drawer(job), job.config.pairs.part_prompts
    for number, start in enumerate(places, start=1):
        leaving.leave_if_asked(f"{number - 1} of {len(places)} blocks are drawn")
        logging.info("simulate: block %d of %d", number, len(places))
        drawn = draw(prompts[start : start + size])
        if processes.is_writer():
            blocks.write(folder, start, drawn)


def _draw_apart(
    job: setup.Job,
    prompts: Sequence[records.Prompt],
    folder: pathlib.Path,
    places: Sequence[int],
    notes: disk_notes.DiskNotes,
) -> None:
    """Draw this process's part of blocks; return when all processes have theirs.

    Or when the job was asked to leave: then some blocks are not there.
    """
    index, count = jax.process_index(), jax.process_count()
    own = work_parts.WHOLE.within(index, count).of(places)
    told = "simulate: process %d of %d draws %d of %d blocks"
    logging.info(told, index, count, len(own), len(places))
    size = job.config.pairs.part_prompts
    if own:
        draw = drawer(job)
        for start in own:
            if notes.is_leaving():
                break
            blocks.write(folder, start, draw(prompts[start : start + size]))
    notes.wait_for_all()


def drawer(job: setup.Job) -> Draw:
    """Return what draws and labels the pairs of a block, its engine loaded.

    Args:
      job: of the stage, with the generator.
    """
    config = job.config
    rows, shots = grid_rows(config), ""
    rules, score = grid.rules_of(config.pairs), None
    asks, own = grid.asks(config.pairs), job.is_model_of(roles.SCORER)
    if asks:
        shots = human_shots.of_run(job)
        lengths.check(job, "simulate", shots=shots)
    numbers = settings(config, shots)
    if asks and not own:  # before the generator: one float32 model at a time
        other = job.of(roles.SCORER)
        base = other.load_base()
        score = scorer(other, base, shots)
        del base
    base = job.load_base()
    if asks and own:
        score = scorer(job, base, shots)
    sampler = generation.make_engine(
        job, config.pairs.prompt_tokens, config.pairs.reply_tokens
    )
    generation.load(sampler, base, job.mesh)
    del base  # the engine has its own copy

    def draw(prompts: Sequence[records.Prompt]) -> blocks.Drawn:
        phases.begin()
        calls: list[Mapping[str, float]] = []

        def generate(requests):
            replies = generation.generate(sampler, requests, "simulate")
            calls.append(generation.engine_metrics(sampler))
            return replies

        kept, dropped, told = grid.simulate(
            prompts,
            job.task,
            job.text_tokenizer,
            generate,
            rows=rows,
            settings=numbers,
            score=score,
            score_all=rules.asks,
        )
        kept, filtered = filtering.part(kept, rules)
        figures = generation.add_metrics(calls)
        figures |= phases.take()
        cut = told[cut_counts.SUMMARY]["replies"]
        figures |= cut_counts.as_metrics("simulate", cut)
        return blocks.Drawn(kept, dropped, figures, filtered)

    return draw


def scorer(job: setup.Job, params: Any, shots: str) -> grid.Score:
    """Return what answers the questions about pairs: by letters, or by votes.

    Args:
      job: of the stage.
      params: of the model that is asked.
      shots: text of the solved examples that the questions begin with.
    """
    if job.config.pairs.votes:
        score = votes.vote_scorer(job, params, shots)
    else:
        score = letters.letter_scorer(job, params, job.config.pairs.letters)
    return lambda texts: phases.within("score", score, texts)


def _put_together(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    prompts: Sequence[records.Prompt],
    shared: int,
) -> dict[str, Any] | None:
    """Write the stage's files of its blocks if all are there; return the summary.

    The writer's, and nobody waits in it for another process.
    """
    folder = workspace.stage_folder(workdir, "simulate")
    if done_mark.check_done(folder, workspace.stage_config(config, "simulate")):
        blocks.remove(folder)  # what a part has left that was drawn twice
        return done_mark.read_summary(folder)
    places = blocks.starts(len(prompts), config.pairs.part_prompts)
    left = sum(not blocks.is_whole(folder, start) for start in places)
    if left:
        told = "simulate: %d of %d blocks are still to be drawn by other parts"
        logging.info(told, left, len(places))
        return None
    drawn = blocks.read(folder, places)
    summary = counting.summarise(drawn.pairs, drawn.dropped)
    cut = {"replies": cut_counts.from_metrics("simulate", drawn.figures)}
    summary[cut_counts.SUMMARY] = cut
    filters = grid.rules_of(config.pairs).asks
    if filters:
        summary["filtered"] = filtering.count(drawn.filtered)
    _refuse_nothing(drawn.pairs, len(prompts), summary)
    summary["prompts_in_other_parts"] = shared
    record_files.write_jsonl(folder / "dropped.jsonl", drawn.dropped)
    if filters:
        record_files.write_jsonl(folder / "filtered.jsonl", drawn.filtered)
        told = "simulate: left out by their scores: %s"
        logging.info(told, filtering.said(summary["filtered"]) or "no pair")
    record_files.write_jsonl(folder / "pairs.jsonl", drawn.pairs)
    names = config.trackers
    with metrics.MetricWriter(workdir, "simulate", names=names) as writer:
        writer.write(0, generation.with_rates(drawn.figures))
    cut_counts.note("simulate", cut)
    told = "simulate: %d pairs, %d sides dropped"
    logging.info(told, len(drawn.pairs), len(drawn.dropped))
    for name, cell in summary["cells"].items():
        if told := scored_labels.said_of_votes(cell.get("votes", {})):
            logging.warning("simulate: %s: %s", name, told)
    if fewer := summary["prompts_with_fewer_replies"]:
        told = "simulate: %d draws have fewer than %d replies, and pairs of those"
        logging.warning(told, fewer, config.pairs.samples)
    workspace.write_done(config, workdir, "simulate", summary)
    blocks.remove(folder)  # only now: without the mark they would be drawn again
    return summary


def grid_rows(config: ConfigDict) -> list[grid.GridCell]:
    """Return the cells of the paper's grid that a config asks for."""
    return grid.cells_of(config.pairs)


def settings(config: ConfigDict, shots: str = "") -> draws.DrawSettings:
    """Return the numbers of the simulation, and the solved examples of its questions.

    Args:
      config: of the run.
      shots: their text.
    """
    section = config.pairs
    return draws.DrawSettings(
        seed=config.seed,
        generator=roles.spec_of(config.model, roles.GENERATOR),
        samples=section.samples,
        temperature=float(section.temperature),
        top_p=float(section.top_p),
        top_k=section.top_k,
        alpha=float(section.alpha),
        max_tries=section.max_tries,
        asking=scored_labels.Asking(
            both_orders=section.both_orders,
            instructions=section.instructions,
            shots=shots,
            words=section.votes > 0,
        ),
        hard_labels=section.hard_labels,
        forbidden=section.forbidden,
    )


def _refuse_nothing(
    kept: Sequence[records.Pair], num_prompts: int, summary: dict[str, Any]
) -> None:
    if not kept:
        raise ValueError(
            f"no pair was made of {num_prompts} prompts; what was lost, by side: "
            f"{summary}. Raise pairs.reply_tokens, pairs.prompt_tokens or "
            "pairs.max_tries, set pairs.cleanup='corrected', or leave out less by "
            "score: pairs.min_margin, pairs.drop_disagreeing"
        )
