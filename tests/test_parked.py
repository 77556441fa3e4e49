"""Tests of parking models in files."""

import gc
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax import sharding
from rlcd_jax.job import parked


def resident() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("kept", [True, False])
def test_what_comes_back_is_what_was_parked(tmp_path, kept):
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    split = jax.NamedSharding(mesh, jax.P("fsdp", "tensor"))
    params = {
        "a": jax.device_put(jnp.arange(24, dtype=jnp.bfloat16).reshape(4, 6), split),
        "b": [jnp.float32(3.0), jnp.arange(5, dtype=jnp.float32)],
    }
    read = parked.park(params, None if kept else tmp_path)
    assert not [*tmp_path.iterdir()]  # its file has no name
    for _ in range(2):
        found = read()
        for one, other in zip(*map(jax.tree.leaves, (found, params)), strict=True):
            np.testing.assert_array_equal(one, other)
            assert (one.dtype, one.sharding) == (other.dtype, other.sharding)
        twice = jax.jit(lambda x: x + x)(found["a"])
        np.testing.assert_array_equal(twice, 2 * params["a"])


@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="no /proc")
def test_what_is_parked_takes_room_only_while_it_is_held(tmp_path):
    size = 2**26
    read = parked.park({"a": jnp.ones(size, jnp.int8) * 3}, tmp_path)
    gc.collect()
    before = resident()
    found = read()
    assert int(found["a"].max()) == 3
    assert resident() - before > 0.9 * size
    del found
    gc.collect()
    assert resident() - before < 0.2 * size
