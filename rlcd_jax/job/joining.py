"""A process becomes one of its job, and leaves it again: with all the others.

In order: the roll call, the line on which all hear what happens to one, and JAX's own
service. Whatever ends one process ends all, with one text and a stated status.
"""

from __future__ import annotations

import contextlib
import platform
import traceback
from collections.abc import Callable, Iterator, Mapping

import jax

from rlcd_jax import leaving
from rlcd_jax.job import hosts, lifeline, roll_call

# sysexits' EX_TEMPFAIL: nothing is wrong with the run; the same command goes on.
AGAIN = 75
MISTAKE = 2  # of the user; what is wrong is told
FAILED = 1  # with a trace

End = Callable[[str, int], None]


@contextlib.contextmanager
def joined(
    found: hosts.Hosts,
    facts: Mapping[str, str],
    *,
    start_seconds: float,
    lost_seconds: float,
    say: Callable[[str], None],
    end: End,
) -> Iterator[None]:
    """Be one process of a job of several, inside the context.

    Must be entered before JAX has looked for devices.

    Args:
      found: the processes, and which this one is.
      facts: what must be the same on all, by names that a person knows.
      start_seconds: for which processes that are missing are waited for.
      lost_seconds: of silence after which a process is lost.
      say: is told who is waited for.
      end: tells a person why this process ends, and ends it with a status: AGAIN when
        another process is lost, MISTAKE or FAILED as what another has died of. Called
        from a thread; must not return.

    Raises:
      ValueError: processes are missing, or differ; nothing was begun.
    """
    present = roll_call.hold(
        found, facts, name=platform.node(), seconds=start_seconds, say=say
    )
    line = lifeline.Lifeline(
        found,
        present.names,
        present.lines,
        lost_after=lost_seconds,
        lost_status=AGAIN,
        asked=leaving.ASKED,
        end=end,
    )
    line.start()
    try:
        _initialize(found, start_seconds, lost_seconds)
        yield
    except leaving.Left:
        line.close()
        jax.distributed.shutdown()
        raise
    except (ValueError, OSError) as error:
        line.fail(str(error), MISTAKE)
        end(str(error), MISTAKE)
    except jax.errors.JaxRuntimeError as error:
        # Most likely of a process that is lost; the line tells which.
        line.wait(lost_seconds + 2 * lifeline.GRACE)
        _fail(line, error, end)
    except BaseException as error:
        _fail(line, error, end)
    line.close()
    jax.distributed.shutdown()


def _initialize(found: hosts.Hosts, start_seconds: float, lost_seconds: float) -> None:
    # SIGTERM is ours; JAX's service would take it and tell nobody.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=found.coordinator,
        num_processes=found.count,
        process_id=found.index,
        local_device_ids=found.devices,
        cluster_detection_method="deactivate",  # `hosts` has looked
        initialization_timeout=round(start_seconds),
        # Later than the line, which says who and what to do.
        heartbeat_timeout_seconds=round(2 * lost_seconds) + 10,
        shutdown_timeout_seconds=round(lost_seconds) + 10,
    )


def _fail(line: lifeline.Lifeline, error: BaseException, end: End) -> None:
    text = "".join(traceback.format_exception(error))
    line.fail(traceback.format_exception_only(error)[-1].strip(), FAILED)
    end(text, FAILED)
