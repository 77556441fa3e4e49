"""What every command does first and last: devices, caches, logs, stages, the page."""

from __future__ import annotations

import logging as python_logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
from absl import logging  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from experiments import command  # noqa: E402
from rlcd_jax import report  # noqa: E402
from rlcd_jax.job import (
    checks,  # noqa: E402
    workspace,  # noqa: E402
)
from rlcd_jax.stages import (
    distill_context,  # noqa: E402
    evaluate_policy,  # noqa: E402
    simulate_pairs,  # noqa: E402
    train_policy,  # noqa: E402
    train_preference,  # noqa: E402
)
from rlcd_jax.weights import embedded  # noqa: E402

# noqa: E402
# noqa: E402

# noqa: E402

STAGES: dict[str, Callable[[ConfigDict, str], dict[str, Any]]] = {
    "simulate": simulate_pairs.simulate_pairs,
    "preference": train_preference.train_preference,
    "distill": distill_context.distill_context,
    "policy": train_policy.train_policy,
    "evaluate": evaluate_policy.evaluate_policy,
}


def prepare() -> None:
    """Set up JAX and logging for one command of one process of a job."""
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_ours)
    if of_many_hosts(os.environ):
        jax.distributed.initialize()
    cache = embedded.default_cache_dir(os.environ) / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    logging.info(
        "jax %s, %d %s device(s) of kind %s, process %d of %d",
        jax.__version__,
        jax.device_count(),
        jax.default_backend(),
        jax.devices()[0].device_kind,
        jax.process_index(),
        jax.process_count(),
    )


def of_many_hosts(environ: Mapping[str, str]) -> bool:
    """Say whether this process is one of a job's, by what its launcher has set.

    A coordinator by hand, SLURM, or a TPU slice of several hosts; JAX finds the rest.
    """
    tasks = environ.get("SLURM_NTASKS", "1")
    return (
        "JAX_COORDINATOR_ADDRESS" in environ
        or (tasks.isdigit() and int(tasks) > 1)
        or "," in environ.get("TPU_WORKER_HOSTNAMES", "")
    )


def _is_ours(record: python_logging.LogRecord) -> bool:
    """Keep warnings of everybody, and below that only what this project says."""
    others = any(f"/{name}/" in record.pathname for name in ("orbax", "jax"))
    return record.levelno >= python_logging.WARNING or not others


def run_stages(
    config: ConfigDict,
    workdir: str,
    stages: Sequence[str],
    preset: Mapping[str, Any] | None = None,
) -> None:
    """Run stages in their order and write the report; done ones are skipped.

    Everything that can be known before the first stage is checked before it, and
    before anything is written.

    Args:
      config: of the run.
      workdir: its folder.
      stages: names of the stages, in order.
      preset: the config before single fields were set, for the report; None finds it.
    """
    if not config.model.cache_dir:
        with config.unlocked():
            config.model.cache_dir = str(embedded.default_cache_dir(os.environ))
    checks.check_run(config, workdir, stages)
    workspace.open_run(config, workdir)
    for name in stages:
        started = time.monotonic()
        STAGES[name](config, workdir)
        logging.info("%s: %.0f seconds", name, time.monotonic() - started)
    if jax.process_index() == 0:
        page = report.write_report(
            workdir, preset=preset or command.find_preset(workdir)
        )
        logging.info("report: %s", page)
