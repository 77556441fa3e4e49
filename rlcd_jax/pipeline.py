"""The stages of a run, one after the other, and the report at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import (
    checkpoint,
    done_mark,
    leaving,
    outages,
    processes,
    report,
    retention,
    stages,
)
from rlcd_jax.checks import refusals
from rlcd_jax.job import freed_memory, profiling, trainer, watchdog, workspace
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.pairs import work_parts
from rlcd_jax.stages import simulate_pairs


def run_stages(
    config: ConfigDict,
    workdir: str,
    names: Sequence[str],
    *,
    cache_dir: str,
    preset: Mapping[str, Any] | None,
    part: str = "",
    profile: profiling.Wanted | None = None,
    api_key: str | None = None,
) -> None:
    """Run stages in their order and write the report; done ones are skipped.

    Everything that can be known before the first stage is checked before it, and
    before anything is written.

    Args:
      config: of the run.
      workdir: its folder.
      names: of the stages, in order.
      cache_dir: of fetched models, where the config names none.
      preset: the config before single fields were set, for the report; None: unknown.
      part: "K/N": of the simulation, which is the only stage then; "": all.
      profile: of which stage's steps a trace is left; None: of none.
      api_key: of a judge behind an interface; None: there is none.

    Raises:
      ValueError: for all mistakes that can be seen before anything is written.
    """
    if not config.model.cache_dir:
        with config.unlocked():
            config.model.cache_dir = cache_dir
    own = _read_part(part, names) if part else None
    with contextlib.ExitStack() as held:
        held.enter_context(api_settings.using(api_key))
        refusals.check_run(config, workdir, names)
        if own is None:
            held.enter_context(workspace.only_writer(workdir))
        else:
            processes.by_writer(lambda: workspace.refuse_if_written(workdir))
        workspace.open_run(config, workdir)
        workspace.check_shared(workdir)
        held.enter_context(watchdog.watching(workdir, config.stall_minutes))
        _run(config, workdir, names, own, preset, profile)


def _run(
    config: ConfigDict,
    workdir: str,
    names: Sequence[str],
    own: work_parts.WorkPart | None,
    preset: Mapping[str, Any] | None,
    profile: profiling.Wanted | None,
) -> None:
    """Run stages, in a folder that is ours, of a config that was checked."""
    _drop_moments(config, workdir)
    for name in names:
        leaving.leave_if_asked(f"{name} is not begun")
        started = time.monotonic()
        traced = profiling.PROCESS.stage(name, profile, workdir)
        with outages.told(f"stage {name}"), traced:
            if own is None:
                stages.STAGES[name].run(config, workdir)
            elif simulate_pairs.simulate_part(config, workdir, own) is None:
                logging.info("part %s is whole; the others are not yet", own)
                return
        logging.info("%s: %.0f seconds", name, time.monotonic() - started)
        _drop_moments(config, workdir)
        freed_memory.forget_programs()
    if processes.is_writer():
        with outages.told("the report"):
            logging.info("report: %s", report.write_report(workdir, preset=preset))
    processes.barrier("the report is written")


def _drop_moments(config: ConfigDict, workdir: str) -> None:
    """Delete the optimizer's moments of all stages that are done, unless kept.

    Of all, and at every start: a run may have been killed after a mark, or in between.
    """
    if config.keep_moments:
        return
    for name in stages.STAGES if processes.is_writer() else ():
        folder = workspace.stage_folder(workdir, name)
        if (folder / done_mark.DONE).exists():
            if stages.STAGES[name].supervised:  # nothing reads what was before the end
                best = done_mark.read_summary(folder).get(retention.SUMMARY, {})
                checkpoint.keep_latest(folder / "checkpoints", [best.get("step")])
            trainer.drop_moments(folder / "checkpoints")
    processes.barrier("moments of finished stages are deleted")


def _read_part(part: str, names: Sequence[str]) -> work_parts.WorkPart:
    """Return the part of the simulation that is asked for."""
    if tuple(names) != ("simulate",):
        raise ValueError(
            f"--part={part} is a part of the stage simulate, and the stages asked for "
            f"are {', '.join(names)}; add --stage=simulate"
        )
    return work_parts.read(part)
