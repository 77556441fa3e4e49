"""What a process of a job does before its work: devices, caches, logs."""

from __future__ import annotations

import logging as python_logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
from absl import logging  # noqa: E402

from rlcd_jax.job import hosts  # noqa: E402
from rlcd_jax.weights import embedded  # noqa: E402


def prepare() -> None:
    """Set up JAX and logging for one command of one process of a job."""
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_ours)
    if hosts.of_many_hosts(os.environ):
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


def _is_ours(record: python_logging.LogRecord) -> bool:
    """Keep warnings of everybody, and below that only what this project says."""
    others = any(f"/{name}/" in record.pathname for name in ("orbax", "jax"))
    return record.levelno >= python_logging.WARNING or not others
