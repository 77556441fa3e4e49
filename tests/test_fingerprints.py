"""Tests of rlcd_jax.fingerprints."""

from unittest import mock

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from rlcd_jax import fingerprints, sharding

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "int8", "bool")


def bits_of(shape, dtype, seed):
    words = np.random.default_rng(seed).integers(0, 2, shape, dtype=np.int64)
    return np.asarray(jnp.asarray(words * 3 + 1).astype(dtype))


def oracle(array):
    """Return both sums by Python's own integers, one element after the other."""

    def mix(x):
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
        return x ^ (x >> 16)

    words = array.reshape(-1).view(f"uint{8 * array.dtype.itemsize}").tolist()
    sums = [
        sum(mix(word ^ mix((place + seed) % 2**32)) for place, word in enumerate(words))
        for seed in (0x2545F491, 0x9E3779B9)
    ]
    return "".join(f"{one % 2**32:08x}" for one in sums)


@pytest.fixture(params=[fingerprints.FEW, 0], ids=["host", "compiled"])
def either(request, monkeypatch):
    """Few elements are mixed by NumPy, many by a compiled program."""
    monkeypatch.setattr(fingerprints, "FEW", request.param)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("dtype", DTYPES)
def test_fingerprint_is_that_of_an_oracle(dtype):
    array = bits_of((3, 5), dtype, 0)
    assert fingerprints.of_tree({"a": array}) == {"a": oracle(array)}


@hypothesis.given(
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([*DTYPES, "float64", "int64", "uint32"]),
    st.integers(0, 2**31),
)
@hypothesis.settings(max_examples=12)
def test_host_and_compiler_find_the_same(shape, dtype, seed):
    words = np.random.default_rng(seed).integers(0, 256, (*shape, 8), dtype=np.uint8)
    if dtype == "bool":
        array = words[..., 0] > 99
    else:
        array = words.view(jnp.dtype(dtype))[..., 0]
    with jax.enable_x64(True):
        found = fingerprints.of_tree({"a": array, "b": jnp.asarray(array)})
        with mock.patch.object(fingerprints, "FEW", -1):
            assert fingerprints.of_tree({"a": array, "b": array}) == found


@hypothesis.given(byte=st.integers(0, 8 * 4 * 4 - 1), bit=st.integers(0, 7))
@hypothesis.settings(max_examples=40)
def test_any_flipped_bit_changes_it(byte, bit):
    array = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    changed = array.copy()
    changed.view(np.uint8).reshape(-1)[byte] ^= 1 << bit
    assert fingerprints.of_tree([array]) != fingerprints.of_tree([changed])


@pytest.mark.usefixtures("either")
def test_swapped_elements_and_scalars_change_it():
    one, other = jnp.float32([1, 2]), jnp.float32([2, 1])
    assert fingerprints.of_tree([one]) != fingerprints.of_tree([other])
    assert fingerprints.of_tree([jnp.int32(7)]) != fingerprints.of_tree([jnp.int32(8)])
    assert fingerprints.of_tree({}) == {}


@pytest.mark.usefixtures("either")
def test_it_is_the_same_on_every_mesh():
    array = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    mesh = sharding.make_mesh(2, 2, 2)
    specs = [(), ("fsdp",), ("tensor", "fsdp"), (("data", "fsdp"), None)]
    placed = [
        jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
        for spec in specs
    ]
    found = {fingerprints.of_tree([one])["0"] for one in [*placed, array]}
    assert len(found) == 1


@pytest.mark.usefixtures("either")
def test_keys_have_one_too():
    keys = jax.random.split(jax.random.key(0), 2)
    assert fingerprints.of_tree([keys]) == fingerprints.of_tree(
        [jax.random.key_data(keys)]
    )


def test_no_copy_of_an_array_is_made_for_its_fingerprint():
    array = jnp.ones((1024, 256), jnp.float32)
    program = jax.jit(fingerprints.sums).lower(array).compile()
    needed = program.memory_analysis()
    assert needed.temp_size_in_bytes < array.nbytes / 100
