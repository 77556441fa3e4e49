"""The kernel of decode steps' products on GPUs, against float64.

On a CPU the same program runs as plain operations; on an NVIDIA GPU as it is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax import sharding
from rlcd_jax.models import few_rows, llama, pallas_triton, presets

ON_GPU = jax.default_backend() == "gpu"


@pytest.fixture(autouse=True)
def plain_operations(monkeypatch):
    monkeypatch.setattr(few_rows, "INTERPRET", not ON_GPU)


def arrays(rows, out, into, seed=0):
    rng = np.random.default_rng(seed)
    draw = [rng.standard_normal(shape) for shape in ((*rows, into), (out, into))]
    return tuple(jnp.asarray(one, jnp.bfloat16) for one in draw)


@pytest.mark.parametrize(
    ("rows", "out", "into"),
    [((16,), 128, 256), ((5, 1), 64, 384), ((64, 1), 192, 128), ((1,), 64, 1024)],
)
def test_a_product_is_that_of_float64(rows, out, into):
    given, weight = arrays(rows, out, into)
    ours = np.asarray(jax.jit(few_rows.product)(given, weight), np.float64)
    truth = np.asarray(given, np.float64) @ np.asarray(weight, np.float64).T
    assert ours.shape == truth.shape
    np.testing.assert_allclose(ours, truth, atol=5e-3 * np.abs(truth).max())


def test_columns_are_divided_where_the_rows_of_a_matrix_are_few():
    # LLaMA-7B: queries, keys and values; output; down (11,008 is 86 times 128)
    assert few_rows.parts_of(3 * 4096, 4096) == 1
    assert few_rows.parts_of(4096, 4096) == 2
    assert few_rows.parts_of(4096, 11008) == 2
    assert few_rows.parts_of(2048, 8192) == 4
    assert few_rows.parts_of(64, 128) == 1
    assert few_rows.parts_of(64, 2**16) == few_rows.MOST_PARTS


def test_parts_give_the_sum(monkeypatch):
    given, weight = arrays((8,), 64, 1024)
    several = few_rows.product(given, weight)
    monkeypatch.setattr(few_rows, "MOST_PARTS", 1)
    one = few_rows.product(given, weight)
    np.testing.assert_allclose(
        np.asarray(several, np.float32), np.asarray(one, np.float32), rtol=1e-2
    )


@pytest.mark.skipif(ON_GPU, reason="of fake devices")
def test_devices_have_rows_of_their_own():
    mesh = sharding.make_mesh(slices=1, data=4, fsdp=2, tensor=1)
    given, weight = arrays((16, 1), 64, 256)
    with jax.set_mesh(mesh):
        ours = jax.jit(few_rows.product)(given, weight)
    alone = few_rows.product(given, weight)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(alone))


def test_small_matrices_many_rows_and_odd_sizes_are_xlas(monkeypatch):
    fits, large = few_rows.fits, (4096, 4096)
    assert fits((64, 1, 4096), large)
    assert fits((33, 4096), large)
    assert not fits((32, 1, 4096), large)
    assert not fits((65, 1, 4096), large)
    assert not fits((64, 1, 2048), (2048, 2048))
    assert not fits((64, 1, 4096), (32000, 4096))
    assert not fits((64, 1, 4160), (4096, 4160))  # no multiple of what is read at once
    mesh = sharding.abstract_mesh(4, 1, 1, num_devices=4)
    with jax.sharding.use_abstract_mesh(mesh):
        assert fits((256, 1, 4096), large)  # 64 on a device
        assert not fits((320, 1, 4096), large)
    monkeypatch.setattr(pallas_triton, "find", lambda: None)
    assert not fits((64, 1, 4096), large)


def test_a_model_takes_it_for_decode_steps_alone(monkeypatch):
    monkeypatch.setattr(few_rows, "ROWS", 4)
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    monkeypatch.setattr(few_rows, "TILE", 16)
    monkeypatch.setattr(few_rows, "DEPTH", 16)
    asked = []

    def product(rows, weight):
        asked.append(weight.shape)
        return few_rows_product(rows, weight)

    few_rows_product = few_rows.product
    monkeypatch.setattr(few_rows, "product", product)
    cfg = dataclasses.replace(
        presets.get_preset("tiny"), attention="cudnn", results="bfloat16"
    )
    params = llama.init_params(cfg, jax.random.key(0))
    decode = llama.decode_form(params, cfg)
    x = jax.random.normal(jax.random.key(1), (4, 1, cfg.embed_dim))
    both = []
    for tensor_ways in (1, 2):
        placed = dataclasses.replace(cfg, tensor_ways=tensor_ways)
        out = llama._product(decode["layers"][0], placed, x, "o")
        both.append(np.asarray(out, np.float32))
    np.testing.assert_allclose(*both, rtol=2e-2, atol=1e-3)
    assert asked == [(cfg.embed_dim, cfg.num_heads * cfg.head_dim)]
    layer = jax.tree.map(lambda leaf: leaf[0], params["layers"])
    llama._product(layer, cfg, x, "o")
    assert len(asked) == 1
