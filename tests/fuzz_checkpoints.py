"""Files of a saved step, ours and Orbax's, damaged; see `fuzz_records`.

Whatever a file says, a training goes on from the newest step as it was saved, or from
the one before and names the one that is damaged: no number is another.
"""

from __future__ import annotations

import functools
import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import damage
import jax
import numpy as np
import optax
import strictly as s
from fuzz_records import Case, json_damage
from test_damaged_checkpoints import loss, params_of, specs

from rlcd_jax import checkpoint, sharding
from rlcd_jax.job import contents, trainer

STEPS = (1, 2)
# Of these nothing is read that is in a number.
SPARE = (
    "_CHECKPOINT_METADATA",
    "policy/_sharding",
    "policy/ocdbt.process_0/manifest.ocdbt",
)


@functools.cache
def _program() -> trainer.Trainer:
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    made = {"policy": specs()}
    return trainer.Trainer(mesh, made, optax.adam(1e-3), loss, num_micro=1, weight="w")


def _meta(step: int) -> dict[str, Any]:
    return {"kl_coef": 0.004 * step, "rollbacks": [[1, step]], "note": "é"}


@functools.cache
def _saved() -> dict[str, bytes]:
    """Return the files of two steps by their place in the folder."""
    with tempfile.TemporaryDirectory() as place:
        with checkpoint.Checkpointer(place, asynchronous=False) as saver:
            for step in STEPS:
                state = _program().create(params_of(step))
                _program().save(saver, step, state, _meta(step))
        files = (path for path in pathlib.Path(place).rglob("*") if path.is_file())
        return {str(p.relative_to(place)): p.read_bytes() for p in files}


@functools.cache
def _leaves(step: int) -> list[np.ndarray]:
    state = _program().create(params_of(step))
    return list(map(np.asarray, jax.tree.leaves(state)))


def _folder(place: pathlib.Path) -> pathlib.Path:
    folder = place / "checkpoints"
    for name, data in _saved().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


class _Heard(logging.Handler):
    """Keeps what a context has logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __enter__(self) -> _Heard:
        logging.getLogger("absl").addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger("absl").removeHandler(self)


def _go_on(folder: pathlib.Path, path: pathlib.Path) -> bool:
    """Go on from a folder; raise what was told where it is not from the newest step."""
    with _Heard() as heard, checkpoint.Checkpointer(folder) as saver:
        state, step, meta = _program().start_or_resume(saver, lambda: params_of(0))
    aside = folder / f"{checkpoint.DAMAGED}{STEPS[-1]}"
    if aside.exists():
        shutil.move(aside, folder / str(STEPS[-1]))
    assert step in STEPS
    for one, other in zip(jax.tree.leaves(state), _leaves(step), strict=True):
        assert np.asarray(one).tobytes() == other.tobytes(), step
    assert json.dumps(meta) == json.dumps(_meta(step)), meta
    if not path.exists():  # it was deleted, and that was said
        told = [said for said in heard.said if "it is deleted" in said]
        assert len(told) == 1 and step == STEPS[-1], heard.said
        raise ValueError(told[0])
    if step == STEPS[-1]:
        return True
    assert len(heard.said) == 2 and "goes on from step 1" in heard.said[1]
    raise ValueError(heard.said[0])


def _of_step(name: str) -> Callable[[pathlib.Path], Case]:
    """Return the maker of a case: a file of the newest step, the largest of its name."""

    def make(place: pathlib.Path) -> Case:
        folder = _folder(place)
        path = max((folder / "2").glob(name), key=lambda path: path.stat().st_size)
        content = path.read_bytes()
        is_json = content[:1] == b"{"
        return Case(
            path,
            json_damage(json.loads(content)) if is_json else damage.contents(content),
            lambda: _go_on(folder, path),
            lambda data: True,
            exact=False,
            said=f"{folder}/2",
            share=1 / 3,
            harms=name not in SPARE,
        )

    return make


def hashes_of_a_finished_stage(place: pathlib.Path) -> Case:
    """The same file where the next stage asks whether the weights are those of DONE."""
    folder = _folder(place)
    path = folder / "2" / checkpoint.HASHES / "metadata"
    whole = json.loads(path.read_bytes())
    right = contents.weights_hash(folder)
    apart = (checkpoint.META, checkpoint.HASHES)

    def oracle(data: bytes) -> bool:
        found = s.value(s.decoded(data))
        s.need(isinstance(found, dict))
        own, other = (
            {name: one for name, one in read.items() if name not in apart}
            for read in (found, whole)
        )
        return json.dumps(own, sort_keys=True) == json.dumps(other, sort_keys=True)

    return Case(
        path, json_damage(whole), lambda: contents.weights_hash(folder) == right, oracle
    )


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    "hashes_of_a_finished_stage": hashes_of_a_finished_stage,
} | {
    f"step_{title}": _of_step(name)
    for title, name in {
        "hashes": "hashes/metadata",
        "meta": "meta/metadata",
        "metadata": "_CHECKPOINT_METADATA",
        "item_metadata": "policy/_METADATA",
        "array_metadata": "policy/array_metadatas/process_0",
        "sharding": "policy/_sharding",
        "manifest": "policy/manifest.ocdbt",
        "process_manifest": "policy/ocdbt.process_0/manifest.ocdbt",
        "nodes": "policy/d/*",
        "values": "policy/ocdbt.process_0/d/*",
    }.items()
}
