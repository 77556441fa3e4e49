"""The table from logical axes to the mesh: what it gives and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
from jax.sharding import PartitionSpec

from rlcd_jax import sharding
from rlcd_jax.models import heads, llama, presets, table

CFG = presets.get_preset("tiny")


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(2, 2, 2)


def test_mesh_takes_the_rest_as_data():
    assert dict(sharding.make_mesh(-1, 2, 2).shape) == {
        "slice": 1,
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }
    one = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    assert one.size == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (-1, 3, 1), (0, 8, 1)])
def test_mesh_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="there are 8; set mesh.data"):
        sharding.make_mesh(*shape)


def test_parameters_lie_as_the_table_says(mesh):
    found = sharding.param_shardings(heads.scalar_specs(CFG), mesh)
    layers = found["trunk"]["layers"]
    assert layers["q"].spec == PartitionSpec(None, ("tensor",), ("fsdp",))
    assert layers["down"].spec == PartitionSpec(None, ("fsdp",), ("tensor",))
    assert found["trunk"]["embed"].spec == PartitionSpec(("tensor",), ("fsdp",))
    assert found["head"]["bias"].spec == PartitionSpec()


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_has_a_place_for_each_parameter(preset):
    cfg = presets.get_preset(preset)
    specs = llama.param_specs(cfg)
    mesh = sharding.make_mesh(2, 4, 1)
    placed = sharding.param_shardings(specs, mesh)
    abstract = table.abstract_params(specs)
    for leaf, where in zip(
        jax.tree.leaves(abstract), jax.tree.leaves(placed), strict=True
    ):
        assert where.shard_shape(leaf.shape)
    largest = placed["layers"]["gate"].shard_shape(abstract["layers"]["gate"].shape)
    assert np.prod(largest) * 4 == np.prod(abstract["layers"]["gate"].shape)


def test_parameter_that_does_not_divide_is_named(mesh):
    specs = {"layers": {"odd": table.ParamSpec((4, 3), ("embed", "mlp"), "normal")}}
    with pytest.raises(
        ValueError, match=r"layers/odd with shape \(4, 3\): its axis 'mlp'"
    ):
        sharding.param_shardings(specs, mesh)


def test_parameter_with_an_unknown_axis_is_named(mesh):
    specs = {"layers": {"new": table.ParamSpec((4,), ("bananas",), "normal")}}
    with pytest.raises(ValueError, match="layers/new has the logical axis 'bananas'"):
        sharding.param_shardings(specs, mesh)


def test_parameter_with_too_few_axes_is_named(mesh):
    specs = {"layers": {"flat": table.ParamSpec((4, 4), ("embed",), "normal")}}
    with pytest.raises(ValueError, match="layers/flat: axes"):
        sharding.param_shardings(specs, mesh)


def test_parameter_with_two_axes_on_one_mesh_axis_is_named(mesh):
    specs = {"layers": {"twice": table.ParamSpec((4, 4), ("mlp", "heads"), "normal")}}
    with pytest.raises(ValueError, match="layers/twice .* the mesh axis 'tensor'"):
        sharding.param_shardings(specs, mesh)


class Device:
    """A device that says which slice it is of; CPUs say nothing."""

    device_kind = "made up"

    def __init__(self, number, of_slice, platform="tpu"):
        self.id, self.slice_index, self.platform = number, of_slice, platform


def slices_of(mesh_devices):
    return [{d.slice_index for d in part.flat} for part in mesh_devices]


def test_slices_are_the_devices_own():
    """The list has their devices mixed; each part of the slice axis is one slice."""
    devices = [Device(n, n % 2, "made up") for n in range(8)]
    found = sharding.place_devices(devices, (2, 1, 2, 2))
    assert found.shape == (2, 1, 2, 2) and slices_of(found) == [{0}, {1}]


@pytest.mark.parametrize("slices", [1, 4])
def test_slices_that_tpus_do_not_form_are_refused(slices):
    devices = [Device(n, n // 4) for n in range(8)]
    with pytest.raises(ValueError, match="the devices form 2 slices; accepted here: 2"):
        sharding.place_devices(devices, (slices, 8 // slices, 1, 1))


def test_slices_of_cpus_are_blocks():
    mesh = sharding.make_mesh(-1, 2, 1, slices=2)
    assert dict(mesh.shape) == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
    assert list(mesh.devices[0].flat) == jax.devices()[:4]
    assert sharding.batch_ways(mesh) == 8


def test_constrain_acts_on_cpu_and_keeps_values(mesh):
    x = jnp.arange(32.0).reshape(8, 4)

    def one(x):
        return sharding.constrain(x, ("batch", "mlp"))

    with jax.set_mesh(mesh):
        found = jax.jit(one)(x)
    assert found.sharding.shard_shape(x.shape) == (2, 2)
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(one(x), x)  # without a mesh nothing is asked


def test_constrain_refuses_another_rank():
    with pytest.raises(ValueError, match="2 axes .* for shape"):
        sharding.constrain(jnp.zeros(3), ("batch", "mlp"))


def test_parameters_do_not_depend_on_the_mesh(mesh):
    specs = llama.param_specs(CFG)
    shardings = sharding.param_shardings(specs, mesh)
    # Both compiled: run line by line, a product and a sum round once more.
    key = jax.random.key(0)
    one = jax.jit(llama.init_params, static_argnums=0)(CFG, key)
    start = jax.jit(llama.init_params, static_argnums=0, out_shardings=shardings)
    eight = jax.device_get(start(CFG, key))
    jax.tree.map(np.testing.assert_array_equal, one, eight)


def test_forward_on_a_mesh_equals_one_device(mesh):
    cfg = llama.dataclasses.replace(CFG, dtype="float32")
    params = llama.init_params(cfg, jax.random.key(0))
    tokens = np.arange(32, dtype=np.int32).reshape(4, 8)
    mask = jnp.ones((4, 8), bool)

    def run(params, tokens):
        return padded.text_logprobs(params, cfg, tokens, mask, chunk_tokens=16)

    plain = run(params, tokens)
    placed = jax.device_put(
        params, sharding.param_shardings(llama.param_specs(cfg), mesh)
    )
    with jax.set_mesh(mesh):
        split = jax.jit(run)(placed, tokens)
    np.testing.assert_allclose(split, plain, rtol=0, atol=2e-5)  # another sum order
