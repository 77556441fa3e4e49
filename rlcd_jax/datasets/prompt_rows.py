"""Prompts in the files of others: a field `prompt`, or a line of text each.

JSON Lines, JSON, CSV, Parquet and folders that HF datasets saved hold rows with a field
`prompt`, a text or a list of messages; so do data sets that TFDS has prepared. A text
file holds a prompt a line. The project's own form, lines with `id` and `turns`, is
`tasks.load_prompts`'s.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlcd_jax import jsonl, local_paths, records, row_files, schema
from rlcd_jax.datasets import hh_rlhf_files, trl_rows

FIELD = "prompt"
COLUMNS = ("id", FIELD)
TEXT = ".txt"
TFDS_MARK = "features.json"  # of a folder that TFDS has prepared
MOST_SAID = 20  # wrong rows of a file that are named


@dataclasses.dataclass(frozen=True)
class Read:
    """What a file holds.

    Attributes:
      prompts: in the order of the file, each text once.
      lost: how many rows give no prompt, by why.
      unread: columns that mean nothing here.
    """

    prompts: tuple[records.Prompt, ...]
    lost: Mapping[str, int]
    unread: tuple[str, ...]

    def said(self) -> str:
        """Return in words how many prompts there are, and what was not taken."""
        told = [f"{len(self.prompts)} prompts"]
        told += [f"{count} {why}" for why, count in self.lost.items()]
        told += [f"columns not read: {', '.join(self.unread)}"] * bool(self.unread)
        return "; ".join(told)


def is_of_others(path: str | pathlib.Path) -> bool:
    """Return whether a file of prompts is in a form of others, and not our own lines.

    Of JSON Lines the first line says it: ours have `turns`.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir() or path.suffix.lower() in (TEXT, ".json", ".csv", ".parquet"):
        return True
    try:
        with path.open("rb") as file:
            line = next((one for one in file if one.strip()), b"")
        row = jsonl.parse(line.removeprefix(jsonl.BOM), str(path))
    except (OSError, ValueError):
        return False  # who reads our own lines says what is wrong
    return isinstance(row, dict) and FIELD in row and "turns" not in row


def read(path: str | pathlib.Path) -> Read:
    """Return the prompts of a file or a folder.

    Rows without an id of their own get one that is made of the text, so that a prompt
    stays in its part of the data whatever else the file holds. A text that was there
    before, and a blank one, are no prompt and counted.

    Raises:
      ValueError: it names the file, and each row and field that is wrong.
    """
    path = local_paths.check(path, "prompts.source").expanduser()
    rows = _rows(path)
    made: dict[str, records.Prompt] = {}
    lost: collections.Counter[str] = collections.Counter()
    unread: dict[str, None] = {}
    wrong: list[str] = []
    for where, row in rows:
        unread |= dict.fromkeys(name for name in row if name not in COLUMNS)
        try:
            prompt = _prompt(row, path.stem)
        except ValueError as error:
            wrong.append(f"{where}: {error}")
            continue
        if prompt is None:
            lost["blank rows"] += 1
        elif prompt.id not in made:
            made[prompt.id] = prompt
        elif made[prompt.id] == prompt:
            lost["rows that were there before"] += 1
        else:
            wrong.append(f"{where}: field 'id' is {prompt.id!r}, which another row has")
    if wrong:
        more = len(wrong) - MOST_SAID
        rest = [f"{path}: and {more} more"] if more > 0 else []
        raise ValueError("\n".join(wrong[:MOST_SAID] + rest))
    if not made:
        raise ValueError(f"{path}: no prompts; accepted is at least one")
    return Read(tuple(made.values()), dict(lost), tuple(unread))


def _rows(path: pathlib.Path) -> Sequence[row_files.Row]:
    if path.is_dir() and (path / TFDS_MARK).is_file():
        return list(_prepared(path))
    if path.suffix.lower() == TEXT and path.is_file():
        return list(_lines(path))
    return row_files.read(path)


def _lines(path: pathlib.Path) -> Iterator[row_files.Row]:
    """Yield the lines of a text file as rows, blank ones too."""
    data = row_files.whole(path).removeprefix(jsonl.BOM)
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            yield f"{path}:{number}", {FIELD: line.decode().removesuffix("\r")}
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not text in UTF-8 ({error})") from error


def _prepared(folder: pathlib.Path) -> Iterator[row_files.Row]:
    """Yield the rows of all splits of a data set that TFDS has prepared."""
    import tensorflow_datasets as tfds  # takes long, and few need it

    try:
        builder = tfds.builder_from_directory(str(folder))
        for split in sorted(builder.info.splits):
            source = builder.as_data_source(split=split)
            for number in range(len(source)):
                row = {name: _text(value) for name, value in source[number].items()}
                yield f"{folder}, {split} row {number}", row
    except (OSError, KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{folder} is no data set that TFDS has prepared as array_record files "
            f"({type(error).__name__}: {error})"
        ) from error


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _prompt(row: Mapping[str, Any], stem: str) -> records.Prompt | None:
    """Return the prompt of a row, None of a blank one."""
    if FIELD not in row:
        raise ValueError(
            f"no {FIELD!r} among the columns {list(row)}; accepted: {FIELD}, a text or "
            "a list of messages, and id"
        )
    value = row[FIELD]
    if value is None or (isinstance(value, str) and schema.is_blank(value)):
        return None
    turns = trl_rows.prompt_turns(value)
    own = row.get("id")
    if own is not None and not isinstance(own, str | int):
        raise ValueError(f"field 'id' is {row_files.show(own)}; accepted: a text")
    if own is None:
        words = " ".join(hh_rlhf_files.join_turns(turns).split())
        digest = hashlib.blake2b(words.encode(), digest_size=6).hexdigest()
        own = f"{stem}/{digest}"
    return records.Prompt(str(own), turns)
