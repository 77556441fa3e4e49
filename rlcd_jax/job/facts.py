"""What must be the same on all processes of a job, under names that a person knows."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import rlcd_jax
from rlcd_jax import dotted

PACKAGES = ("jax", "jaxlib", "numpy", "tokenizers")  # whose versions change numbers
OWN_CACHES = ("model.cache_dir", "prompts.data_dir", "run.model.cache_dir")  # a host's
WHOLE = 64 * 2**20  # bytes of a file that is read whole
PIECES = 64  # of larger files, of one MiB each, from the first to the last


def gather(
    config: Mapping[str, Any], workdir: str | os.PathLike[str], asked: Mapping[str, str]
) -> dict[str, str]:
    """Return what a process is about to do, with what, as names and values.

    Files and folders that a config names are there by a hash of what is in them; of
    large files, weights mostly, by their size, both ends and pieces between.

    Args:
      config: as a nested dict.
      workdir: of the command.
      asked: further flags of the command.
    """
    facts = {"code of rlcd_jax": _code(), "python": platform.python_version()}
    for name in PACKAGES:
        facts[name] = importlib.metadata.version(name)
    facts["--workdir"] = str(pathlib.Path(workdir).absolute())
    facts |= {f"--{name}": str(value) for name, value in asked.items()}
    for name, value in dotted.flatten(config).items():
        if name in OWN_CACHES:
            continue
        facts[f"--config.{name}"] = json.dumps(value, default=str)
        texts = value if isinstance(value, list | tuple) else [value]
        for path in (as_path(one) for one in texts if isinstance(one, str)):
            if path is not None:
                facts[f"contents of {path} (--config.{name})"] = content_hash(path)
    return facts


def content_hash(path: pathlib.Path) -> str:
    """Return 16 hexadecimal digits of a file's content, or a folder's with its names.

    Hidden files are no content. Of a file over `WHOLE` pieces are read: other weights
    differ everywhere. Each stage asks for it, and it is read once for each time that a
    file of it is written.
    """
    files = tuple(_files(path))
    states = [file.stat() for file in files]
    written = tuple((one.st_size, one.st_mtime_ns, one.st_ino) for one in states)
    return _content_hash(path.resolve(), path, files, written)


@functools.lru_cache(maxsize=64)
def _content_hash(
    place: pathlib.Path,
    path: pathlib.Path,
    files: tuple[pathlib.Path, ...],
    written: tuple[tuple[int, ...], ...],
) -> str:
    del place, written  # by which a content is known again
    total = hashlib.blake2b(digest_size=8)
    for file in files:
        total.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as opened:
            size = file.stat().st_size
            if size <= WHOLE:
                total.update(opened.read())
                continue
            for piece in range(PIECES):
                opened.seek((size - 2**20) * piece // (PIECES - 1))
                total.update(opened.read(2**20))
    return total.hexdigest()


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    inside = (one for one in path.rglob("*") if one.is_file())
    return sorted(
        one
        for one in inside
        if not any(part.startswith(".") for part in one.relative_to(path).parts)
    )


def _code() -> str:
    """Return the version, and a hash of the sources as they lie on this host."""
    folder = pathlib.Path(rlcd_jax.__file__).parent
    total = hashlib.blake2b(digest_size=8)
    kinds = ("*.py", "*.toml", "*.jsonl")
    for file in sorted(one for kind in kinds for one in folder.rglob(kind)):
        total.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return f"{rlcd_jax.__version__} {total.hexdigest()}"


def as_path(text: str) -> pathlib.Path | None:
    """Return the file or folder that a value names, if this host has it.

    A value may be the path, or end in it: "hf:PATH", "gguf:PATH", "name=PATH".
    """
    for part in (text, text.partition(":")[2], text.partition("=")[2]):
        if not part or ("/" not in part and "." not in part):
            continue
        try:
            path = pathlib.Path(part).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError):  # too long for a name; no home
            continue
    return None
