"""How many memory maps a process holds, and dropping compiled programs before the last.

On a CPU each compiled program takes about ten maps, and Linux gives a process 65,530
by default. Whoever asks for one more gets none, and the compiler then ends the process
without a word. A run of its own is far below; a table of many runs, or a suite of
tests, in one process is not.
"""

import gc
import pathlib

import jax
from absl import logging

_OWN = pathlib.Path("/proc/self/maps")
_MOST = pathlib.Path("/proc/sys/vm/max_map_count")
# Of the system's limit: no single run of ours has come near the rest.
_SHARE = 0.4


def drop_programs_if_many(share: float = _SHARE) -> bool:
    """Drop all compiled programs if a share of the memory maps is in use.

    What is used again is compiled again, or read from the compile cache. Nothing is
    done where the system does not tell (macOS).

    Args:
      share: of the system's limit.

    Returns:
      whether they were dropped.
    """
    try:
        held = _OWN.read_bytes().count(b"\n")
        most = int(_MOST.read_text())
    except (OSError, ValueError):
        return False
    if held < share * most:
        return False
    jax.clear_caches()
    gc.collect()
    logging.info(
        "%d of %d memory maps were in use, mostly by compiled programs: they are "
        "dropped, and compiled again where they are needed",
        held,
        most,
    )
    return True
