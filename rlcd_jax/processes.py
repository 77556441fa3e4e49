"""The processes of a job: who writes, when all wait, arrays that all of them hold.

Every process of a job runs the same stages on the same mesh. Process 0 alone writes
files; the others read them behind a barrier. Arrays of the host reach a mesh of many
hosts through `place`, and come back through `fetch`, nowhere else.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its barrier needs no devices; there is no public one
from jax.experimental import multihost_utils

WRITER = 0
_QUESTIONS = itertools.count()  # of `agreed`; all processes ask the same
_ANSWERED = 7 * 86400.0  # seconds; where a process is lost the others end long before


def are_many() -> bool:
    """Say whether this process is one of several; starts no device."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_writer() -> bool:
    """Say whether this process is the one that writes files."""
    return not are_many() or jax.process_index() == WRITER


def barrier(name: str) -> None:
    """Return when every process of the job is here; at once if there is only one.

    Args:
      name: of the place in the program, which a hang or an error shows.
    """
    if are_many():
        multihost_utils.sync_global_devices(name)


def met(name: str, seconds: float) -> bool:
    """Say whether every process comes to the same place within a time.

    No device takes part, so that it can be asked when others may be using theirs. If
    some do not come, those that did must end: nothing else that they do together with
    the others would go well.

    Args:
      name: of the place, never used before.
      seconds: for which this process waits.
    """
    if not are_many():
        return True
    try:
        distributed.global_state.client.wait_at_barrier(name, int(1000 * seconds))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def agreed(what: str, value: bool) -> bool:
    """Return the writer's answer to a question that each process asks for itself.

    All processes must ask it at the same place of the program. No device takes part:
    what these are at work on is not waited for, and the writer waits for nobody.

    Args:
      what: is asked: whoever asks something else waits, and is given no wrong answer.
      value: the answer of this process.
    """
    if not are_many():
        return bool(value)
    name, client = f"{what}/{next(_QUESTIONS)}", distributed.global_state.client
    if is_writer():
        client.key_value_set(name, str(int(value)))
        return bool(value)
    return client.blocking_key_value_get(name, int(1000 * _ANSWERED)) == "1"


def by_writer(action: Callable[[], Any]) -> Any:
    """Let the writer do something once, and return its result on every process.

    Args:
      action: returns what JSON can hold.

    Raises:
      ValueError: the writer's, or that of a file it could not use, on every process.
    """
    if not are_many():
        return action()
    said: dict[str, Any] = {}
    if is_writer():
        try:
            said = {"result": action()}
        except (ValueError, OSError) as error:
            said = {"error": str(error)}
    text = json.dumps(said).encode()
    size = multihost_utils.broadcast_one_to_all(np.asarray(len(text), np.int32))
    sent = np.zeros(int(size), np.uint8)
    if is_writer():
        sent[:] = np.frombuffer(text, np.uint8)
    said = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes())
    if "error" in said:
        raise ValueError(said["error"])
    return said["result"]


def place(values: Any, shardings: Any) -> Any:
    """Return arrays of the host as arrays of the mesh.

    Args:
      values: tree of arrays that are whole, and the same, on every process.
      shardings: one for all leaves, or a tree of them like `values`.

    Returns:
      The tree with JAX arrays; each device holds its part and no more.
    """
    places = jax.tree.broadcast(shardings, values, is_leaf=_is_sharding)

    def one(value: Any, where: jax.sharding.Sharding) -> jax.Array:
        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, where, value.__getitem__)

    return jax.tree.map(one, values, places)


def fetch(values: Any) -> Any:
    """Return arrays of the mesh as NumPy arrays, whole on every process.

    What a program returns for the host should be replicated on the mesh; then nothing
    is sent. Arrays that are split among processes are gathered, so all must ask.
    """

    def gather(value: Any) -> Any:
        if not isinstance(value, jax.Array) or _is_here(value):
            return value
        return multihost_utils.process_allgather(value, tiled=True)

    return jax.device_get(jax.tree.map(gather, values))


def _is_here(array: jax.Array) -> bool:
    return array.is_fully_addressable or array.is_fully_replicated


def _is_sharding(value: Any) -> bool:
    return isinstance(value, jax.sharding.Sharding)
