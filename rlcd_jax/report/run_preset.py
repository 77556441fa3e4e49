"""The config that a run was started from, before single fields were set."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import jsonl


def find(
    workdir: str | os.PathLike[str], make_config: Callable[[str, str], ConfigDict]
) -> dict[str, Any] | None:
    """Return the config that a run's method, task, model, preset and size stand for.

    Args:
      workdir: folder of the run, with its config.json.
      make_config: from the name of a method and a config's argument to its config.

    Returns:
      Its fields; None when config.json does not say them, or when no config of the
      method accepts them.
    """
    try:
        config = jsonl.read_object(pathlib.Path(workdir, "config.json"))
        fields = {name: config[name] for name in ("task", "preset", "size")}
        fields["model"] = config["model"]["spec"]
        argument = ",".join(f"{name}={value}" for name, value in fields.items())
        return make_config(config["name"], argument).to_dict()
    except (OSError, ImportError, KeyError, TypeError, ValueError):
        return None
