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
    sums = np.asarray(processes.fetch(_program(rounded_to)(list(named.values()))))
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


def sums(array: jax.Array) -> jax.Array:
    """Return the two sums of an array, [2] uint32."""
    words = _words(array)
    places = _places(words.shape)
    mixed = tuple(_mix(words ^ _mix(places + jnp.uint32(seed))) for seed in _SEEDS)
    # One reduction of both: the compiler then holds none of what it adds, where it
    # would hold several copies of the array for two.
    added = jax.lax.reduce(
        mixed,
        (jnp.uint32(0),) * len(mixed),
        lambda one, other: tuple(a + b for a, b in zip(one, other, strict=True)),
        tuple(range(words.ndim)),
    )
    return jnp.stack(added)


def _words(array: jax.Array) -> jax.Array:
    """Return the bits of each element as a word of 32 bits, of the array's shape."""
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    width = array.dtype.itemsize
    if width > 4:  # two words, of which one would be lost
        array = jax.lax.bitcast_convert_type(array, jnp.uint32)  # [..., 2]
        return array[..., 0] ^ _mix(array[..., 1] + jnp.uint32(1))
    bits = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{8 * width}"))
    return bits.astype(jnp.uint32)


def _places(shape: tuple[int, ...]) -> jax.Array:
    """Return the place of each element in the array, modulo 2^32."""
    places = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        places += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return places


def _mix(words: jax.Array) -> jax.Array:
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
