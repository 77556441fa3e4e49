"""Whether all processes of a job are there and mean the same, before it begins.

Process 0 listens at the address that JAX uses afterwards; every other process reports
there who it is and what it is about to do. Either all go on, each with an open line to
process 0 (`lifeline`), or all are refused with one text: who is missing, or in what
they differ. JAX itself would wait five minutes and end in a trace that names nobody.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlcd_jax.job import hosts

KIND = "rlcd_jax roll call 1"  # the first line of whoever is one of us
RETRY = 0.25  # seconds between two tries to reach process 0
LONGEST = 2**20  # bytes of a report
MOST_NAMED = 8  # differences in one message

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Present:
    """A job whose processes are all there and mean the same.

    Attributes:
      names: of the host of each process, as it calls itself.
      lines: open connections by process: of process 0 to all others, of the others to
        process 0.
    """

    names: tuple[str, ...]
    lines: Mapping[int, socket.socket]


def hold(
    members: hosts.Hosts,
    facts: Mapping[str, str],
    *,
    name: str,
    seconds: float,
    say: Say,
) -> Present:
    """Wait for all processes of the job and compare what they are about to do.

    Args:
      members: the processes, and which this one is.
      facts: what must be the same everywhere: names as a person knows them, and values.
      name: of this host.
      seconds: for which those that are missing are waited for.
      say: is told now and then who is waited for.

    Raises:
      ValueError: on every process that is there: some are missing, or differ.
    """
    facts = {"number of processes": str(members.count), **facts}
    own = {"kind": KIND, "index": members.index, "host": name, "facts": facts}
    if members.index:
        return _report(members, own, seconds)
    return _receive(members, own, seconds, say)


def _receive(
    members: hosts.Hosts, own: Mapping[str, Any], seconds: float, say: Say
) -> Present:
    """Hear all reports, tell everybody the verdict, and keep the lines."""
    end = time.monotonic() + seconds
    reports, lines = {0: own}, {}
    doubled: list[str] = []
    told = time.monotonic()
    with _listen(members) as server:
        while len(reports) < members.count and not doubled:
            if time.monotonic() > end:
                break
            if time.monotonic() - told > 15:
                told = time.monotonic()
                say(f"waiting for {_missing(members, reports)}")
            server.settimeout(min(1.0, max(end - time.monotonic(), 0.01)))
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            report = _hear(line, 5.0)
            if report is None or not _is_report(report):
                line.close()  # of somebody else, or cut off
                continue
            index = report["index"]
            if index in reports:
                pair = f"{reports[index]['host']} and {report['host']}"
                doubled.append(
                    f"two processes say that they are process {index} (hosts {pair}); "
                    f"give each its own {hosts.INDEX}"
                )
                index = -len(lines) - 1
            reports[index], lines[index] = report, line
    refused = "\n".join(doubled) or _verdict(members, reports, seconds)
    names = [reports[i]["host"] if i in reports else "" for i in range(members.count)]
    for line in lines.values():
        _send(line, {"refused": refused, "names": names})
    if refused:
        for line in lines.values():
            line.close()
        raise ValueError(refused)
    return Present(tuple(names), lines)


def _report(members: hosts.Hosts, own: Mapping[str, Any], seconds: float) -> Present:
    """Report to process 0 and wait for its verdict."""
    end = time.monotonic() + seconds
    host, _, port = members.coordinator.rpartition(":")
    host = host.strip("[]")
    reason = ""
    while time.monotonic() < end:
        try:
            line = socket.create_connection((host, int(port)), timeout=5)
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(RETRY)
            continue
        _send(line, own)
        # The verdict comes when all are there, at the latest when process 0 gives up.
        said = _hear(line, max(end - time.monotonic(), 0) + seconds)
        if said is None:  # not process 0 of a job, or it ended
            line.close()
            reason = "the connection was closed"
            time.sleep(RETRY)
            continue
        if said["refused"]:
            line.close()
            raise ValueError(said["refused"])
        return Present(tuple(said["names"]), {0: line})
    raise ValueError(
        f"{members.name(0)} did not answer at {members.coordinator} within "
        f"{seconds:.0f} seconds ({reason}); this is {members.name(members.index)} on "
        f"{own['host']}. Start the same command on every host, and see that the "
        "address is right and its port open"
    )


def _listen(members: hosts.Hosts) -> socket.socket:
    port = int(members.coordinator.rpartition(":")[2])
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise ValueError(
            f"process 0 cannot listen at port {port} ({error.strerror or error}), "
            f"where {members.source} puts it; is another job there? Set "
            f"{hosts.COORDINATOR}=HOST:PORT with a free port on all hosts"
        ) from error


def _verdict(
    members: hosts.Hosts, reports: Mapping[int, Mapping[str, Any]], seconds: float
) -> str:
    """Return why the job cannot begin; "": it can."""
    if len(reports) < members.count:
        there = ", ".join(f"{i} on {reports[i]['host']}" for i in sorted(reports))
        return (
            f"{_missing(members, reports)} did not come within {seconds:.0f} seconds; "
            f"there were {len(reports)} of {members.count}: {there}. See why in the "
            "output of those that are missing, and start the same command on every "
            "host"
        )
    names = dict.fromkeys(name for i in sorted(reports) for name in reports[i]["facts"])
    lines = [line for name in names if (line := _difference(name, reports))]
    if not lines:
        return ""
    more = len(lines) - MOST_NAMED
    listed = "\n  ".join(lines[:MOST_NAMED] + [f"and {more} more"] * (more > 0))
    return (
        f"the processes of this job differ:\n  {listed}\nStart the same command, with "
        "the same code and data, on every host"
    )


def _difference(name: str, reports: Mapping[int, Mapping[str, Any]]) -> str:
    """Say how a fact differs among processes; "": it does not."""
    by_value: dict[str, list[int]] = {}
    for index in sorted(reports):
        value = reports[index]["facts"].get(name, "absent")
        by_value.setdefault(value, []).append(index)
    if len(by_value) == 1:
        return ""
    shown = (
        f"{value} on {_few(indices)} ({reports[indices[0]]['host']})"
        for value, indices in by_value.items()
    )
    return f"{name}: {', '.join(shown)}"


def _missing(members: hosts.Hosts, reports: Iterable[int]) -> str:
    absent = [i for i in range(members.count) if i not in set(reports)]
    shown = ", ".join(members.name(i) for i in absent[:MOST_NAMED])
    more = len(absent) - MOST_NAMED
    return shown + (f" and {more} more" if more > 0 else "")


def _few(indices: list[int]) -> str:
    head = ", ".join(map(str, indices[:4]))
    word = "process" if len(indices) == 1 else "processes"
    return f"{word} {head}" + (", …" if len(indices) > 4 else "")


def _send(line: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message; whoever has gone is noticed elsewhere."""
    try:
        line.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return


def _is_report(said: Mapping[str, Any]) -> bool:
    """Say whether what came is a report of one of us, and a whole one.

    Its index may be beyond this job's: that the numbers of processes differ is told.
    """
    index, facts = said.get("index"), said.get("facts")
    return (
        said.get("kind") == KIND
        and type(index) is int
        and 0 < index < hosts.MOST
        and isinstance(said.get("host"), str)
        and isinstance(facts, dict)
        and all(isinstance(one, str) for one in facts.values())
    )


def _hear(line: socket.socket, seconds: float) -> dict[str, Any] | None:
    """Return the one message that comes; None: none does, or it is none of ours.

    Whole in so many seconds, however slowly it comes.
    """
    end, got = time.monotonic() + seconds, b""
    try:
        while not got.endswith(b"\n") and len(got) < LONGEST:
            line.settimeout(max(end - time.monotonic(), 0.001))
            part = line.recv(65536)
            if not part:
                return None
            got += part
        said = json.loads(got)
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
