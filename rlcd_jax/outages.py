"""What the machine refuses amid a run, told as one message with what to do.

A full disk, a read-only folder or a lost server is no mistake of a config: what is
saved stays, and the same command goes on. Libraries tell it as errors of their own
kinds, so that the words count, and not the class alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

# How the system says it, and what to do.
REMEDIES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or ask for a larger quota",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "make the folder writable for this user",
    errno.EPERM: "make the folder writable for this user",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "look at the disk",
    errno.ENOENT: "see who removes files of the run",
    errno.ESTALE: "mount the file system again",
    errno.ECONNREFUSED: "start the server again",
    errno.ECONNRESET: "start the server again",
}
_WORDS = {os.strerror(code): code for code in REMEDIES}
_KNOWN = re.compile("|".join(map(re.escape, _WORDS)))


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the machine refuses inside into a ValueError of one line.

    Args:
      what: is done, in words, for the message.

    Raises:
      ValueError: with the reason, the place and what to do.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if not reason:
            raise
        raise ValueError(
            f"{what} stopped: {reason}; what is saved stays, and the same command goes "
            "on"
        ) from error


def _reason(error: BaseException) -> str:
    """Return what the machine says, where, and what to do; "" if it says nothing."""
    if isinstance(error, OSError):
        code, said = error.errno, error.strerror or str(error)
        place = f" ({error.filename})" if error.filename else ""
        remedy = REMEDIES.get(code or 0, "mend it")
        return f"{said}{place}; {remedy}"
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        if len(str(error)) < 1000 and "\n" not in str(error):
            return ""  # a message of our own
    found = _KNOWN.search(str(error))
    return f"{found[0]}; {REMEDIES[_WORDS[found[0]]]}" if found else ""
