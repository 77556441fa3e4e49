"""A script is given to what starts its jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def submit(script: str, program: Sequence[str]) -> None:
    """Give a script to a program, which says for itself what it does.

    Args:
      script: of a target.
      program: `SUBMIT` of the target, which reads the script from its input.

    Raises:
      ValueError: the program has failed.
      OSError: there is no such program.
    """
    done = subprocess.run(program, input=script, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{program[0]} ended with {done.returncode}")
