"""The update, its schedule and its clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs

from configs import rlcd
from rlcd_jax.job import setup, trainer
from rlcd_jax.models import heads
from rlcd_jax.scoring import reading
from rlcd_jax.training import optimizers, train_state


def factors(steps: int, **other) -> list[float]:
    numbers = {"schedule": "linear", "warmup": 5, "total": steps, "every": 1}
    rate = optimizers.learning_rate(1.0, **{**numbers, "idle": True, **other})
    return [float(rate(jnp.int32(count))) for count in range(steps)]


def test_learning_rate_of_the_release_by_hand():
    """Step s (from 1): (s-1)/5 up to 5, then (n-s+1)/(n-5); step 1 changes nothing."""
    found = factors(20)
    np.testing.assert_allclose(
        found[:7], [0, 0.2, 0.4, 0.6, 0.8, 1, 14 / 15], rtol=1e-6
    )
    np.testing.assert_allclose(found[-2:], [2 / 15, 1 / 15], rtol=1e-5)
    np.testing.assert_allclose(factors(80)[-2:], [2 / 75, 1 / 75], rtol=1e-5)


def test_learning_rate_of_the_preset_changes_once_a_step():
    config = rlcd.get_config("preset=alpacafarm,size=paper,model=llama-7b").policy
    per_step = config.epochs * config.rollouts // config.update_batch
    assert per_step == 4 and config.first_step_idle
    rate = optimizers.learning_rate(
        config.learning_rate,
        schedule="linear",
        warmup=config.warmup_steps,
        total=20,
        every=per_step,
        idle=config.first_step_idle,
    )
    found = [float(rate(jnp.int32(count))) for count in range(12)]
    want = [0.0] * 4 + [0.2e-5] * 4 + [0.4e-5] * 4
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-12)


def test_learning_rate_that_is_not_idle_moves_in_the_first_step():
    found = factors(20, idle=False)
    np.testing.assert_allclose(found[0], 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(found[5], 1.0, rtol=1e-6)
    assert min(found) > 0


def test_learning_rate_schedules_end_where_they_say():
    cosine = factors(105, schedule="cosine")
    np.testing.assert_allclose(cosine[55], 0.5, atol=1e-6)
    assert cosine[104] < 1e-3
    assert factors(20, schedule="constant")[5:] == [1.0] * 15
    with pytest.raises(ValueError, match="schedule='step'; accepted: constant, linear"):
        factors(20, schedule="step")


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


# --- accumulation ---------------------------------------------------------------------


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


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="8 rows does not divide in 3 parts"):
        train_state.accumulate(
            {"w": jnp.zeros(3)}, ragged_batch(), masked_mean, num_micro=3, weight="mask"
        )


# --- clipping -------------------------------------------------------------------------


def clipped(parts) -> dict[str, float]:
    """Return Adam's first moment / 0.1 after gradients 30 (policy) and 0.4 (value)."""
    optimizer = adamw(lambda count: 1e-3, parts)
    params = {"policy": {"w": jnp.zeros(1)}, "value": {"w": jnp.zeros(1)}}
    grads = {"policy": {"w": jnp.array([30.0])}, "value": {"w": jnp.array([0.4])}}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    moments = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        for part in ("policy", "value"):
            if ".mu" in name and f"['{part}']['w']" in name:
                moments[part] = float(leaf[0]) / 0.1
    return moments


def test_joint_clipping_lets_a_large_gradient_shrink_the_other():
    found = clipped(())
    norm = (30.0**2 + 0.4**2) ** 0.5
    assert found["policy"] == pytest.approx(30 / norm, rel=1e-5)
    assert found["value"] == pytest.approx(0.4 / norm, rel=1e-5)


def test_separate_clipping_leaves_the_small_gradient_whole():
    found = clipped(("policy", "value"))
    assert found["policy"] == pytest.approx(1.0, rel=1e-5)
    assert found["value"] == pytest.approx(0.4, rel=1e-5)


def test_adamw_equals_adam_by_hand():
    optimizer = optimizers.adamw(
        lambda count: 0.1, eps=1e-8, weight_decay=0.5, max_grad_norm=100.0, parts=()
    )
    params = jnp.array([2.0])
    updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(params), params)
    # m^ / sqrt(v^) = 1, decay 0.5 * 2
    np.testing.assert_allclose(updates, [-0.1 * (1.0 + 1.0)], rtol=1e-5)
    assert isinstance(optimizer, optax.GradientTransformation)


# --- the stages' program around it ----------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "micro", "ways", "parts"), [(8, 0, 1, 1), (8, 4, 4, 2), (8, 2, 2, 4)]
)
def test_micro_batches_counts_parts(batch, micro, ways, parts):
    assert trainer.micro_batches("x", batch, micro, ways) == parts


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((8, 3, 1), "x.micro_batch=3 does not divide"), ((8, 2, 4), "a multiple of 4")],
)
def test_micro_batches_refuses_what_does_not_divide(numbers, message):
    with pytest.raises(ValueError, match=message):
        trainer.micro_batches("x", *numbers)


def test_frozen_leaves_every_value_equal():
    """A bfloat16 copy gives the very rewards of its float32 master."""
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config(model__dtype="bfloat16"))
    base = job.load_base()
    copy = reading.frozen(job, base)
    assert copy["layers"]["q"].dtype == jnp.bfloat16
    assert copy["layers"]["attn_norm"].dtype == jnp.float32
    tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
    mask = jnp.ones((2, 8), bool)
    one, other = (
        heads.text_logprobs(p, job.cfg, tokens, mask, chunk_tokens=64)
        for p in (base, copy)
    )
    np.testing.assert_array_equal(one, other)
