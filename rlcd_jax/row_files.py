"""Files of rows that others write and read: JSON Lines, a JSON list, CSV, Parquet.

The ending of the name says which; a folder is one that HF datasets saved, and is only
read. Rows are mappings by column; each comes with its place, "file:line" or "file, row
n", for the messages of who reads its fields.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from rlcd_jax import jsonl, local_paths, record_files

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")
STATE, SPLITS = "state.json", "dataset_dict.json"  # of folders that datasets saves
MAX_BYTES = 1 << 31  # of a file that is read at once
# Of a Parquet file's rows: so many times its own bytes, and what any may have. Texts
# pack ten times; what packs a thousand times is no table of replies.
MAX_EXPANSION, FREE_BYTES = 200, 1 << 26
AT_ONCE = 1024  # rows of a Parquet file that are unpacked at a time, at most
CELL_BYTES = 32  # that a value takes when it is unpacked, beside its text
Row = tuple[str, Mapping[str, Any]]


def read(path: epath.PathLike) -> list[Row]:
    """Return the rows of a file or a saved data set, each with its place.

    Raises:
      ValueError: there is no such file, its ending is not one of `ENDINGS`, or what is
        in it is damaged or no table; it names the file, and the line where it can.
    """
    path = epath.Path(local_paths.check(path, "file"))
    if path.is_dir():
        return list(_saved(path))
    ending = check_ending(path)
    with _reading(path):
        if ending == ".jsonl":
            return [(f"{path}:{number}", row) for number, row in jsonl.read(path)]
    read_bytes = {".json": _json, ".csv": _csv, ".parquet": _parquet}[ending]
    return list(read_bytes(whole(path), str(path)))


def whole(path: epath.PathLike) -> bytes:
    """Return the bytes of a file that is read at once.

    Raises:
      ValueError: it is not there, cannot be read, or is too large.
    """
    path = epath.Path(path)
    with _reading(path):
        return path.read_bytes()


@contextlib.contextmanager
def _reading(path: epath.Path) -> Iterator[None]:
    """Refuse a file that is too large, and say which one cannot be read."""
    try:
        size = path.stat().length
        if size > MAX_BYTES:
            raise ValueError(
                f"{path} has {size} bytes; accepted: at most {MAX_BYTES}, so split it"
            )
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def write(path: epath.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns, whole or not at all.

    Raises:
      ValueError: there are no rows, or the ending is not one of `ENDINGS`.
    """
    path = epath.Path(local_paths.check(path, "file"))
    ending = check_ending(path)
    if not rows:
        raise ValueError(f"there are no rows to write to {path}")
    if ending == ".jsonl":
        record_files.write_jsonl(path, rows)
    elif ending == ".json":
        record_files.write_json(path, list(rows))
    elif ending == ".csv":
        text = io.StringIO()
        # Its ends of lines are CR and LF, so that it quotes a text with either.
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
        record_files.write_text(path, text.getvalue())
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.tmp"
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
        temporary.replace(path)


def check_ending(path: epath.PathLike) -> str:
    """Return the ending of a file's name, if it is one of `ENDINGS`."""
    ending = epath.Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"{path}: the ending {ending!r} is no table's; accepted: "
            f"{', '.join(ENDINGS)}"
        )
    return ending


def _json(data: bytes, where: str) -> Iterator[Row]:
    rows = jsonl.parse(data.removeprefix(jsonl.BOM), where)
    if not isinstance(rows, list):
        raise ValueError(
            f"{where} holds a {type(rows).__name__}; accepted: a list of objects (of "
            "one object a line the name ends in .jsonl)"
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(
                f"{where}, row {number}: a {type(row).__name__}; accepted: an object"
            )
        yield f"{where}, row {number}", row


def _csv(data: bytes, where: str) -> Iterator[Row]:
    try:
        text = data.removeprefix(jsonl.BOM).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not text in UTF-8 ({error})") from error
    # Replies hold any character, and are as long as they are.
    before = csv.field_size_limit(len(text) + 1)
    try:
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(table, [])
        if not header or len(set(header)) < len(header):
            raise ValueError(
                f"{where}: the first line is {show(header)}; accepted: the names of "
                "the columns, each once"
            )
        for cells in table:
            here = f"{where}:{table.line_num}"
            if len(cells) != len(header):
                raise ValueError(
                    f"{here}: {len(cells)} cells, and the first line names "
                    f"{len(header)} columns; give as many"
                )
            yield here, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"{where}:{table.line_num}: not CSV ({error})") from error
    finally:
        csv.field_size_limit(before)


def _parquet(data: bytes, where: str) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        doubled = sorted(name for name in {*names} if names.count(name) > 1)
        rows = [] if doubled else _unpacked(file, len(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: not a whole Parquet file ({first})") from error
    if doubled:
        raise ValueError(f"{where}: the column {doubled[0]!r} is there twice")
    for number, row in enumerate(rows, start=1):
        yield f"{where}, row {number}", row


def _unpacked(file: pq.ParquetFile, packed: int) -> list[Mapping[str, Any]]:
    """Return the rows of a file of so many bytes, if they do not take far more."""
    most = max(FREE_BYTES, MAX_EXPANSION * packed)
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    rows: list[Mapping[str, Any]] = []
    # Before anything is unpacked: what the columns say of themselves.
    size = sum(c.total_uncompressed_size + CELL_BYTES * c.num_values for c in chunks)
    # A text that is packed once may stand in every row.
    longest = max((c.total_uncompressed_size for c in chunks), default=1)
    at_once = max(1, min(AT_ONCE, most // max(1, 4 * longest)))
    batches = file.iter_batches(at_once) if size <= most else ()
    size = size if size > most else 0
    for batch in batches:
        size += batch.nbytes
        if size > most:
            break
        rows += batch.to_pylist()
    if size > most:
        raise ValueError(
            f"it has {packed} bytes and unpacks to more than {most}, which no table of "
            "replies does"
        )
    return rows


def _saved(folder: epath.Path) -> Iterator[Row]:
    """Yield the rows of a folder that `Dataset.save_to_disk` of HF datasets wrote."""
    if (folder / SPLITS).exists():
        splits = jsonl.read_object(folder / SPLITS).get("splits")
        names = splits if isinstance(splits, list) else []
        shown = " or ".join(str(folder / str(name)) for name in names[:4])
        raise ValueError(f"{folder} holds several splits; name one of them: {shown}")
    if not (folder / STATE).exists():
        raise ValueError(
            f"{folder} is a folder without {STATE}; accepted: a file that ends in "
            f"{', '.join(ENDINGS)}, or a folder that HF datasets saved (save_to_disk)"
        )
    listed = jsonl.read_object(folder / STATE).get("_data_files")
    listed = listed if isinstance(listed, list) else []
    names = [one.get("filename") if isinstance(one, dict) else None for one in listed]
    if not names or any(not _is_inside(name) for name in names):
        raise ValueError(
            f"{folder / STATE} names the files {show(names)}; accepted: files of the "
            "folder; save the data set again"
        )
    for name in names:
        where = str(folder / name)
        try:
            rows = pa.ipc.open_stream(whole(where)).read_all().to_pylist()
        except (pa.ArrowException, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{where}: not a whole Arrow file ({first})") from error
        for number, row in enumerate(rows, start=1):
            yield f"{where}, row {number}", row


def _is_inside(name: Any) -> bool:
    """Return whether a name is that of a file in the same folder."""
    return isinstance(name, str) and bool(name) and name == epath.Path(name).name


def show(value: Any) -> str:
    """Return a cell as a message shows it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
