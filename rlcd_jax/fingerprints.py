"""A fingerprint of each array: 64 bits that any changed bit of it changes.

Each element is mixed with its place in the array and the results are added, modulo
2^32, twice with different numbers. A sum does not ask in which order, nor how the array
lies on devices: the same values have the same fingerprint on one device and on a pod,
so a checkpoint is checked on whatever it is restored. It finds damage; it is no seal
against somebody who wants to deceive.

Source of the mixing: the last step of MurmurHash3 (32 bits), which maps words one to
one: a single changed element always changes the sum.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import processes, tree

Tree = Any
FEW = 1 << 22  # elements up to which the host is done before a compiler
_SEEDS = (0x2545F491, 0x9E3779B9)  # of the two sums; any two odd numbers


def of_tree(arrays: Tree, rounded_to: str | None = None) -> dict[str, str]:
    """Return 16 hexadecimal digits for each array of a tree, by its path.

    Args:
      arrays: tree of JAX or NumPy arrays, of typed keys too; all processes of a job
        must ask.
      rounded_to: dtype of which the digits are, whatever the arrays are kept in;
        None: of the arrays as they are.
    """
    named = tree.flatten_names(arrays)
    if not named:
        return {}
    leaves = list(named.values())
    if rounded_to is None and sum(map(np.size, leaves)) <= FEW and _at_hand(leaves):
        sums = np.stack([_sums_of_few(leaf) for leaf in leaves])
    else:
        sums = np.asarray(processes.fetch(_program(rounded_to)(leaves)))
    return {
        name: f"{int(one):08x}{int(other):08x}"
        for name, (one, other) in zip(named, sums, strict=True)
    }


@functools.lru_cache(maxsize=2)
def _program(rounded_to: str | None) -> Any:
    """Return the compiled (arrays) -> sums [N, 2] uint32: an array is read once."""

    def one(leaf: jax.Array) -> jax.Array:
        return sums(leaf if rounded_to is None else leaf.astype(rounded_to))

    return jax.jit(lambda leaves: jnp.stack([one(leaf) for leaf in leaves]))


def _at_hand(leaves: list[Any]) -> bool:
    """Whether all arrays lie in this process's own memory."""
    return all(
        not isinstance(leaf, jax.Array)
        or leaf.is_fully_addressable
        and all(device.platform == "cpu" for device in leaf.devices())
        for leaf in leaves
    )


def _sums_of_few(array: Any) -> np.ndarray:
    """Return what `sums` does, by NumPy."""
    if isinstance(array, jax.Array) and _is_key(array):
        array = jax.random.key_data(array)
    array = np.atleast_1d(array)  # NumPy warns of numbers that wrap, not of arrays
    return np.array([np.sum(one, dtype=np.uint32) for one in _mixed(array, np)])


def sums(array: jax.Array) -> jax.Array:
    """Return the two sums of an array, [2] uint32."""
    mixed = _mixed(jax.random.key_data(array) if _is_key(array) else array, jnp)
    # One reduction of both: the compiler then holds none of what it adds, where it
    # would hold several copies of the array for two.
    added = jax.lax.reduce(
        mixed,
        (jnp.uint32(0),) * len(mixed),
        lambda one, other: tuple(a + b for a, b in zip(one, other, strict=True)),
        tuple(range(mixed[0].ndim)),
    )
    return jnp.stack(added)


def _is_key(array: Any) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _mixed(array: Any, xp: Any) -> tuple[Any, ...]:
    """Return what is added up of an array, once for each seed, as `xp` computes it."""
    words = _words(array, xp)
    places = _places(words.shape, xp)
    return tuple(_mix(words ^ _mix(places + xp.uint32(seed))) for seed in _SEEDS)


def _words(array: Any, xp: Any) -> Any:
    """Return the bits of each element as a word of 32 bits, of the array's shape."""
    if array.dtype == np.bool_:
        return array.astype(xp.uint32)
    width = array.dtype.itemsize
    if width > 4:  # two words, of which one would be lost
        array = array[..., None].view(xp.uint32)  # [..., 2]
        return array[..., 0] ^ _mix(array[..., 1] + xp.uint32(1))
    return array.view(f"uint{8 * width}").astype(xp.uint32)


def _places(shape: tuple[int, ...], xp: Any) -> Any:
    """Return the place of each element in the array, modulo 2^32."""
    places = xp.zeros(shape, xp.uint32)
    for axis, size in enumerate(shape):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        along = xp.arange(size, dtype=xp.uint32) * xp.uint32(stride)
        places = places + along.reshape(-1, *(1,) * (len(shape) - axis - 1))
    return places


def _mix(words: Any) -> Any:
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
