"""What a process of a job does before its work: devices, caches, logs."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
from absl import logging  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from rlcd_jax import leaving  # noqa: E402
from rlcd_jax.command_line import job_flags  # noqa: E402
from rlcd_jax.job import facts, hosts, joining, signals, tpu_metadata  # noqa: E402
from rlcd_jax.weights import embedded  # noqa: E402


@contextlib.contextmanager
def job(
    config: ConfigDict, workdir: str, given: job_flags.JobFlags, **asked: str
) -> Iterator[None]:
    """Set up logging and JAX for a command, as one process of its job.

    A signal that asks the command to leave (SIGTERM, SIGHUP, SIGINT) lets it end its
    step and save; it ends with the status `joining.AGAIN` then. A second one ends it
    at once.

    Args:
      config: of the command.
      workdir: its folder.
      given: what its flags say of the job.
      **asked: further flags that say what the command does.
    """
    _set_up_logs()
    found = hosts.find({**tpu_metadata.beside(os.environ), **given.variables})
    together: contextlib.AbstractContextManager = contextlib.nullcontext()
    if found:
        own = found.name(found.index)
        logging.info("%s of %d, by %s", own, found.count, found.source)
        together = joining.joined(
            found,
            facts.gather(config.to_dict(), workdir, asked),
            start_seconds=given.start_seconds,
            lost_seconds=given.lost_seconds,
            say=logging.info,
            end=_end,
        )
    with signals.heard(logging.info):
        try:
            with together:
                _set_up_jax()
                yield
        except leaving.Left as left:
            sys.stderr.write(f"asked to leave: {left}; the same command goes on\n")
            sys.exit(joining.AGAIN)


def _end(text: str, status: int) -> None:
    """End this process although others, or its own threads, may hang."""
    sys.stderr.write(f"error: {text}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(status)


def _set_up_logs() -> None:
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_is_ours)


def _set_up_jax() -> None:
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
