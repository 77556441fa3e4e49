"""From logical axes to a device mesh of (data, fsdp, tensor).

A parameter or an activation names its axes by what they mean ("heads", "mlp",
"batch"); one small table says which mesh axes carry them. Changing a strategy is
editing a line of `RULES`. Constraints act on every backend, CPU included, so that
eight fake devices in a test see each mistake that a pod would see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")
_AUTO = (jax.sharding.AxisType.Auto,) * 3  # GSPMD places what constraints leave open

# Logical axis -> mesh axes. None: replicated. An axis that is not here is an error.
RULES: dict[str, tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "slots": ("data", "fsdp"),
    "length": None,
    "layers": None,
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "norm": None,
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "activation": None,
    "scalar": None,
}


def make_mesh(
    data: int, fsdp: int, tensor: int, devices: Sequence[Any] | None = None
) -> Mesh:
    """Return a mesh with axes ("data", "fsdp", "tensor").

    Args:
      data: replicas of the model; -1 takes all devices that the others leave.
      fsdp: ways in which parameters and the batch are split.
      tensor: ways in which heads, feed-forward and vocabulary are split.
      devices: the devices to use; all of this job's by default.

    Raises:
      ValueError: the product of the three is not the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(data, fsdp, tensor, len(devices))
    if devices == list(jax.devices()):
        return jax.make_mesh(shape, MESH_AXES, axis_types=_AUTO)
    return Mesh(np.asarray(devices).reshape(shape), MESH_AXES, axis_types=_AUTO)


def abstract_mesh(
    data: int, fsdp: int, tensor: int, num_devices: int
) -> jax.sharding.AbstractMesh:
    """Return the mesh of devices that need not exist: for shapes and plans only.

    Arguments and errors are those of `make_mesh`.
    """
    shape = mesh_shape(data, fsdp, tensor, num_devices)
    return jax.sharding.AbstractMesh(shape, MESH_AXES, axis_types=_AUTO)


def mesh_shape(
    data: int, fsdp: int, tensor: int, num_devices: int
) -> tuple[int, int, int]:
    """Return (data, fsdp, tensor) with data = -1 replaced by what is left.

    Raises:
      ValueError: the product of the three is not the number of devices.
    """
    if data == -1:
        data = num_devices // max(fsdp * tensor, 1)
    shape = (data, fsdp, tensor)
    if min(shape) < 1 or math.prod(shape) != num_devices:
        raise ValueError(
            f"mesh (data, fsdp, tensor) = {shape} needs {math.prod(shape)} devices "
            f"but there are {num_devices}; set mesh.data, mesh.fsdp and mesh.tensor "
            "so that their product is the number of devices (data=-1 takes the rest)"
        )
    return shape


def partition_spec(axes: Sequence[str | None], name: str = "array") -> PartitionSpec:
    """Return the PartitionSpec of an array whose axes have these logical names.

    Raises:
      ValueError: a logical axis is not in `RULES`; the message names the array.
    """
    for axis in axes:
        if axis is not None and axis not in RULES:
            raise ValueError(
                f"{name} has the logical axis {axis!r}, which sharding.RULES does not "
                f"know; accepted: {', '.join(sorted(RULES))}"
            )
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def param_shardings(specs: Any, mesh: Mesh) -> Any:
    """Return the NamedSharding of every parameter in a tree of `ParamSpec`.

    A mesh axis that would split a parameter unevenly is an error, except for axes of
    size one; nothing is replicated in silence.

    Args:
      specs: nested dict whose leaves have `shape` and `axes`.
      mesh: a mesh with the axes of `MESH_AXES`.
    """

    def one(path: Any, spec: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if len(spec.axes) != len(spec.shape):
            raise ValueError(f"{name}: axes {spec.axes} for shape {spec.shape}")
        partition = partition_spec(spec.axes, name)
        for size, axis in zip(spec.shape, spec.axes, strict=True):
            entry = RULES[axis] or ()
            ways = int(np.prod([mesh.shape[a] for a in entry]))
            if size % ways:
                raise ValueError(
                    f"parameter {name} with shape {spec.shape}: its axis {axis!r} of "
                    f"size {size} does not divide among {ways} devices of mesh axis "
                    f"{entry}; choose mesh sizes that divide it"
                )
        return NamedSharding(mesh, partition)

    return jax.tree_util.tree_map_with_path(
        one, specs, is_leaf=lambda leaf: hasattr(leaf, "axes")
    )


def device_bytes(shapes: Any, shardings: Any = None) -> int:
    """Return the bytes that one device holds of a tree of arrays.

    Args:
      shapes: leaves have shape and dtype, and `sharding` if none is given.
      shardings: a tree like `shapes`, or one sharding for all; None: their own.
    """
    leaves = jax.tree.leaves(shapes)
    if shardings is None:
        places = [leaf.sharding for leaf in leaves]
    else:
        places = jax.tree.leaves(jax.tree.broadcast(shardings, shapes))
    return sum(
        int(np.prod(place.shard_shape(leaf.shape))) * np.dtype(leaf.dtype).itemsize
        for leaf, place in zip(leaves, places, strict=True)
    )


def check_heads(num_heads: int, num_kv_heads: int, mesh: Mesh) -> None:
    """Refuse a tensor axis that would cut a head in two.

    The flat rows of q, k and v may divide where whole heads do not, so shapes alone
    cannot show this mistake. LLaMA-30B has 52 heads: tensor=4, not 8.
    """
    ways = mesh.shape["tensor"]
    for name, count in (("heads", num_heads), ("key/value heads", num_kv_heads)):
        if count % ways:
            raise ValueError(
                f"the model has {count} {name}, which mesh.tensor={ways} does not "
                "divide; choose a tensor size that divides both head counts"
            )


def constrain(array: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Ask for `array` to be laid out by its logical axes on the ambient mesh.

    Args:
      array: any array with as many dimensions as there are axes.
      axes: its logical axes; None leaves a dimension replicated.

    Returns:
      The same values. Without an ambient mesh (`jax.set_mesh`) nothing is asked.
    """
    if array.ndim != len(axes):
        raise ValueError(f"{len(axes)} axes {tuple(axes)} for shape {array.shape}")
    if jax.sharding.get_abstract_mesh().empty:
        return array
    return jax.lax.with_sharding_constraint(array, partition_spec(axes))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
