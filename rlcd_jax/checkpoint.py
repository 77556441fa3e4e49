"""Checkpoints: named trees of arrays and one JSON object a step, kept by Orbax.

A checkpoint is `folder/<step>/` with one subfolder for each item (`params`,
`value`, `optimizers` ...) and `meta`, a JSON object for what is not an array:
keys, the KL coefficient, the position in the data, the hash of the config. A step
appears under its name only when it is whole, so a crash leaves the step before. Arrays
are saved in the dtype they live in, and can be restored into any sharding.

Beside them lies `hashes`: a fingerprint of each array, taken before it was written.
What is restored is held against it, so that a flipped bit is named and not computed
with; and a step of which a file is gone or cut is told from one that does not fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from rlcd_jax import (
    item_forms,
    jsonl,
    local_paths,
    processes,
    pulse,
    retention,
    tree,
)

Tree = Any
_TIMES = "_CHECKPOINT_METADATA"  # of a step, Orbax's own
_FORMAT = ocp.path.step.standard_name_format()
META, HASHES = "meta", "hashes"  # what of a step is JSON
DROPPED = ".dropped-"  # before step and name of an item whose files are being deleted
DAMAGED = ".damaged-"  # before a step that was damaged, and was gone on from without
# Of an array in a file: read whole even where a device needs a part of it.
CHUNK_BYTES = 2**24


class Damaged(ValueError):
    """The files of a step are not those that were saved."""


class Checkpointer:
    """Saves and restores the checkpoints of one folder.

    Saving goes on in the background: `save` returns once the arrays are copied, so
    that they may be donated. `wait` or `close` before the process ends.

    Args:
      folder: of the checkpoints; made when absent.
      max_to_keep: how many of the latest checkpoints stay; None keeps all.
      keep_period: steps divisible by this stay for ever; None makes no exception.
      regular: which stay, instead of these two.
      asynchronous: False makes `save` return when the step is on disk.
      most_bytes: of an item that are packed at once, more than each of its arrays has;
        None: all of it, as another copy in memory.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_to_keep: int | None = None,
        keep_period: int | None = None,
        regular: retention.Regular | None = None,
        asynchronous: bool = True,
        most_bytes: int | None = None,
    ) -> None:
        for name, value in (("max_to_keep", max_to_keep), ("keep_period", keep_period)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {value}")
        self.folder = _absolute(folder)
        if regular is not None:
            _finish_deletions(self.folder, regular)
        _forget_damaged_times(self.folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            keep_period=keep_period,
            preservation_policy=regular,
            create=True,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=asynchronous,
        )
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, handler_registry=_packing(most_bytes)
        )

    def save(
        self, step: int, items: Mapping[str, Tree], meta: Mapping[str, Any]
    ) -> None:
        """Save one step.

        Args:
          step: number of the step, later than every step in the folder.
          items: trees of JAX or NumPy arrays by name; `meta` is taken.
          meta: anything that JSON can hold.

        Raises:
          ValueError: the step is not a later one, an item is empty or has a leaf that
            is not an array.
        """
        latest = self.latest_step()
        if latest is not None and step <= latest:
            raise ValueError(
                f"cannot save step {step}: {self.folder} already holds step {latest}; "
                "steps must increase. To go on from an earlier step, remove the later "
                "ones first"
            )
        for name, item in items.items():
            _check_item(name, item)
        args = {name: _save_args(item) for name, item in items.items()}
        args[META] = ocp.args.JsonSave(dict(meta))
        hashes: dict[str, Any] = {
            n: item_forms.described(item) for n, item in items.items()
        }
        hashes[META] = _json_hash(meta)
        hashes[HASHES] = _json_hash(hashes)  # of all of the others
        args[HASHES] = ocp.args.JsonSave(hashes)
        if not self._manager.save(int(step), args=ocp.args.Composite(**args)):
            raise RuntimeError(f"Orbax did not save step {step} in {self.folder}")
        pulse.beat(f"a save of step {step} in {self.folder.parent.name}")

    def restore(
        self, step: int, abstract: Mapping[str, Tree]
    ) -> tuple[dict[str, Tree], dict[str, Any]]:
        """Restore one step; see `checkpoint.restore`."""
        self.wait()
        return restore(self.folder, step, abstract)

    def set_aside(self, step: int) -> str:
        """Take a damaged step out of the way; return where its files are now.

        They are kept for whoever wants to look at them, until the stage is done.
        """
        self.wait()
        aside = self.folder / f"{DAMAGED}{step}"
        if processes.is_writer():
            if aside.exists():
                aside.rmtree()
            (self.folder / str(step)).rename(aside)
        processes.barrier(f"step {step} is set aside")
        self._manager.reload()
        return str(aside)

    def latest_step(self) -> int | None:
        """Return the latest step in the folder, one being saved included, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Return the steps in the folder in rising order."""
        return sorted(self._manager.all_steps())

    def remove(self, step: int) -> None:
        """Delete one step that is in the folder."""
        self.wait()
        self._manager.delete(int(step))

    def wait(self) -> None:
        """Return when all that was saved is whole on disk; raise what went wrong."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait and let go of the folder."""
        self._manager.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _packing(most_bytes: int | None) -> ocp.handlers.CheckpointHandlerRegistry:
    """Return what writes and reads items by the kind of their arguments."""
    most_gb = {} if most_bytes is None else {"save_concurrent_gb": most_bytes / 10**9}
    handlers = {
        ocp.args.StandardSave: ocp.StandardCheckpointHandler(**most_gb),
        ocp.args.JsonSave: ocp.JsonCheckpointHandler(),
    }
    out = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for kind, handler in handlers.items():
        out.add(None, kind, handler)
    return out


def _finish_deletions(folder: epath.Path, regular: retention.Regular) -> None:
    """Delete steps of which a run that was killed was deleting the files."""
    if processes.is_writer():
        steps = _steps(folder)
        for step in {*steps} - regular.of(steps):
            _drop(folder, str(step))
        _clear(folder, DROPPED)
    processes.barrier("old checkpoints are deleted")


def _forget_damaged_times(folder: epath.Path) -> None:
    """Delete what Orbax notes of a step as a whole, where that cannot be read.

    It would keep Orbax from listing any step; a step is read, and held against its
    hashes, without it.
    """
    if processes.is_writer():
        for step in _steps(folder):
            try:
                _ = _FORMAT.find_step(folder, step).commit_timestamp
            except Exception as error:  # of whatever the file is
                path = folder / str(step) / _TIMES
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                told = "%s is damaged (%s); it is deleted, and the step read without"
                logging.warning(told, path, said)
                path.unlink(missing_ok=True)
    processes.barrier("checkpoints can be listed")


def latest_step(folder: str | os.PathLike[str]) -> int | None:
    """Return the latest whole step in `folder`; None when there is none."""
    return max(_steps(_absolute(folder)), default=None)


def whole_steps(folder: str | os.PathLike[str]) -> list[int]:
    """Return the whole steps in `folder`, in rising order."""
    return _steps(_absolute(folder))


def restore(
    folder: str | os.PathLike[str], step: int, abstract: Mapping[str, Tree]
) -> tuple[dict[str, Tree], dict[str, Any]]:
    """Restore items of one step into the shardings asked for.

    Args:
      folder: folder of the checkpoints.
      step: a step that is there.
      abstract: what to restore by item name, not necessarily all that was saved:
        trees whose leaves have a shape, a dtype and a sharding (`abstract_like`).

    Returns:
      The items asked for, with the structure of `abstract`, and the JSON object.

    Raises:
      Damaged: what is there is not what was saved; the message names it.
      ValueError: the step or an item is not there, or a parameter is missing, unknown
        or has another shape or dtype; the message names it.
    """
    args = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
    args[META] = ocp.args.JsonRestore()
    path = _absolute(folder) / str(step)
    with _fitting_reader(folder, step, abstract) as (reader, hashes), _whole(path):
        restored = reader.restore(path, args=ocp.args.Composite(**args))
    changed = [] if hashes[META] == _json_hash(restored[META]) else [META]
    for name in abstract:
        for key, value in item_forms.described(restored[name]).items():
            if hashes[name][key] != value:
                changed.append(f"{name}/{key}")
    if changed:
        told = item_forms.listed([f"{name} is not as it was saved" for name in changed])
        raise Damaged(f"checkpoint {path} is damaged:{told}")
    return {name: restored[name] for name in abstract}, restored[META]


def _json_hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextlib.contextmanager
def _whole(path: epath.Path) -> Iterator[None]:
    """Tell whatever goes wrong in reading a step as damage of its files."""
    try:
        yield
    except Exception as error:  # of the many libraries that have a part in it
        said = str(error).strip().partition("\n")[0][:300]
        raise Damaged(
            f"checkpoint {path} is damaged, or cannot be read: "
            f"{type(error).__name__}: {said}"
        ) from error


def check(
    folder: str | os.PathLike[str], step: int, abstract: Mapping[str, Tree]
) -> None:
    """Refuse a step from which `restore` could not take this; no array is read.

    Args:
      folder: folder of the checkpoints.
      step: a step that is there.
      abstract: as in `restore`; shardings are not looked at.

    Raises:
      ValueError: as `restore`.
    """
    with _fitting_reader(folder, step, abstract):
        pass


@contextlib.contextmanager
def _fitting_reader(
    folder: str | os.PathLike[str], step: int, abstract: Mapping[str, Tree]
) -> Iterator[tuple[ocp.Checkpointer, dict[str, Any]]]:
    """Open a step that has these items in these shapes, with its hashes; see `restore`.

    What was saved is known from the hashes: where what Orbax says of the files differs,
    they are damaged.
    """
    folder = _absolute(folder)
    saved_items = _items(folder, step)
    path = folder / str(step)
    with _whole(path):
        hashes = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / HASHES)
        if hashes.pop(HASHES) != _json_hash(hashes):
            raise ValueError(f"{HASHES} are not as they were saved")
        forms = {name: item_forms.saved_forms(hashes[name]) for name in saved_items}
    unknown = sorted(set(abstract) - set(saved_items))
    if unknown:
        was_there = unknown[0] in hashes
        raise (Damaged if was_there else ValueError)(
            f"checkpoint {folder}/{step} has no item {unknown[0]!r}; it has "
            f"{', '.join(saved_items) or 'none'}"
            + (", and it was saved with it" if was_there else "")
        )
    lines = []
    for name, item in abstract.items():
        lines += item_forms.differences(name, item_forms.forms(item), forms[name])
    if lines:
        _refuse(path, lines)
    with _whole(path):
        # Of these items alone: for each array of an item Orbax opens what holds it.
        handler = ocp.StandardCheckpointHandler()
        metadata = {name: handler.metadata(path / name).tree for name in abstract}
        for name, item in metadata.items():
            lines += item_forms.differences(name, item_forms.forms(item), forms[name])
    if lines:
        told = "the description of its arrays is not that of what was saved"
        raise Damaged(
            f"checkpoint {path} is damaged: {told}:{item_forms.listed(lines)}"
        )
    needs = (_read_at_once(item, metadata[name]) for name, item in abstract.items())
    with _reader(saved_items, max(needs, default=0)) as reader:
        yield reader, hashes


def _reader(names: Collection[str], most_bytes: int) -> ocp.Checkpointer:
    """Return what reads items of these names, in pieces of at most so many bytes."""
    # One for each saved item: Orbax warns of an item that nobody could read.
    most_gb = (most_bytes + 1) / 10**9
    handlers: dict[str, Any] = {
        name: ocp.StandardCheckpointHandler(restore_concurrent_gb=most_gb)
        for name in names
    }
    handlers |= {name: ocp.JsonCheckpointHandler() for name in (META, HASHES)}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))


def array_hashes(folder: str | os.PathLike[str], step: int) -> dict[str, Any]:
    """Return by item and path what lies beside a step's arrays: type, shape and hash.

    Of what was saved, also where items were deleted since; what else was noted with the
    step is no part of it.

    Raises:
      ValueError: it is not there, or is damaged.
    """
    hashes = jsonl.read_object(_absolute(folder) / str(step) / HASHES / "metadata")
    return {name: of for name, of in hashes.items() if name not in (META, HASHES)}


def item_names(folder: str | os.PathLike[str], step: int) -> list[str]:
    """Return the names of the items saved at a step, without those deleted since.

    Raises:
      ValueError: the step is not there.
    """
    return _items(_absolute(folder), step)


def keep_items(folder: str | os.PathLike[str], names: Collection[str]) -> None:
    """Delete all items but these of every step: nothing can resume from it then.

    See `drop_items` for what a kill leaves.
    """
    folder = _absolute(folder)
    if processes.is_writer():
        every = {name for step in _steps(folder) for name in _items(folder, step)}
        drop_items(folder, every - {*names})
    processes.barrier("items of checkpoints are deleted")


def drop_items(folder: str | os.PathLike[str], names: Collection[str]) -> None:
    """Delete these items of every step, such as an optimizer's moments.

    And what is left of steps that were damaged.

    An item goes at once, by its name, and then its files; so a kill leaves it whole or
    not at all, and what is left of its files goes with the next call. The step's other
    items can be read at any moment.

    Args:
      folder: folder of the checkpoints, which nobody is writing to; of the processes
        of a job one alone deletes.
      names: items to delete; a step may lack them.
    """
    folder = _absolute(folder)
    _clear(folder, DROPPED, DAMAGED)
    for step in _steps(folder):
        for name in names:
            if (folder / str(step) / name).exists():
                # Not beside the other items: Orbax would read what is left of it.
                _drop(folder, str(step), name)


def keep_latest(folder: str | os.PathLike[str], also: Collection[int] = ()) -> None:
    """Delete all steps but the latest; see `drop_items` for what a kill leaves.

    Args:
      folder: of the checkpoints.
      also: steps that stay too.
    """
    folder = _absolute(folder)
    for step in _steps(folder)[:-1]:
        if step not in also:
            _drop(folder, str(step))


def _drop(folder: epath.Path, *names: str) -> None:
    """Delete what lies there under these names: at once by its name, then its files."""
    folder.joinpath(*names).rename(folder / f"{DROPPED}{'-'.join(names)}").rmtree()


def _clear(folder: epath.Path, *kinds: str) -> None:
    """Delete what a kill has left of deletions, or what was set aside."""
    for kind in kinds:
        for left in folder.glob(f"{kind}*"):
            left.rmtree()


def abstract_like(item: Tree, sharding: Any = None) -> Tree:
    """Describe a tree of arrays for `restore`.

    Args:
      item: tree whose leaves have a shape and a dtype; JAX arrays, or the result of
        `jax.eval_shape`.
      sharding: one sharding for all leaves, or a tree of shardings like `item`;
        None takes the sharding that each leaf has.

    Returns:
      The same tree of `jax.ShapeDtypeStruct` with shardings.
    """
    if sharding is None:
        sharding = jax.tree.map(lambda leaf: leaf.sharding, item)
    elif isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, item)
    return jax.tree.map(
        lambda leaf, one: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one),
        item,
        sharding,
    )


def _absolute(folder: str | os.PathLike[str]) -> epath.Path:
    """Return a folder as Orbax wants it."""
    return epath.Path(local_paths.check(folder, "checkpoints")).resolve()


def _steps(folder: epath.Path) -> list[int]:
    """Return the whole steps in a folder in rising order."""
    if not folder.exists():
        return []
    # On this machine a step has a number for a name only when it is whole. Orbax's own
    # listing says the same, by a new thread for each name.
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdigit() and path.is_dir()
    )


def _items(folder: epath.Path, step: int) -> list[str]:
    """Return the names of the items saved at a step."""
    steps = _steps(folder)
    if step not in steps:
        raise ValueError(
            f"{folder} has no checkpoint of step {step}; it has "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    inside = (path for path in (folder / str(step)).iterdir() if path.is_dir())
    return sorted(path.name for path in inside if path.name not in (META, HASHES))


def _read_at_once(wanted: Tree, saved: Tree) -> int:
    """Return the most bytes of files that one shard of an item is cut out of.

    So many may be in memory at a time beside the shards: Orbax refuses to read a shard
    that needs more than its limit, and without one reads all of them at once.
    """
    chunks = {
        name: leaf.storage.chunk_shape
        for name, leaf in tree.flatten_names(saved).items()
    }
    return max(
        (
            _chunk_bytes(leaf, chunks[name])
            for name, leaf in tree.flatten_names(wanted).items()
        ),
        default=0,
    )


def _chunk_bytes(leaf: Any, chunk: tuple[int, ...] | None) -> int:
    """Return the bytes of the chunks of the neediest shard of an array."""
    shape, dtype = item_forms.form(leaf)
    shards = [(slice(None),) * len(shape)]
    where = getattr(leaf, "sharding", None)
    if where is not None and shape == tuple(leaf.shape):
        shards = where.addressable_devices_indices_map(shape).values()
    cells = (
        math.prod(
            (-(-stop // width) - start // width) * width
            for (start, stop, _), width in zip(
                (part.indices(size) for part, size in zip(shard, shape, strict=True)),
                chunk or shape,
                strict=True,
            )
        )
        for shard in shards
    )
    return max(cells, default=0) * dtype.itemsize


def _save_args(item: Tree) -> ocp.args.StandardSave:
    chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
    return ocp.args.StandardSave(item, jax.tree.map(lambda _: chunked, item))


def _check_item(name: str, item: Tree) -> None:
    """Refuse what Orbax would not save, or not save as it is."""
    if name in (META, HASHES) or "/" in name:
        raise ValueError(f"{name!r} cannot be the name of an item; choose another")
    for path, leaf in tree.flatten_names(item).items():
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise ValueError(
                f"{name}/{path} is a {type(leaf).__name__}; an item holds arrays only, "
                f"other things belong in {META!r}"
            )
    if jax.tree.structure(item) == jax.tree.structure(None) or item == {}:
        raise ValueError(f"item {name!r} is empty; leave it out")


def _refuse(path: epath.Path, lines: list[str]) -> None:
    """Raise the one error about all that does not fit."""
    raise ValueError(
        f"checkpoint {path} does not fit:{item_forms.listed(lines)}\n"
        "Use the model and optimizer settings of the run that saved it (config.json)"
    )
