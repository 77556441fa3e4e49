"""train_state: the update, and that parts of a batch add up to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax import sharding, tree
from rlcd_jax.training import optimizers, train_state


def test_update_at_rate_zero_changes_no_parameter():
    optimizer = adamw(lambda count: 0.0 * count, ())
    params = {"w": jnp.array([1.0, 2.0])}
    state = train_state.create(params, optimizer)
    new, _ = train_state.update(
        state, {"x": jnp.ones((2, 1))}, optimizer, square, num_micro=1, weight="x"
    )
    np.testing.assert_array_equal(new.params["w"], params["w"])
    assert int(new.updates) == 1


def adamw(rate, parts):
    return optimizers.adamw(
        rate, eps=1e-8, weight_decay=0.0, max_grad_norm=1.0, parts=parts
    )


def square(params, batch):
    loss = jnp.sum(params["w"] ** 2) + 0.0 * jnp.sum(batch["x"])
    return loss, {"loss": loss}


def masked_mean(params, batch):
    error = (batch["x"] @ params["w"] - batch["y"]) ** 2  # [B, T]
    mask = batch["mask"].astype(jnp.float32)
    loss = jnp.sum(error * mask) / jnp.maximum(jnp.sum(mask), 1.0)
    return loss, {"loss": loss, "mean_y": jnp.sum(batch["y"] * mask) / mask.sum()}


def ragged_batch():
    rng = np.random.default_rng(0)
    mask = np.arange(6) < np.array([1, 6, 2, 5, 3, 3, 1, 4])[:, None]
    return {
        "x": rng.normal(size=(8, 6, 3)).astype(np.float32),
        "y": rng.normal(size=(8, 6)).astype(np.float32),
        "mask": mask,
    }


@pytest.mark.parametrize("num_micro", [2, 4, 8])
def test_micro_batches_equal_one_batch_with_unequal_token_counts(num_micro):
    params, batch = {"w": jnp.array([0.3, -0.2, 0.1])}, ragged_batch()
    counts = batch["mask"].reshape(8 // num_micro, num_micro, 6).sum((0, 2))
    assert len(set(counts)) > 1  # a mean of means would be wrong
    whole, whole_metrics = train_state.accumulate(
        params, batch, masked_mean, num_micro=1, weight="mask"
    )
    parts, metrics = train_state.accumulate(
        params, batch, masked_mean, num_micro=num_micro, weight="mask"
    )
    np.testing.assert_allclose(parts["w"], whole["w"], rtol=1e-5)
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def test_micro_batch_without_any_token_changes_nothing():
    batch = ragged_batch()
    batch["mask"][[0, 2, 4, 6]] = False  # the whole first part of two
    params = {"w": jnp.array([0.3, -0.2, 0.1])}
    found = [
        train_state.accumulate(params, batch, loss, num_micro=n, weight="mask")[0]["w"]
        for n, loss in ((1, only_loss), (2, only_loss))
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def only_loss(params, batch):
    loss, _ = masked_mean(params, batch)
    return loss, {"loss": loss}


def test_an_update_holds_little_beside_its_gradient():
    """What is added lies where the gradient did, and XLA does not run ahead."""
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    layers = jax.ShapeDtypeStruct((8, 256, 256), jnp.float32)
    params = dict.fromkeys("abcd", layers)
    optimizer = adamw(lambda count: 1e-3, ())
    state = jax.eval_shape(lambda p: train_state.create(p, optimizer), params)
    batch = {"x": jax.ShapeDtypeStruct((4, 256), jnp.float32)}

    def layer(x, weights):
        return functools.reduce(lambda x, w: jnp.tanh(x @ w), weights.values(), x), None

    def loss(params, batch):
        value = jnp.mean(jax.lax.scan(layer, batch["x"], params)[0] ** 2)
        return value, {"loss": value}

    def update(state, batch):
        return train_state.update(
            state, batch, optimizer, loss, num_micro=1, weight="x"
        )

    options = sharding.compiler_options(mesh)
    made = jax.jit(update, donate_argnums=0, compiler_options=options)
    taken = made.lower(state, batch).compile().memory_analysis().temp_size_in_bytes
    assert taken < 1.9 * tree.count_bytes(params)  # 2.25 as it was, 1.75 as it is


NAMES = ("policy", "value")


def of_what_is_given(params, batch):
    """A loss as PPO's: a sum over models, of those that there are."""
    total, metrics = jnp.zeros(()), {}
    for name, own in params.items():
        mean = jnp.mean(jnp.square(batch["x"] @ own["w"] - batch[name]))
        total, metrics = total + mean, metrics | {f"loss/{name}": mean}
    return total, {**metrics, "loss/total": total}


def two_models(bad=""):
    rng = np.random.default_rng(3)
    params = {name: {"w": jnp.asarray(rng.normal(size=5))} for name in NAMES}
    batch = {"x": rng.normal(size=(8, 5)), "some": np.arange(8) % 3 > 0}
    batch |= {name: rng.normal(size=8) for name in NAMES}
    if bad:
        batch[bad][2] = np.inf
    return params, {name: jnp.asarray(array) for name, array in batch.items()}


def updated(params, batch, apart, *, chooses=False, num_micro=1, times=2):
    """Return state and metrics after updates of all models, or of each for itself."""
    optimizer = adamw(lambda count: 0.1, NAMES)
    state = train_state.create(params, optimizer)
    how = {"num_micro": num_micro, "weight": "some", "chooses": chooses}
    for _ in range(times):
        if not apart:
            state, metrics = train_state.update(
                state, batch, optimizer, of_what_is_given, **how
            )
            continue
        metrics = None
        for name in apart:
            own, metrics = train_state.update(
                train_state.part(state, name),
                batch,
                train_state.optimizer_of(optimizer, state, name),
                of_what_is_given,
                before=metrics,
                is_last=name == apart[-1],
                **how,
            )
            state = train_state.with_part(state, name, own)
    return state, metrics


@pytest.mark.parametrize("chooses", [False, True])
@pytest.mark.parametrize("num_micro", [1, 4])
def test_models_apart_are_updated_as_together(chooses, num_micro):
    params, batch = two_models()
    how = {"chooses": chooses, "num_micro": num_micro}
    together, shown = updated(params, batch, (), **how)
    apart, metrics = updated(params, batch, NAMES, **how)
    assert int(apart.updates) == int(together.updates) == 2
    assert jax.tree.structure(apart) == jax.tree.structure(together)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), apart, together
    )
    assert metrics.keys() == shown.keys()
    for name, value in shown.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("chooses", [False, True])
def test_a_model_apart_that_is_not_finite_ends_the_update(chooses):
    params, batch = two_models(bad="policy")
    state, metrics = updated(params, batch, NAMES, chooses=chooses, times=1)
    assert metrics[train_state.SKIPPED] == 1.0 and int(state.updates) == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    # Of the second the first is updated, and who asked for that does not go on.
    params, batch = two_models(bad="value")
    state, metrics = updated(params, batch, NAMES, chooses=chooses, times=1)
    assert metrics[train_state.SKIPPED] == 1.0 and int(state.updates) == 0
    np.testing.assert_array_equal(state.params["value"]["w"], params["value"]["w"])
    together, _ = updated(params, batch, (), chooses=chooses, times=1)
    jax.tree.map(np.testing.assert_array_equal, together.params, params)


@pytest.mark.parametrize("is_finite", [True, False])
def test_accelerators_choose_what_cpus_make(is_finite):
    """Among results there, between two programs here: the same state comes of both."""
    optimizer = adamw(lambda count: 0.1, ())
    state = train_state.create({"w": jnp.array([1.0, 2.0])}, optimizer)
    grads = {"w": jnp.array([0.5, 0.1 if is_finite else jnp.nan])}
    fine = jnp.asarray(is_finite)
    here, _ = train_state._apply_if(optimizer, fine, state, grads, state.updates + 1)
    there, added = train_state._apply_and_choose(
        optimizer, fine, state, grads, state.updates + 1
    )
    jax.tree.map(np.testing.assert_array_equal, here, there)
    assert int(there.updates) == is_finite
    if not is_finite:
        jax.tree.map(np.testing.assert_array_equal, there, state)
    else:
        moved = there.params["w"] - state.params["w"]
        np.testing.assert_allclose(added["w"], moved, rtol=1e-5)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="8 rows does not divide in 3 parts"):
        train_state.accumulate(
            {"w": jnp.zeros(3)}, ragged_batch(), masked_mean, num_micro=3, weight="mask"
        )
