"""A lock that processes of one host, or of several, take on a file.

The kernel keeps it (flock), so it is free again when its process ends, however that
ends; on NFS, GPFS and Lustre it holds across hosts. A file system may be mounted so
that each host has its own: therefore the holder also writes who it is into the file
and touches it every few seconds. Who finds the file free but the name of another host
in it waits until there has been no touch for long enough, and takes over. Clocks of
hosts are never compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

BEAT = 15.0  # seconds between two touches
STALE = 120.0  # seconds without a touch after which a holder elsewhere is dead
LONGEST = 1000  # characters of a holder
POLL = 0.5  # seconds between two tries

Say = Callable[[str], None]


@contextlib.contextmanager
def held(
    path: str | os.PathLike[str],
    say: Say,
    *,
    beat: float = BEAT,
    stale: float = STALE,
    refuse: str = "",
) -> Iterator[None]:
    """Hold the lock of a file; wait for it as long as somebody else has it.

    The file stays, empty, when the lock is given back.

    Args:
      path: of the file; it and its folder are made when absent.
      say: told who is waited for, and whose lock was left behind.
      beat: seconds between two touches.
      stale: seconds without a touch after which a holder on another host is dead.
      refuse: what somebody else is doing who has it, in words: then it is not waited
        for, but for the time in which a dead holder is told from one that lives.

    Raises:
      ValueError: the file system has no locks, or the lock is another's and `refuse`
        is given.
    """
    place = pathlib.Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(place, say, stale, refuse)
    over = threading.Event()
    beats = threading.Thread(target=_beat, args=(file, beat, over), daemon=True)
    try:
        _write(file, f"{json.dumps(_me())}\n")
        beats.start()
        yield
    finally:
        over.set()
        if beats.ident is not None:
            beats.join()
        _write(file, "")
        file.close()  # gives the kernel's lock back


def _me() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"host": platform.node(), "pid": os.getpid(), "since": since}


def _acquire(path: pathlib.Path, say: Say, stale: float, refuse: str) -> TextIO:
    """Return the open file once its lock is ours."""
    told, touched, since, looks = "", 0, time.monotonic(), 0
    while True:
        # Opened anew: NFS then looks again.
        file = open(path, "a+", encoding="utf-8", errors="replace")
        free = _try(file, path)
        holder = _read(file)
        if free and (not holder or _host(holder) == platform.node()):
            if holder:
                say(f"{path} was left behind by {holder}; it is taken over")
            return file
        about = os.fstat(file.fileno()).st_mtime_ns
        if about != touched:
            touched, since, looks = about, time.monotonic(), looks + 1
        if refuse and (not free or looks > 1):  # it is held, or was touched meanwhile
            file.close()
            raise ValueError(
                f"{refuse} by {holder or 'another process'} ({path}); wait for it, end "
                "it, or choose another folder"
            )
        if free and time.monotonic() - since > stale:
            say(f"{path}: no sign of {holder} for {stale:.0f} seconds; taken over")
            return file
        file.close()
        if holder != told:
            told = holder
            say(f"waiting for {path}, held by {holder or 'another process'}")
        time.sleep(min(POLL, stale))


def _try(file: TextIO, path: pathlib.Path) -> bool:
    """Take the kernel's lock if it is free, and say whether it was."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        raise ValueError(
            f"{path} cannot be locked ({error.strerror or error}): its file system "
            "has no locks; mount it with them (Lustre: -o flock), or use another folder"
        ) from error
    return True


def _read(file: TextIO) -> str:
    """Return who holds the lock, in words; "": nobody."""
    file.seek(0)
    text = file.read(LONGEST)
    try:
        holder = json.loads(text) if text.strip() else {}
        return f"pid {holder['pid']} of {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # half written: its holder has the kernel's lock, or is dead


def _host(holder: str) -> str:
    return holder.partition(" of ")[2].rpartition(" since ")[0]


def _write(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _beat(file: TextIO, seconds: float, over: threading.Event) -> None:
    """Touch the file now and then, so that others see that its holder lives."""
    while not over.wait(seconds):
        os.utime(file.fileno())
