"""The official files of Anthropic's hh-rlhf: where they lie and what a line holds.

`hh_rlhf` makes a data set and records of them. It needs TFDS, which takes long to
import; what only asks for files, lines and sizes asks here.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from rlcd_jax import jsonl, records
from rlcd_jax.tasks import fields as task_fields

CONFIGS = task_fields.HH_CONFIGS
SPLITS = ("train", "test")
# Lines of the official files, for forecasts that read none. Source: the data card.
SIZES = {
    "harmless-base": {"train": 42_537, "test": 2_312},
    "helpful-base": {"train": 43_835, "test": 2_354},
}
ROW = "a JSON object of the texts 'chosen' and 'rejected'"
# Bounds of what is expanded, far above the official files (longest line 40 kB, largest
# file 0.1 GB): a small file can be packed that fills any memory or disk.
MAX_LINE_BYTES = 1 << 24
MAX_FILE_BYTES = 1 << 30


def local_files(config: str, folder: epath.PathLike) -> dict[str, epath.Path]:
    """Return the file of each split that a folder in the official layout holds.

    Raises:
      ValueError: the folder holds no file of this config.
    """
    paths = {s: epath.Path(folder) / config / f"{s}.jsonl.gz" for s in SPLITS}
    files = {split: path for split, path in paths.items() if path.exists()}
    if not files:
        wanted = " or ".join(str(path) for path in paths.values())
        raise ValueError(
            f"no hh-rlhf files: {wanted} is needed; name the folder that holds "
            f"{config}/, or None to download"
        )
    return files


def read_rows(path: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (chosen, rejected) for each line of an official file.

    Raises:
      ValueError: names the file and the line that cannot be read.
    """
    number = 0
    for number, line in enumerate(_lines(epath.Path(path)), start=1):
        where = f"{path}:{number}"
        try:
            row = jsonl.parse(line, where)
        except ValueError as error:
            raise ValueError(f"{error}; accepted: {ROW}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: the line is {_shown(row)}; accepted: {ROW}")
        unknown = [name for name in row if name not in ("chosen", "rejected")]
        if unknown:
            raise ValueError(
                f"{where}: the line has a field {_shown(unknown[0])}; accepted: {ROW}"
            )
        for name in ("chosen", "rejected"):
            if not isinstance(row.get(name), str):
                is_there = _shown(row[name]) if name in row else "missing"
                raise ValueError(f"{where}: {name!r} is {is_there}; accepted: {ROW}")
        yield row["chosen"], row["rejected"]
    if not number:
        raise ValueError(f"{path}: the file holds no line; accepted: {ROW}, one a line")


def _lines(path: epath.Path) -> Iterator[bytes]:
    """Yield the lines of a packed file, expanded one by one and within bounds."""
    number, total = 1, 0
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                total += len(line)
                if len(line) > MAX_LINE_BYTES or total > MAX_FILE_BYTES:
                    raise ValueError(
                        f"{path}:{number}: the file expands beyond {MAX_LINE_BYTES} "
                        f"bytes a line or {MAX_FILE_BYTES} in all, which is no file of "
                        "hh-rlhf; fetch it again"
                    )
                yield line.removeprefix(jsonl.BOM) if number == 1 else line
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}:{number}: the file is no whole gzip file ({error}); fetch it again"
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def join_turns(turns: Sequence[records.Turn]) -> str:
    """Return the turns in the format of the data set, ending in "Assistant:"."""
    parts = [f"{t.role.capitalize()}: {t.text}".strip() for t in turns]
    return "\n\n".join([*parts, "Assistant:"])


def content_hash(file: epath.PathLike) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with epath.Path(file).open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()
