"""The room on disk that a run's checkpoints need, by the code that writes them."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from absl import logging

from rlcd_jax.checks import supplies
from rlcd_jax.job import setup, trainer, workspace
from rlcd_jax.ppo import choosing, frozen_files, learning
from rlcd_jax.stages import STAGES

GIB = 2**30
UPDATES = 1000  # of a training; the schedule has no part in the sizes


@dataclasses.dataclass(frozen=True)
class Room:
    """Bytes of checkpoints before Orbax packs them, which saves some percent.

    And of the files that the models lie in which PPO only reads, while it runs.

    Attributes:
      peak: the most that is there at once.
      after: what is there when the run is done.
    """

    peak: int
    after: int


def room(job: setup.Job, names: Sequence[str]) -> Room:
    """Return the room that a run needs, of which nothing is on disk yet.

    Args:
      job: of the run, with any of its models; its mesh may have no devices.
      names: of the stages that are run, in order.
    """
    peak = before = 0
    for name in names:
        if not STAGES[name].batch:
            continue
        own = _stage_room(job.of(STAGES[name].roles[0]), name)
        peak = max(peak, before + own.peak)
        before += own.after
    return Room(peak, before)


def problems(look: supplies.Look) -> Iterator[str]:
    """Yield that the disk has no room for the run's checkpoints; say their size."""
    if look.workdir is None:
        return
    workdir = pathlib.Path(look.workdir)
    there = sum(
        path.stat().st_size
        for stage in look.left
        for kept in (choosing.CHECKPOINTS, choosing.CHOSEN)
        for path in (look.folder(stage) / kept).rglob("*")
        if path.is_file()
    )
    needed = room(look.job, look.left)
    free = shutil.disk_usage(workspace.nearest_folder(workdir)).free
    if needed.peak:
        told = "checkpoints: up to %.2f GiB at once, %.2f when done; %.1f are free"
        logging.info(told, *(n / GIB for n in (needed.peak, needed.after, free)))
    if needed.peak - there > free:
        yield (
            f"the checkpoints of {', '.join(look.left)} take up to "
            f"{needed.peak / GIB:.1f} GiB, {there / GIB:.1f} of which are there, and "
            f"the disk of {workdir} has {free / GIB:.1f} GiB free; make room, or "
            "choose a workdir on a larger disk"
        )


def _stage_room(job: setup.Job, name: str) -> Room:
    """Return the room of one stage.

    A checkpoint is written before the oldest goes, so there is one more for a while.
    """
    stage = STAGES[name]
    if stage.supervised:
        saved = stage.load().make_trainer(job, UPDATES).saved_bytes
    else:
        saved = learning.make_trainer(job).saved_bytes
    whole = sum(saved.values())
    stays = whole - (0 if job.config.keep_moments else saved[trainer.OPTIMIZER])
    section = job.config[name]
    best = bool(section.get("keep_best", ""))
    kept = job.config.keep_checkpoints + best
    if stage.supervised:
        # How many updates there are is known when the pairs are drawn.
        # Of the steps before the last, the best alone is kept without its moments.
        after = (kept if job.config.keep_moments else 1 + best) * stays
        return Room((kept + 1) * whole, after)
    steps = range(1, learning.last_step(section) + 1)
    saves = sum(learning.is_saved(section, step) for step in steps)
    peak = min(saves, kept + 1) * whole + frozen_files.parked_bytes(job)
    after = min(saves, kept) * stays
    if section.choose == choosing.DEV_SCORE:
        chosen = saved[choosing.ITEM]
        return Room(peak + min(saves, choosing.KEPT) * chosen, after + chosen)
    return Room(peak, after)
