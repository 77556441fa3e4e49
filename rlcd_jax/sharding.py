"""From logical axes to a device mesh of (slice, data, fsdp, tensor).

A parameter or an activation names its axes by what they mean ("heads", "mlp",
"batch"); one small table says which mesh axes carry them. Changing a strategy is
editing a line of `RULES`. Constraints act on every backend, CPU included, so that
eight fake devices in a test see each mistake that a pod would see.

A slice is a group of devices with fast links among them. Between slices there is only
the network of the data centre, so they hold replicas: what crosses it is a sum of
gradients once an update.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("slice", "data", "fsdp", "tensor")
BATCH_AXES = ("slice", "data", "fsdp")
_AUTO = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)  # GSPMD places what is open

# Logical axis -> mesh axes. None: replicated. An axis that is not here is an error.
RULES: dict[str, tuple[str, ...] | None] = {
    "batch": BATCH_AXES,
    "slots": BATCH_AXES,
    "rows": ("slice", "data"),  # of activations that go to weights split over fsdp
    "shards": ("fsdp",),  # of rows, beside copies of what fsdp splits
    "length": None,
    "layers": None,
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "norm": None,
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "rank": None,  # of adapters
    "activation": None,
    "scalar": None,
}


def make_mesh(
    data: int,
    fsdp: int,
    tensor: int,
    devices: Sequence[Any] | None = None,
    *,
    slices: int = 1,
) -> Mesh:
    """Return a mesh with the axes of `MESH_AXES`.

    Args:
      data: replicas of the model in a slice; -1 takes all devices that the others
        leave.
      fsdp: ways in which parameters and the batch are split.
      tensor: ways in which heads, feed-forward and vocabulary are split.
      devices: the devices to use; all of this job's by default.
      slices: groups of devices that only the data centre's network joins; each holds
        whole replicas.

    Raises:
      ValueError: the product of the four is not the number of devices, or the devices
        form other slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = mesh_shape(data, fsdp, tensor, len(devices), slices=slices)
    return Mesh(place_devices(devices, shape), MESH_AXES, axis_types=_AUTO)


def place_devices(devices: Sequence[Any], shape: Sequence[int]) -> np.ndarray:
    """Return devices in the order of a mesh: slice after slice.

    Devices that say which slice they are of are grouped by that; GPUs and CPUs may
    be cut into any number of slices, which are then of neighbours in the list.

    Args:
      devices: as many as the mesh has.
      shape: of the mesh, by `MESH_AXES`.

    Returns:
      Array of devices of that shape.

    Raises:
      ValueError: TPU devices form another number of slices.
    """
    slices, *inner = shape
    groups = {getattr(device, "slice_index", None) for device in devices}
    if slices > 1 and len(groups) == slices:
        return mesh_utils.create_hybrid_device_mesh(
            (1, *inner), (slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    if devices[0].platform == "tpu" and len(groups) != slices:
        raise ValueError(
            f"mesh.slices={slices} but the devices form {len(groups)} slices; accepted "
            f"here: {len(groups)}"
        )
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def abstract_mesh(
    data: int, fsdp: int, tensor: int, num_devices: int, *, slices: int = 1
) -> jax.sharding.AbstractMesh:
    """Return the mesh of devices that need not exist: for shapes and plans only.

    Arguments and errors are those of `make_mesh`.
    """
    shape = mesh_shape(data, fsdp, tensor, num_devices, slices=slices)
    return jax.sharding.AbstractMesh(shape, MESH_AXES, axis_types=_AUTO)


def mesh_shape(
    data: int, fsdp: int, tensor: int, num_devices: int, *, slices: int = 1
) -> tuple[int, int, int, int]:
    """Return the sizes of `MESH_AXES`, with data = -1 replaced by what is left.

    Raises:
      ValueError: the product of the four is not the number of devices.
    """
    if data == -1:
        data = num_devices // max(slices * fsdp * tensor, 1)
    shape = (slices, data, fsdp, tensor)
    if min(shape) < 1 or math.prod(shape) != num_devices:
        raise ValueError(
            f"mesh (slices, data, fsdp, tensor) = {shape} needs {math.prod(shape)} "
            f"devices but there are {num_devices}; set mesh.data, mesh.fsdp, "
            "mesh.tensor and mesh.slices so that their product is the number of "
            "devices (data=-1 takes the rest)"
        )
    return shape


def batch_ways(mesh: Mesh | jax.sharding.AbstractMesh) -> int:
    """Return among how many devices the rows of a batch, or slots, are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def partition_spec(axes: Sequence[str | None], name: str = "array") -> PartitionSpec:
    """Return the PartitionSpec of an array whose axes have these logical names.

    Raises:
      ValueError: a logical axis is not in `RULES`, or two of them lie on one mesh
        axis; the message names the array.
    """
    for axis in axes:
        if axis is not None and axis not in RULES:
            raise ValueError(
                f"{name} has the logical axis {axis!r}, which sharding.RULES does not "
                f"know; accepted: {', '.join(sorted(RULES))}"
            )
    entries = [None if axis is None else RULES[axis] for axis in axes]
    used = Counter(axis for entry in entries for axis in entry or ())
    doubled = [axis for axis, times in used.items() if times > 1]
    if doubled:
        raise ValueError(
            f"{name} has the logical axes {tuple(axes)}, and sharding.RULES splits two "
            f"of them over the mesh axis {doubled[0]!r}; a mesh axis can split one"
        )
    return PartitionSpec(*entries)


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
            entry = (axis and RULES[axis]) or ()
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


def shape_of_device(
    shape: tuple[int, ...], axes: Sequence[str | None]
) -> tuple[int, ...]:
    """Return what one device of the ambient mesh has of an array, by its logical axes.

    Without an ambient mesh it has all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return shape
    return NamedSharding(mesh, partition_spec(axes)).shard_shape(shape)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def is_on_cpu(mesh: Mesh | jax.sharding.AbstractMesh) -> bool:
    """Say whether the devices of a mesh are CPUs; the mesh of a plan may have none."""
    if isinstance(mesh, jax.sharding.AbstractMesh):
        return False
    return mesh.devices.flat[0].platform == "cpu"


def works_ahead(mesh: Mesh | jax.sharding.AbstractMesh) -> bool:
    """Say whether a program is given to the devices before the one before is over.

    CPUs are the host too, and have nothing to do meanwhile that another could do; what
    both programs hold would lie there at once.
    """
    return not is_on_cpu(mesh)


def compiler_options(mesh: Mesh | jax.sharding.AbstractMesh) -> dict[str, str] | None:
    """Return how a program with large arrays is compiled for a mesh; None: as usual.

    XLA orders a program for CPUs so that much of it could run side by side, and holds
    the arrays of all that: of an update of PPO twice those of the other order. With
    several devices it stays: in the other order some wait for each other for ever.
    """
    order = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return order if is_on_cpu(mesh) and mesh.size == 1 else None
