"""A process becomes one of its job, and leaves it again: with all the others.

In order: the roll call, the line on which all hear what happens to one, and JAX's own
service. Whatever ends one process ends all, with one text and a stated status.
"""

from __future__ import annotations

import contextlib
import platform
import re
import traceback
from collections.abc import Callable, Iterator, Mapping

import jax

from rlcd_jax import leaving, processes
from rlcd_jax.job import hosts, lifeline, roll_call

# sysexits' EX_TEMPFAIL: nothing is wrong with the run; the same command goes on.
AGAIN = 75
AN_AGE = 7 * 24 * 3600.0  # seconds
MISTAKE = 2  # of the user; what is wrong is told
FAILED = 1  # with a trace

End = Callable[[str, int], None]


@contextlib.contextmanager
def joined(
    members: hosts.Hosts,
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
      members: the processes, and which this one is.
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
        members, facts, name=platform.node(), seconds=start_seconds, say=say
    )
    line = lifeline.Lifeline(
        members,
        present.names,
        present.lines,
        lost_after=lost_seconds,
        lost_status=AGAIN,
        asked=leaving.ASKED,
        end=end,
    )
    line.start()
    try:
        _initialize(members, start_seconds, lost_seconds)
        _check_devices()
        yield
    except leaving.Left:
        _leave(line)
        raise
    except BaseException as error:
        if _is_of_jax(error):
            # Most likely of a process that is lost; the line tells which, and ends us.
            line.wait(lost_seconds + 2 * lifeline.GRACE)
        if isinstance(error, ValueError | OSError) and not _is_of_jax(error):
            text = shown = str(error)
            status = MISTAKE
        else:
            text = traceback.format_exception_only(error)[-1].strip()
            shown = "".join(traceback.format_exception(error))
            status = FAILED
        line.fail(text, status)
        end(shown, status)
        raise
    _leave(line)


def _leave(line: lifeline.Lifeline) -> None:
    """Leave the job when all others do too; the line watches over them until then.

    JAX's own end of a job waits for as long as a lost process is waited for, and one
    that writes the report, or is busy, may take longer.
    """
    processes.met("every process is done", AN_AGE)
    line.close()
    jax.distributed.shutdown()


def _initialize(
    members: hosts.Hosts, start_seconds: float, lost_seconds: float
) -> None:
    # SIGTERM is ours; JAX's service would take it and tell nobody.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator_address=members.coordinator,
        num_processes=members.count,
        process_id=members.index,
        local_device_ids=members.devices,
        cluster_detection_method="deactivate",  # `hosts` has looked
        initialization_timeout=round(start_seconds),
        # Later than the line, which says who and what to do.
        heartbeat_timeout_seconds=round(2 * lost_seconds) + 10,
        shutdown_timeout_seconds=round(lost_seconds) + 10,
    )


def _check_devices() -> None:
    """Refuse devices of several kinds: the same program would differ in its digits."""
    kinds: dict[str, list[int]] = {}
    for device in jax.devices():
        kinds.setdefault(device.device_kind, []).append(device.process_index)
    if len(kinds) > 1:
        listed = ", ".join(
            f"{kind} on processes {sorted(set(where))}" for kind, where in kinds.items()
        )
        raise ValueError(
            f"the devices of this job are of several kinds: {listed}; give it hosts of "
            "one kind"
        )


def _is_of_jax(error: BaseException) -> bool:
    """Say whether an error comes from the runtime; some come as a ValueError."""
    status = re.match(r"[A-Z_]+: ", str(error))  # such as "UNKNOWN: Gloo …"
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(status)
