"""What a process of a job does before its work: devices, caches, logs."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
from absl import logging  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from rlcd_jax import leaving  # noqa: E402
from rlcd_jax.command_line import job_flags  # noqa: E402
from rlcd_jax.job import facts, hosts, joining  # noqa: E402
from rlcd_jax.weights import embedded  # noqa: E402

ONE_SIGNAL = 2.0  # seconds in which several signals are one
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


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
    found = hosts.find(_variables() | given.variables)
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
    handle = _leave_when_asked()
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        with together:
            _set_up_jax()
            yield
    except leaving.Left as left:
        sys.stderr.write(f"asked to leave: {left}; the same command goes on\n")
        sys.exit(joining.AGAIN)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _variables() -> dict[str, str]:
    """Return the environment, with what the metadata of a TPU VM say."""
    found = dict(os.environ)
    on_tpu = any(pathlib.Path(path).exists() for path in TPU_DEVICES)
    if on_tpu and not {"TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES"} & found.keys():
        found = hosts.from_metadata(hosts.read_metadata) | found
    return found


def _leave_when_asked() -> Callable[[int, Any], None]:
    """Return a handler: the first signal asks to leave, a later one ends at once.

    Launchers send one to a process and to its group: at the same time, they are one.
    """
    asked_at: list[float] = []

    def handle(number: int, frame: Any) -> None:
        del frame
        if not asked_at:
            asked_at.append(time.monotonic())
            leaving.ASKED.set()
            name = signal.Signals(number).name
            logging.info("%s: leaving after this step; once more ends at once", name)
        elif time.monotonic() - asked_at[0] > ONE_SIGNAL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle


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
