"""The one rule of where files may lie: on this machine, or mounted on it.

Files of a run are renamed, locked and appended to, which buckets do not do. So a bucket
is refused wherever a path is taken, before anything is made; `pathlib` would take
`gs://bucket/run` for a new folder called `gs:`.
"""

from __future__ import annotations

import os
import pathlib
import re

# pathlib leaves one slash of two; a drive of Windows has one letter.
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
ACCEPTED = "a local path, or one of a bucket that is mounted (gcsfuse)"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is an address such as gs://bucket/run."""
    return bool(_REMOTE.match(os.fspath(path)))


def check(path: str | os.PathLike[str], what: str) -> pathlib.Path:
    """Return a path of this machine.

    Args:
      path: of a file or folder, which need not exist.
      what: it is, for the message.

    Raises:
      ValueError: it is an address of another place.
    """
    if is_remote(path):
        raise ValueError(
            f"{what} {os.fspath(path)!r} is an address; accepted: {ACCEPTED}"
        )
    return pathlib.Path(path)
