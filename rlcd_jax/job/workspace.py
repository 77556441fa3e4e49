"""A run's folder: which config it belongs to, and which stages are done.

Each stage remembers the part of the config that it and the stages before it depend
on. The same command therefore starts, resumes and skips; another config in the same
folder is refused with the fields that differ, and never mixes with what is there.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import time
import uuid
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import done_mark, jsonl, local_paths, processes, record_files, stages

# Fields that change how a run is computed and not what: another machine may resume.
FREE = ("cache_dir", "chunk_tokens", "remat", "attention", "data_dir", "hh_dir")
# What may lie in a folder before the first run: of a file system, of a plan, logs.
BESIDE = ("lost+found", "plan.json", "log", "stdout", "stderr")
LOGS = (".log", ".out", ".err", "log.txt")
SEEN_SECONDS = 10.0  # after which a file that another host made must be there
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "rlcd_jax")


def stage_folder(workdir: str | pathlib.Path, stage: str) -> pathlib.Path:
    """Return the folder of a stage's files."""
    return pathlib.Path(workdir) / stages.STAGES[stage].folder


def stage_config(config: ConfigDict, stage: str) -> dict[str, Any]:
    """Return the part of the config that a stage's result depends on."""
    whole = config.to_dict()
    part = {name: whole[name] for name in stages.STAGES[stage].sections}
    for name in ("model", "prompts"):
        part[name] = {k: v for k, v in part[name].items() if k not in FREE}
    return part


def finished(config: ConfigDict, workdir: str | pathlib.Path, stage: str) -> bool:
    """Say whether a stage is done under this config.

    Raises:
      ValueError: the stage was begun or done under another config.
    """
    folder, part = stage_folder(workdir, stage), stage_config(config, stage)
    if processes.agreed(done_mark.check_done(folder, part)):
        logging.info("%s: done before, skipped", stage)
        return True
    begun = folder / "config.json"
    if begun.exists():
        before = jsonl.read_object(begun)
        lines = done_mark.diff_configs(before, part)
        if lines:
            shown = "\n  ".join(lines)
            raise ValueError(
                f"{folder} was begun with another config:\n  {shown}\nChoose another "
                "workdir, restore these values, or delete that folder"
            )
    return False


def begin(config: ConfigDict, workdir: str | pathlib.Path, stage: str) -> pathlib.Path:
    """Make a stage's folder, write the config it belongs to, and return it."""
    folder = stage_folder(workdir, stage)
    if processes.is_writer():
        folder.mkdir(parents=True, exist_ok=True)
        record_files.write_json(folder / "config.json", stage_config(config, stage))
    processes.barrier(f"{stage} begins")
    return folder


def finish(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stage: str,
    summary: dict[str, Any],
) -> dict[str, Any]:
    """Write a stage's summary and its DONE mark; return the summary.

    All that the writer has written is there when the processes leave it.
    """
    if processes.is_writer():
        write_done(config, workdir, stage, summary)
    processes.barrier(f"{stage} is done")
    return summary


def write_done(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stage: str,
    summary: dict[str, Any],
) -> None:
    """Write a stage's summary and its DONE mark; the writer's part of `finish`."""
    folder = stage_folder(workdir, stage)
    record_files.write_json(folder / "summary.json", summary)
    done_mark.mark_done(folder, stage_config(config, stage), summary)


def summary(workdir: str | pathlib.Path, stage: str) -> dict[str, Any]:
    """Return the summary of a finished stage."""
    return done_mark.read_summary(stage_folder(workdir, stage))


def check_folder(workdir: str | pathlib.Path) -> None:
    """Refuse a folder that cannot hold a run, or that holds something else.

    A folder with files of another kind is refused, so that a mistyped path loses
    nothing. Hidden files, logs and what a file system or a plan leaves are no such
    files.
    """
    folder = local_paths.check(workdir, "workdir")
    if set("[]*?") & {*str(folder.absolute())}:
        raise ValueError(
            f"workdir {str(workdir)!r}; accepted: a folder without [, ], * and ?, in "
            "which checkpoints would not be found again"
        )
    there = nearest_folder(folder)
    if not there.is_dir():
        what = "" if there == folder else f"cannot be made: {there} "
        raise ValueError(f"workdir {folder} {what}is a file; give a folder for the run")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"workdir {folder} cannot be written: {there} is read-only for this user; "
            "give a folder that can be written"
        )
    others = [path.name for path in folder.iterdir()] if there == folder else []
    others = sorted(name for name in others if not _is_beside(name))
    if others and "config.json" not in others:
        raise ValueError(
            f"workdir {folder} holds other files ({', '.join(others[:3])}, …) "
            "and no run; give an empty or a new folder, or that of a run"
        )


def _is_beside(name: str) -> bool:
    """Say whether a file may lie in a folder that is no run yet."""
    return name.startswith(".") or name in BESIDE or name.endswith(LOGS)


def nearest_folder(path: pathlib.Path) -> pathlib.Path:
    """Return the path, or the nearest above it that there is."""
    path = path.absolute() if not path.exists() else path
    return next((p for p in (path, *path.parents) if p.exists()), path)


def open_run(config: ConfigDict, workdir: str | pathlib.Path) -> None:
    """Write `config.json` and `environment.json` of a run.

    Raises:
      ValueError: the folder cannot hold a run; see `check_folder`.
    """
    check_folder(workdir)
    folder = pathlib.Path(workdir)

    def write() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            record_files.write_json(folder / "config.json", config.to_dict())
            record_files.write_json(folder / "environment.json", environment())
        except OSError as error:
            raise ValueError(
                f"workdir {folder} cannot be written: {error.strerror or error}; give "
                "a folder that can be written"
            ) from error

    processes.by_writer(write)


def check_shared(workdir: str | pathlib.Path) -> None:
    """Refuse a workdir that not all processes of a job see as one folder.

    Raises:
      ValueError: on a process that does not find what the writer has put there.
    """
    if not processes.are_many():
        return
    folder = pathlib.Path(workdir)
    # A name that nobody has looked for before, so that no host remembers its absence.
    name = processes.by_writer(lambda: f".seen-{uuid.uuid4().hex}")
    if processes.is_writer():
        (folder / name).touch()
    processes.barrier("a file in the workdir")
    end = time.monotonic() + SEEN_SECONDS
    while not (there := (folder / name).exists()) and time.monotonic() < end:
        time.sleep(0.1)
    if not there:
        raise ValueError(
            f"workdir {folder.absolute()} on {platform.node()} is another folder than "
            "that of process 0; give one that all hosts share, on NFS, Lustre, GPFS or "
            "a mounted bucket"
        )
    processes.barrier("the workdir is shared")
    if processes.is_writer():
        (folder / name).unlink()


def environment() -> dict[str, Any]:
    """Return versions, devices and the commit: what a figure depends on."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "processes": jax.process_count(),
        "commit": _commit(),
    }


def _commit() -> str:
    """Return the commit of the checkout, "-dirty" if files differ; "" without git."""
    here = pathlib.Path(__file__).parent
    if not shutil.which("git"):
        return ""
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip()
