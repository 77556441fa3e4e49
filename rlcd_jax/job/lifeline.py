"""The line among the processes of a job: who is lost, who has failed, who must leave.

Each process holds the connection to process 0 that its roll call opened. A process that
ends closes it, however it ends, so the others know within a second; a host that is cut
off or hangs is known by its silence. Whatever happens to one is told to all, with one
text, and ends all: a collective operation would otherwise wait for ever.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rlcd_jax.job import hosts

BEAT = 1.0  # seconds between two signs of life
GRACE = 5.0  # seconds for which process 0 outlives those whom it has told to end
GO_ON = (
    "What was saved stays: start the same command on every host, and it goes on from "
    "there"
)
# jaxlib 0.10 dumps its stack as soon as it misses process 0, often before the line can
# tell; a callback of our own in its place ends in std::bad_cast.
DUMP = " (what JAX says of its distributed service, with a stack, is the same loss)"

End = Callable[[str, int], None]  # tells a person why, and ends with an exit status


class Lifeline:
    """Watches over the processes of a job in a thread of its own.

    Args:
      members: the processes, and which this one is.
      names: of their hosts.
      lines: open connections by process, as `roll_call` has left them.
      lost_after: seconds of silence after which a process is lost.
      lost_status: exit status when a process is lost.
      asked: is set when this process is asked to leave, by whom it may be.
      end: called in the thread, does not return.
    """

    def __init__(
        self,
        members: hosts.Hosts,
        names: tuple[str, ...],
        lines: Mapping[int, socket.socket],
        *,
        lost_after: float,
        lost_status: int,
        asked: threading.Event,
        end: End,
    ) -> None:
        self._own, self._names, self._lines = members.index, names, dict(lines)
        self._lost_after, self._lost_status = lost_after, lost_status
        self._asked, self._end = asked, end
        self._got = dict.fromkeys(self._lines, b"")
        self._heard = dict.fromkeys(self._lines, time.monotonic())
        self._over, self._told_to_leave = threading.Event(), False
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        for line in self._lines.values():
            line.settimeout(self._lost_after)
        self._thread.start()

    def fail(self, text: str, status: int) -> None:
        """Tell all others that this process ends, and why; they end as well."""
        self._over.set()
        self._thread.join(3 * BEAT)
        text = f"{self._name(self._own)} ended: {text}"
        self._tell({"end": text, "status": status})
        self._outlive()

    def close(self) -> None:
        """Say that this process has done all it had to do, and stop watching."""
        self._over.set()
        self._thread.join(3 * BEAT)
        self._tell({"bye": True})
        for line in self._lines.values():
            _end_sending(line)

    def wait(self, seconds: float) -> None:
        """Give the watch the time to end this process, if another one is lost."""
        self._thread.join(seconds)

    def _name(self, index: int) -> str:
        return f"process {index} (host {self._names[index]})"

    def _watch(self) -> None:
        with selectors.DefaultSelector() as ready:
            for index, line in self._lines.items():
                ready.register(line, selectors.EVENT_READ, index)
            beat = 0.0
            while not self._over.is_set():
                for key, _ in ready.select(timeout=BEAT / 4):
                    if not self._read(key.data):
                        ready.unregister(key.fileobj)
                now = time.monotonic()
                if now - beat > BEAT:
                    beat = now
                    self._tell({"beat": True})
                if self._asked.is_set() and not self._told_to_leave:
                    self._told_to_leave = True
                    if self._own:
                        self._tell({"leave": True})
                for index, heard in self._heard.items():
                    if now - heard > self._lost_after:
                        silent = f"gave no sign of life for {self._lost_after:.0f} s"
                        self._lose(index, silent)

    def _read(self, index: int) -> bool:
        """Take in what a process says; return whether it may say more."""
        try:
            part = self._lines[index].recv(65536)
        except OSError:
            part = b""
        if not part:
            if not self._over.is_set():
                self._lose(index, "is gone")
            return False
        self._heard[index] = time.monotonic()
        *whole, self._got[index] = (self._got[index] + part).split(b"\n")
        for said in map(json.loads, whole):
            if "bye" in said:
                del self._heard[index]
                return False
            if "leave" in said:
                self._asked.set()
            if "end" in said:
                self._all_end(said["end"], said["status"], besides=index)
        return True

    def _lose(self, index: int, how: str) -> None:
        text = f"{self._name(index)} {how}. {GO_ON}{'' if index else DUMP}"
        self._all_end(text, self._lost_status, besides=index)

    def _all_end(self, text: str, status: int, besides: int) -> None:
        """Tell all others and end; process 0 last, since JAX's service is with it."""
        self._tell({"end": text, "status": status}, besides=besides)
        self._over.set()
        self._outlive()
        self._end(text, status)

    def _outlive(self) -> None:
        if self._own:
            return
        end = time.monotonic() + GRACE
        for line in self._lines.values():
            try:
                line.settimeout(max(end - time.monotonic(), 0.01))
                while line.recv(65536):
                    pass
            except OSError:
                continue

    def _tell(self, message: Mapping[str, Any], besides: int | None = None) -> None:
        text = json.dumps(message).encode() + b"\n"
        with self._sending:
            for index, line in self._lines.items():
                if index == besides:
                    continue
                try:
                    line.sendall(text)
                except OSError:
                    continue  # that it is gone shows when it is read


def _end_sending(line: socket.socket) -> None:
    """Close one direction of a line, and take in what has come by the other.

    A socket that is closed while something in it is unread resets the connection, and
    the other side may lose what was said last.
    """
    try:
        line.shutdown(socket.SHUT_WR)
        line.setblocking(False)
        while line.recv(65536):
            pass
    except OSError:
        return  # nothing more is there, or the other side is gone
