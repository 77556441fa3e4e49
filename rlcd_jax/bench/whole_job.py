"""The whole job of the quickstart as its user starts it: minutes, stages, memory."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import stages

MODEL = "smollm2-135m"  # folder of the embedded model in a cache


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    cache_dir: str | os.PathLike[str],
    *,
    cold: bool,
) -> dict[str, Any]:
    """Return what a run of the whole job takes, in a process and a folder of its own.

    Args:
      command: that starts it; `--workdir` is added.
      environ: of its process.
      cache_dir: where fetched models are.
      cold: with no compiled program, as on a fresh machine; the model is there.

    Raises:
      ValueError: the job failed; with its last words.
    """
    with tempfile.TemporaryDirectory() as place:
        workdir = pathlib.Path(place, "run")
        own = dict(environ)
        if cold:
            own["XDG_CACHE_HOME"] = place
            cache = pathlib.Path(place, pathlib.Path(cache_dir).name)
            cache.mkdir()
            model = pathlib.Path(cache_dir, MODEL)
            if model.exists():
                (cache / MODEL).symlink_to(model.absolute())
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            [*command, f"--workdir={workdir}"],
            env=own,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise ValueError(f"the job failed: {done.stderr[-2000:]}")
        return {
            "command": " ".join(command[1:]),
            "cold": cold,
            "seconds": seconds,
            "processor_seconds": after.ru_utime
            + after.ru_stime
            - before.ru_utime
            - before.ru_stime,
            "peak_host_gib": after.ru_maxrss * 1024 / 2**30,
            "stages": stage_seconds(workdir),
        }


def stage_seconds(workdir: pathlib.Path) -> dict[str, float]:
    """Return how long each stage of a run took, by its summary."""
    found = {}
    for stage in stages.STAGES.values():
        path = workdir / stage.folder / "summary.json"
        if path.exists():
            summary = json.loads(path.read_text("utf-8"))
            if "seconds" in summary:
                found[stage.name] = summary["seconds"]
    return found
