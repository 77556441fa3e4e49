"""The stages of a run, one after the other, and the report at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import report, stages
from rlcd_jax.job import workspace
from rlcd_jax.ppo import choosing


def run_stages(
    config: ConfigDict,
    workdir: str,
    names: Sequence[str],
    *,
    cache_dir: str,
    preset: Mapping[str, Any] | None,
) -> None:
    """Run stages in their order and write the report; done ones are skipped.

    Args:
      config: of the run.
      workdir: its folder.
      names: of the stages, in order.
      cache_dir: of fetched models, where the config names none.
      preset: the config before single fields were set, for the report; None: unknown.

    Raises:
      ValueError: before anything is written, for a mistake that can be seen then.
    """
    unknown = [name for name in names if name not in stages.STAGES]
    if unknown:
        accepted = ", ".join(stages.STAGES)
        raise ValueError(f"unknown stage {unknown[0]!r}; accepted: {accepted}, all")
    if not config.model.cache_dir:
        with config.unlocked():
            config.model.cache_dir = cache_dir
    for name in names:  # refuse another config before anything is written
        workspace.finished(config, workdir, name)
    if "policy" in names:  # its mistakes would show after the longest stages
        choosing.check(config.policy)
    workspace.open_run(config, workdir)
    for name in names:
        started = time.monotonic()
        stages.STAGES[name].run(config, workdir)
        logging.info("%s: %.0f seconds", name, time.monotonic() - started)
    if jax.process_index() == 0:
        logging.info("report: %s", report.write_report(workdir, preset=preset))
