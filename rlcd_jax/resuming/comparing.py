"""Whether two workdirs hold the same run: every file, array, row and mark."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from rlcd_jax import checkpoint, metrics, trackers, tree

# Drawn from the files that are compared, or locks and figures of a process.
NOT_COMPARED = (*trackers.FILES, trackers.REPORT, "heartbeat", ".lock")
CHECKPOINTS = ("checkpoints", "chosen")


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Return a line for each thing that differs between two workdirs.

    What clocks say (`metrics.is_clock`) may differ; nothing else may.
    """
    names = sorted({*_files(one), *_files(other)})
    lines = []
    for name in names:
        first, second = one / name, other / name
        if not (first.exists() and second.exists()):
            where = other if first.exists() else one
            lines.append(f"{name} is not in {where}")
        elif first.is_dir():
            lines += _in_checkpoints(name, first, second)
        elif _content(first) != _content(second):
            lines.append(f"{name}: {_first_difference(first, second)}")
    return lines


def _files(folder: pathlib.Path, inside: str = "") -> Iterator[str]:
    """Yield the files of a workdir, and its folders of checkpoints, by name in it."""
    for path in (folder / inside).iterdir():
        name = path.relative_to(folder).as_posix()
        if path.name in NOT_COMPARED:
            continue
        if path.is_dir() and path.name not in CHECKPOINTS:
            yield from _files(folder, name)
        else:
            yield name


def _content(path: pathlib.Path) -> Any:
    """Return what a file says, without what clocks said."""
    if path.suffix == ".json" or path.name == "DONE":
        return _ordered(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_ordered(json.loads(line)) for line in path.open()]
    return path.read_bytes()


def _ordered(value: Any) -> str:
    """Return JSON without clocks as text: order is part of the bytes of a file."""
    return json.dumps(metrics.without_clocks(value))


def _first_difference(one: pathlib.Path, other: pathlib.Path) -> str:
    """Say where two files differ first."""
    lines = (path.read_text(errors="replace").splitlines() for path in (one, other))
    ours, theirs = lines
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        if a != b and not any(metrics.is_clock(word) for word in a.split('"')[1:2]):
            return f"line {number}: {a.strip()[:80]!r} and {b.strip()[:80]!r}"
    return f"{len(ours)} and {len(theirs)} lines"


def _in_checkpoints(name: str, one: pathlib.Path, other: pathlib.Path) -> Iterator[str]:
    """Yield what differs between two folders of checkpoints: steps, items, arrays."""
    ours, theirs = (sorted(path.name for path in x.iterdir()) for x in (one, other))
    if ours != theirs:
        yield f"{name} holds {', '.join(ours)} and {', '.join(theirs)}"
        return
    for step in checkpoint.whole_steps(one):
        if checkpoint.array_hashes(one, step) != checkpoint.array_hashes(other, step):
            yield f"{name}/{step}: the hashes of arrays differ"
        notes = [checkpoint.restore(folder, step, {})[1] for folder in (one, other)]
        if _ordered(notes[0]) != _ordered(notes[1]):
            yield f"{name}/{step}: what was noted with the arrays differs"
        arrays = [saved_arrays(folder, step) for folder in (one, other)]
        for key in sorted(arrays[0].keys() | arrays[1].keys()):
            if not all(key in found for found in arrays):
                yield f"{name}/{step}: {key} is in one of the two"
            elif not _same_bits(arrays[0][key], arrays[1][key]):
                yield f"{name}/{step}: {key} differs"


def saved_arrays(folder: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Return every array of a step by "item/path", read without any model."""
    found = {}
    for item in checkpoint.item_names(folder, step):
        read = ocp.PyTreeCheckpointer().restore(folder / str(step) / item)
        named = tree.flatten_names(read)
        found |= {f"{item}/{name}": np.asarray(x) for name, x in named.items()}
    return found


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.tobytes() == other.tobytes()
    )
