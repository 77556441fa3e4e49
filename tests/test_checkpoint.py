"""Tests of rlcd_jax.checkpoint."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from rlcd_jax import checkpoint, sharding

SPECS = {
    "embed": PartitionSpec("tensor", "fsdp"),
    "norm": PartitionSpec(),
    "scale": PartitionSpec("fsdp"),
}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: tuple


def params():
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "embed": jax.random.normal(keys[0], (16, 8), jnp.float32),
        "norm": jax.random.normal(keys[1], (8,), jnp.bfloat16),
        "scale": jax.random.normal(keys[2], (8,), jnp.float16),
    }


def big_shardings():
    mesh = sharding.make_mesh(2, 2, 2)
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def small_shardings():
    return {name: SingleDeviceSharding(jax.devices()[0]) for name in SPECS}


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("there", [big_shardings, small_shardings])
@pytest.mark.parametrize("back", [big_shardings, small_shardings])
def test_restore_into_another_mesh_keeps_every_bit(tmp_path, there, back):
    live = jax.device_put(params(), there())
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(4, {"params": live}, {"kl_coefficient": 0.1})
    abstract = checkpoint.abstract_like(jax.eval_shape(params), back())
    items, meta = checkpoint.restore(tmp_path, 4, {"params": abstract})
    assert_same_bits(items["params"], live)
    assert meta == {"kl_coefficient": 0.1}
    for name, one in back().items():
        assert items["params"][name].sharding.is_equivalent_to(one, SPECS_NDIM[name])


SPECS_NDIM = {"embed": 2, "norm": 1, "scale": 1}


def test_restore_returns_train_state_in_its_own_types(tmp_path):
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    live = State(jnp.int32(7), params(), tx.init(params()))
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(7, {"state": live, "key": {"root": jax.random.key(3)}}, {})
        abstract = {
            "state": checkpoint.abstract_like(live),
            "key": checkpoint.abstract_like({"root": jax.random.key(0)}),
        }
        items, _ = keeper.restore(7, abstract)
    assert_same_bits(items["state"], live)
    assert jnp.array_equal(
        jax.random.key_data(items["key"]["root"]),
        jax.random.key_data(jax.random.key(3)),
    )


def test_save_accepts_an_optimizer_without_state(tmp_path):
    live = optax.sgd(0.1).init(params())
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(1, {"optimizer": live}, {})
        items, _ = keeper.restore(1, {"optimizer": live})
    assert items["optimizer"] == live


def test_save_leaves_arrays_free_to_be_donated(tmp_path):
    @functools.partial(jax.jit, donate_argnums=0)
    def overwrite(x):
        return x * 0.0 - 1.0

    live = {"w": jnp.arange(1 << 20, dtype=jnp.float32)}
    expected = np.array(live["w"])
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        abstract = checkpoint.abstract_like(live)
        keeper.save(1, {"params": live}, {})
        jax.block_until_ready(overwrite(live["w"]))
        items, _ = keeper.restore(1, {"params": abstract})
    np.testing.assert_array_equal(items["params"]["w"], expected)


def test_keep_policy_keeps_latest_and_periods(tmp_path):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=2, keep_period=4) as keeper:
        for step in range(1, 8):
            keeper.save(step, {"params": {"w": jnp.float32([step])}}, {"step": step})
        keeper.wait()
        assert keeper.steps() == [4, 6, 7]
    assert checkpoint.latest_step(tmp_path) == 7
    assert checkpoint.restore(tmp_path, 4, {})[1] == {"step": 4}


def test_latest_step_ignores_an_unfinished_step(tmp_path):
    assert checkpoint.latest_step(tmp_path / "nothing") is None
    with checkpoint.Checkpointer(tmp_path, max_to_keep=None) as keeper:
        keeper.save(3, {"params": params()}, {})
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.latest_step(tmp_path) == 3
    with checkpoint.Checkpointer(tmp_path, max_to_keep=None) as keeper:
        assert keeper.latest_step() == 3


def test_restore_takes_some_of_the_items(tmp_path):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(1, {"params": params(), "value": {"w": jnp.ones(2)}}, {})
    abstract = {"value": checkpoint.abstract_like({"w": jnp.ones(2)})}
    items, _ = checkpoint.restore(tmp_path, 1, abstract)
    assert list(items) == ["value"]


def changed(**leaves):
    tree = jax.eval_shape(params)
    for name, leaf in leaves.items():
        if leaf is None:
            del tree[name]
        else:
            tree[name] = jax.ShapeDtypeStruct(*leaf)
    return checkpoint.abstract_like(tree, SingleDeviceSharding(jax.devices()[0]))


@pytest.mark.parametrize(
    "leaves, match",
    [
        ({"norm": None}, r"params/norm is in the checkpoint but was not asked for"),
        ({"extra": ((2,), "float32")}, r"params/extra is not in the checkpoint"),
        (
            {"embed": ((16, 4), "float32")},
            r"params/embed was saved as float32\[16, 8\] but float32\[16, 4\] was asked",
        ),
        ({"norm": ((8,), "float32")}, r"params/norm was saved as bfloat16\[8\]"),
    ],
)
def test_restore_names_the_parameter_that_does_not_fit(tmp_path, leaves, match):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(1, {"params": params()}, {})
    with pytest.raises(ValueError, match=match):
        checkpoint.restore(tmp_path, 1, {"params": changed(**leaves)})


def test_restore_names_the_steps_and_items_there_are(tmp_path):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(1, {"params": params()}, {})
    with pytest.raises(ValueError, match="no checkpoint of step 2; it has 1"):
        checkpoint.restore(tmp_path, 2, {})
    with pytest.raises(ValueError, match="no item 'value'; it has params"):
        checkpoint.restore(tmp_path, 1, {"value": changed()})


@pytest.mark.parametrize(
    "items, match",
    [
        ({"params": {"w": 1.0}}, "params/w is a float"),
        ({"params": {}}, "empty"),
        ({"meta": {"w": jnp.ones(1)}}, "cannot be the name"),
    ],
)
def test_save_refuses_what_is_no_item(tmp_path, items, match):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        with pytest.raises(ValueError, match=match):
            keeper.save(1, items, {})


def test_save_refuses_a_step_that_is_not_later(tmp_path):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=1) as keeper:
        keeper.save(5, {"params": params()}, {})
        with pytest.raises(ValueError, match="already holds step 5"):
            keeper.save(4, {"params": params()}, {})


def test_keep_items_leaves_the_rest_readable(tmp_path):
    items = {"policy": params(), "value": params(), "optimizer": params()}
    with checkpoint.Checkpointer(tmp_path, max_to_keep=None) as keeper:
        for step in (2, 5):
            keeper.save(step, items, {"note": step})
    checkpoint.keep_items(tmp_path, ("policy",))
    checkpoint.keep_items(tmp_path, ("policy",))  # again, as after a kill
    assert checkpoint.latest_step(tmp_path) == 5
    abstract = checkpoint.abstract_like(items["policy"])
    for step in (2, 5):
        found, meta = checkpoint.restore(tmp_path, step, {"policy": abstract})
        assert_same_bits(found["policy"], items["policy"])
        assert meta == {"note": step}
        with pytest.raises(ValueError, match="has no item 'value'; it has policy"):
            checkpoint.restore(tmp_path, step, {"value": abstract})


def weight(step):
    return {"w": np.full(3, float(step), np.float32)}


def test_checkpointer_removes_a_step_and_takes_it_again(tmp_path):
    with checkpoint.Checkpointer(tmp_path, max_to_keep=2) as saver:
        for step in (1, 2):
            saver.save(step, {"policy": weight(step)}, {})
        saver.remove(2)
        assert saver.steps() == [1] and saver.latest_step() == 1
        saver.save(2, {"policy": weight(7)}, {})
    assert runs.saved_arrays(tmp_path, 2)["policy/w"].tolist() == [7.0] * 3


def test_what_is_packed_a_part_at_a_time_is_all_there(tmp_path):
    item = {str(i): jnp.full((64, 64), float(i)) for i in range(6)}
    most = item["0"].nbytes + 1
    with checkpoint.Checkpointer(
        tmp_path, asynchronous=False, most_bytes=most
    ) as keeper:
        keeper.save(1, {"params": item}, {})
    like = {"params": checkpoint.abstract_like(item)}
    restored, _ = checkpoint.restore(tmp_path, 1, like)
    for name, leaf in item.items():
        np.testing.assert_array_equal(restored["params"][name], leaf)
