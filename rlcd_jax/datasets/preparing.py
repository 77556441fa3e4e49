"""Prepared data sets: a folder that is whole or not there, made by one process."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
from collections.abc import Callable

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from rlcd_jax import local_paths, locks

Make = Callable[[pathlib.Path], tfds.core.DatasetBuilder]


def prepare_once(
    root: epath.PathLike, name: str, make: Make
) -> tfds.core.DatasetBuilder:
    """Return a builder whose files are written below `root`/`name`.

    Several processes may ask at once: one prepares, the others wait. The files are
    written to a folder of another name, which is renamed when they are whole, so what
    a killed process leaves is never read; the next one removes it.

    Args:
      root: folder of prepared data, which runs may share.
      name: of what is prepared; the same name must mean the same content.
      make: returns the builder over a folder.

    Raises:
      ValueError: `root` is no local folder, or the source cannot be read.
    """
    root = local_folder(root)
    folder = root / name
    if not is_whole(make(folder)):
        with locks.held(root / f"{name}.lock", logging.info):
            if not is_whole(make(folder)):
                _prepare(folder, make)
    return make(folder)


def local_folder(path: epath.PathLike) -> pathlib.Path:
    """Return a path of the local file system, where a lock holds.

    Raises:
      ValueError: the folder is not on this machine.
    """
    return local_paths.check(path, "prompts.data_dir").expanduser()


def is_whole(builder: tfds.core.DatasetBuilder) -> bool:
    """Return whether all files of a builder are there."""
    files = [file for s in builder.info.splits.values() for file in s.filepaths]
    return bool(files) and all(epath.Path(file).exists() for file in files)


def _prepare(folder: pathlib.Path, make: Make) -> None:
    prefix = f".{folder.name}-"
    for left in folder.parent.glob(
        f"{prefix}*"
    ):  # by a killed process: we hold the lock
        shutil.rmtree(left)
    if folder.exists():
        shutil.rmtree(folder)  # files of it are missing
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
        unfinished = pathlib.Path(scratch) / folder.name
        make(unfinished).download_and_prepare()
        unfinished.rename(folder)
