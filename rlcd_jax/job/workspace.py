"""A run's folder: which config it belongs to, and which stages are done.

Each stage remembers the part of the config that it and the stages before it depend
on. The same command therefore starts, resumes and skips; another config in the same
folder is refused with the fields that differ, and never mixes with what is there.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

import rlcd_jax
from rlcd_jax import (
    done_mark,
    jsonl,
    local_paths,
    locks,
    processes,
    record_files,
    stages,
)
from rlcd_jax.job import changes, contents, roles, setup
from rlcd_jax.models import quantized

# What may lie in a folder before the first run: of a file system, of a plan, logs.
BESIDE = ("lost+found", "plan.json", "log", "stdout", "stderr")
LOGS = (".log", ".out", ".err", "log.txt")
SEEN_SECONDS = 10.0  # after which a file that another host made must be there
LOCK = ".lock"  # of a workdir, held by the run that writes it
INPUTS = "inputs.json"  # of a stage: hashes of what it reads, from when it began
AGAIN = "Restore what was there, choose another workdir, or delete {} to run it again"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def stage_folder(workdir: str | pathlib.Path, stage: str) -> pathlib.Path:
    """Return the folder of a stage's files."""
    return pathlib.Path(workdir) / stages.STAGES[stage].folder


def stage_config(config: ConfigDict, stage: str) -> dict[str, Any]:
    """Return the part of the config that a stage's result depends on."""
    whole = config.to_dict()
    names = list(stages.STAGES[stage].sections)
    if "lora" in names and setup.adapters(config) is None:
        names.remove("lora")  # nothing depends on what is not trained
    elif whole["lora"].get("base") == quantized.AS_COMPUTED:
        del whole["lora"]["base"]  # as a run has it that was begun without the field
    whole["model"] = roles.bound(whole["model"], stages.STAGES[stage].all_roles)
    return {name: changes.bound(name, whole[name]) for name in names}


def finished(config: ConfigDict, workdir: str | pathlib.Path, stage: str) -> bool:
    """Say whether a stage is done under this config, with what is there now.

    Raises:
      ValueError: the stage was begun or done under another config, or what it has read
        or written is not the same any more.
    """
    folder, part = stage_folder(workdir, stage), stage_config(config, stage)
    if processes.agreed(f"{stage} is done", done_mark.check_done(folder, part)):
        processes.by_writer(lambda: _check_done_contents(config, workdir, stage))
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
    processes.by_writer(lambda: _check_begun_contents(config, workdir, stage))
    return False


def _check_done_contents(
    config: ConfigDict, workdir: str | pathlib.Path, stage: str
) -> None:
    """Refuse a finished stage whose inputs or results are others than they were."""
    folder = stage_folder(workdir, stage)
    mark = done_mark.read_contents(folder)
    if not mark:
        return  # made by hand, or before marks held any
    now = contents.inputs(config, workdir, stage)
    # A stage that is done reads nothing any more: what is gone harms nobody.
    before = {k: v for k, v in mark.get("inputs", {}).items() if k in now}
    lines = contents.changed(before, now)
    own = contents.changed(mark.get("outputs", {}), contents.outputs(folder))
    if lines := [*lines, *(f"{folder.name}/{line}" for line in own)]:
        listed = "\n  ".join(lines)
        raise ValueError(
            f"{folder} is done, and since then:\n  {listed}\n{AGAIN.format(folder)}"
        )


def _check_begun_contents(
    config: ConfigDict, workdir: str | pathlib.Path, stage: str
) -> None:
    """Refuse to go on, or to begin, with other things than what was there before."""
    folder, lines = stage_folder(workdir, stage), []
    now = contents.inputs(config, workdir, stage)
    if (folder / INPUTS).exists():
        before = jsonl.read_object(folder / INPUTS)
        told = f"{folder} was begun, and since then"
        lines = contents.changed(before, now)
    else:
        told = f"{stage} cannot begin"
        for name in stages.STAGES[stage].reads:
            read = stage_folder(workdir, name)
            if not (read / done_mark.DONE).exists():
                continue
            written = done_mark.read_contents(read).get("outputs", {})
            for path, value in written.items():
                where = f"{read.name}/{path}"
                if where in now and now[where] != value:
                    lines.append(f"{where} has changed since {name} was done")
    if lines:
        listed = "\n  ".join(lines)
        raise ValueError(f"{told}:\n  {listed}\n{AGAIN.format(folder)}")


def begin(config: ConfigDict, workdir: str | pathlib.Path, stage: str) -> pathlib.Path:
    """Make a stage's folder, write the config it belongs to, and return it."""
    folder = stage_folder(workdir, stage)
    if processes.is_writer():
        folder.mkdir(parents=True, exist_ok=True)
        record_files.write_json(folder / "config.json", stage_config(config, stage))
        found = contents.inputs(config, workdir, stage)
        record_files.write_json(folder / INPUTS, found)
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
    held = {
        "inputs": contents.inputs(config, workdir, stage),
        "outputs": contents.outputs(folder),
    }
    done_mark.mark_done(folder, stage_config(config, stage), summary, held)


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


@contextlib.contextmanager
def only_writer(workdir: str | pathlib.Path) -> Iterator[None]:
    """Be the only run that writes a workdir; readers ask nobody.

    Raises:
      ValueError: another run writes it; its host, process and start are named.
    """
    folder = pathlib.Path(workdir)
    busy = f"workdir {folder} is being written"
    with contextlib.ExitStack() as held:

        def take() -> None:
            lock = locks.held(folder / LOCK, logging.info, refuse=busy)
            held.enter_context(lock)
            _remove_leftovers(folder)

        processes.by_writer(take)
        yield


def refuse_if_written(workdir: str | pathlib.Path) -> None:
    """Refuse a workdir that a whole run writes; parts of one may write it at once."""
    path = pathlib.Path(workdir) / LOCK
    if path.exists():
        with only_writer(workdir):
            pass


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Remove what a run that was killed had not written whole."""
    for pattern in ("metrics.jsonl.new", ".*.tmp", "*/.*.tmp", "*/samples/.*.tmp"):
        for path in folder.glob(pattern):
            logging.info("%s was left half written, and is removed", path)
            path.unlink(missing_ok=True)


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
            if (folder / "config.json").exists():
                before = jsonl.read_object(folder / "config.json")
                for line in changes.told(before, config.to_dict()):
                    logging.info("%s", line)
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
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    packages["rlcd_jax"] = rlcd_jax.__version__  # a clone need not be installed
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
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
