"""The folder of a run whose user named none."""

from __future__ import annotations

import pathlib


def of(name: str, task: str, size: str) -> str:
    """Return a run's folder, below the current one.

    Args:
      name: of the method, or of the command.
      task: its name, or its file, whose name alone counts.
      size: of the config.
    """
    return f"runs/{name}-{pathlib.Path(task).stem}-{size}"
