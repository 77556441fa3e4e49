"""What a process of a job does before its work: devices, caches, logs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# The processes of a job talk by gRPC, which would ask a site's web proxy for them.
os.environ.setdefault("grpc_proxy", "")

import jax  # noqa: E402
from absl import logging  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

import rlcd_jax  # noqa: E402
from rlcd_jax import leaving  # noqa: E402
from rlcd_jax.command_line import job_flags  # noqa: E402
from rlcd_jax.job import freed_memory, joining, logs, membership  # noqa: E402
from rlcd_jax.weights import embedded  # noqa: E402


@contextlib.contextmanager
def job(
    config: ConfigDict, workdir: str, typed: job_flags.JobFlags, **asked: str
) -> Iterator[None]:
    """Set up logging and JAX for a command, as one process of its job.

    A signal that asks the command to leave (SIGTERM, SIGHUP, SIGINT) lets it end its
    step and save; it ends with the status `joining.AGAIN` then. A second one ends it
    at once.

    Args:
      config: of the command.
      workdir: its folder.
      typed: what its flags say of the job.
      **asked: further flags that say what the command does.
    """
    logs.set_up()
    freed_memory.keep_little()
    try:
        with membership.one_of_its_job(
            config.to_dict(),
            workdir,
            asked,
            environ={**os.environ, **typed.variables},
            start_seconds=typed.start_seconds,
            lost_seconds=typed.lost_seconds,
            say=logging.info,
            end=_end,
        ):
            _set_up_jax()
            with (
                logs.compilations_shown(),
                freed_memory.compilations_given_back(),
            ):
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


def _set_up_jax() -> None:
    cache = embedded.default_cache_dir(os.environ) / "jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    logging.info(
        "rlcd_jax %s, jax %s, %d %s device(s) of kind %s, process %d of %d",
        rlcd_jax.__version__,
        jax.__version__,
        jax.device_count(),
        jax.default_backend(),
        jax.devices()[0].device_kind,
        jax.process_index(),
        jax.process_count(),
    )
