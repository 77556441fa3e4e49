"""Products of few rows, as CPUs do them: the same numbers as of any rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.models import attention, llama, presets, products

ROWS = (1, 2, 8, 9, 32, 64, 65)


def drawn(*shape: int, dtype: str = "float32") -> jax.Array:
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray(rng.standard_normal(shape), dtype)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_that_of_its_rows(rows, dtype):
    x, weight = drawn(rows, 1, 24), drawn(40, 24, dtype=dtype)
    found = jax.jit(products.product, static_argnums=2)(x, weight, dtype)
    exact = np.asarray(x.astype(dtype), np.float64)
    want = exact @ np.asarray(weight, np.float64).T
    assert found.shape == (rows, 1, 40) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def test_the_rule_has_few_rows_between_two_bounds():
    shapes = [(rows, 1, 4) for rows in ROWS] + [(2, 32, 4), (3, 3, 4)]
    few = [products.are_few(jnp.zeros(shape)) for shape in shapes]
    assert few == [False, False, False, True, True, True, False, True, True]


@pytest.mark.parametrize("rows", [8, 9, 33, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_mlp_of_few_rows_is_that_of_each_row(rows, dtype):
    cfg = dataclasses.replace(presets.get_preset("tiny"), dtype=dtype)
    params = llama.init_params(cfg, jax.random.key(0))
    layer = llama.decode_form(params, cfg)["layers"][0]
    mlp = jax.jit(lambda x: llama._mlp(layer, cfg, x))
    x = drawn(rows, 1, cfg.embed_dim)
    alone = jnp.concatenate([mlp(x[at : at + 1]) for at in range(rows)])
    close = 1e-5 if dtype == "float32" else 2e-2  # what is between is rounded
    np.testing.assert_allclose(mlp(x), alone, rtol=close, atol=close)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 7), (5, 3)])
def test_stored_angles_are_those_of_each_position(shape):
    frequencies = np.array([1.0, 0.25, 0.01], np.float32)
    positions = jnp.asarray(np.random.default_rng(1).integers(0, 500, shape), jnp.int32)
    want = attention.rope_angles(positions, frequencies)
    found = jax.jit(lambda at: attention.stored_angles(at, frequencies))(positions)
    for ours, theirs in zip(found, want, strict=True):
        assert ours.shape == (*shape, 1, 3)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
