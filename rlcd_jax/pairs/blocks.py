"""What of a simulation is on disk: blocks of prompts, each whole or not there.

A block is `pairs.part_prompts` prompts in the order of the run, and its files are named
by its first prompt. Blocks are the same whoever draws them, so a simulation may be
begun in one piece and finished in eight, and is the same bytes when it is put together.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from rlcd_jax import jsonl, record_files, records, schema
from rlcd_jax.pairs import work_parts

FOLDER = "parts"
LOCK = ".lock"  # ending of the file that a part's process holds, and leaves


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn of some prompts.

    Attributes:
      pairs: in the order of the prompts.
      dropped: sides without a reply, in the same order.
      figures: what it took: seconds, tokens, replies.
      filtered: pairs that were left out by their scores, in the same order.
    """

    pairs: Sequence[records.Pair]
    dropped: Sequence[records.Dropped]
    figures: Mapping[str, float]
    filtered: Sequence[records.Filtered] = ()


def starts(num_prompts: int, block_prompts: int) -> range:
    """Return the number of the first prompt of each block."""
    return range(0, num_prompts, block_prompts)


def check_part(part: work_parts.WorkPart, num_blocks: int) -> None:
    """Refuse more parts than there are blocks: some would have nothing to draw.

    Raises:
      ValueError: there are more parts than blocks.
    """
    if part.count > max(num_blocks, 1):
        raise ValueError(
            f"{part.count} parts: the prompts are {num_blocks} blocks of "
            "pairs.part_prompts, and a part takes whole ones; accepted: at most "
            f"{num_blocks} parts, or a smaller pairs.part_prompts"
        )


def is_whole(folder: pathlib.Path, start: int) -> bool:
    """Say whether a block is on disk; its pairs are written last."""
    return _file(folder, "pairs", start).exists()


def write(folder: pathlib.Path, start: int, drawn: Drawn) -> None:
    """Write a block, whole or not at all."""
    record_files.write_json(_file(folder, "figures", start), drawn.figures)
    record_files.write_jsonl(_file(folder, "dropped", start), drawn.dropped)
    record_files.write_jsonl(_file(folder, "filtered", start), drawn.filtered)
    record_files.write_jsonl(_file(folder, "pairs", start), drawn.pairs)


def read(folder: pathlib.Path, places: Sequence[int]) -> Drawn:
    """Return blocks put together in the order of their places; figures are summed."""
    pairs: list[records.Pair] = []
    dropped: list[records.Dropped] = []
    filtered: list[records.Filtered] = []
    figures: dict[str, float] = {}
    for start in places:
        pairs += record_files.read_jsonl(_file(folder, "pairs", start), records.Pair)
        path = _file(folder, "dropped", start)
        dropped += record_files.read_jsonl(path, records.Dropped)
        path = _file(folder, "filtered", start)
        if path.exists():  # older blocks have none
            filtered += record_files.read_jsonl(path, records.Filtered)
        for name, value in _figures(_file(folder, "figures", start)).items():
            figures[name] = figures.get(name, 0.0) + value
    return Drawn(pairs, dropped, figures, filtered)


def _figures(path: pathlib.Path) -> dict[str, float]:
    figures = jsonl.read_object(path)
    for name, value in figures.items():
        if not schema.is_number(value, float) or value < 0:
            raise ValueError(
                f"{path}: figure {name!r} is {schema.shown(value)}; accepted: a finite "
                f"number from 0; restore the file, or delete {path.parent} to draw "
                "these pairs again"
            )
    return figures


def lock_path(folder: pathlib.Path, part: work_parts.WorkPart) -> pathlib.Path:
    """Return the file that the process of a part holds, and leaves behind."""
    return folder / FOLDER / f"{part.number}-of-{part.count}{LOCK}"


def notes_of(
    folder: pathlib.Path, part: work_parts.WorkPart
) -> tuple[pathlib.Path, str]:
    """Return the folder and the name of the notes of processes that draw a part."""
    return folder / FOLDER, f"{part.number}-of-{part.count}"


def begun(folder: pathlib.Path) -> list[work_parts.WorkPart]:
    """Return the parts that were ever begun, in order; the whole in one is none."""
    parts = []
    for path in (folder / FOLDER).glob(f"*-of-*{LOCK}"):
        part = work_parts.read(path.name.removesuffix(LOCK).replace("-of-", "/"))
        if part != work_parts.WHOLE:
            parts.append(part)
    return sorted(parts, key=lambda part: (part.count, part.number))


def missing(folder: pathlib.Path, places: Sequence[int]) -> list[str]:
    """Return a line for each part that is not whole, of the splits that were begun.

    Nothing where no split was begun, or where all blocks are there.
    """
    known = begun(folder)
    lines = []
    for count in sorted({part.count for part in known}):
        for number in range(1, count + 1):
            part = work_parts.WorkPart(number, count)
            own = part.of(places)
            there = sum(is_whole(folder, start) for start in own)
            if there < len(own):
                state = "begun" if part in known else "never begun"
                lines.append(f"part {part}: {there} of {len(own)} blocks, {state}")
    return lines


def remove(folder: pathlib.Path) -> None:
    """Remove the blocks of a stage that is whole."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _file(folder: pathlib.Path, what: str, start: int) -> pathlib.Path:
    ending = "json" if what == "figures" else "jsonl"
    return folder / FOLDER / f"{what}-{start:08d}.{ending}"
