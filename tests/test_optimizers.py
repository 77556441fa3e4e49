"""optimizers: the schedules by hand, the clipping, AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import rlcd
from rlcd_jax.training import optimizers


def factors(steps: int, **other) -> list[float]:
    numbers = {"schedule": "linear", "warmup": 5, "total": steps, "every": 1}
    rate = optimizers.learning_rate(1.0, **{**numbers, "idle": True, **other})
    return [float(rate(jnp.int32(count))) for count in range(steps)]


def test_learning_rate_of_the_release_by_hand():
    """Step s (from 1): (s-1)/5 up to 5, then (n-s+1)/(n-5); step 1 changes nothing."""
    rates = factors(20)
    np.testing.assert_allclose(
        rates[:7], [0, 0.2, 0.4, 0.6, 0.8, 1, 14 / 15], rtol=1e-6
    )
    np.testing.assert_allclose(rates[-2:], [2 / 15, 1 / 15], rtol=1e-5)
    np.testing.assert_allclose(factors(80)[-2:], [2 / 75, 1 / 75], rtol=1e-5)


def test_learning_rate_of_the_preset_changes_once_a_step():
    config = rlcd.get_config("preset=released,size=paper,model=llama-7b").policy
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
    rates = [float(rate(jnp.int32(count))) for count in range(12)]
    want = [0.0] * 4 + [0.2e-5] * 4 + [0.4e-5] * 4
    np.testing.assert_allclose(rates, want, rtol=1e-5, atol=1e-12)


def test_learning_rate_that_is_not_idle_moves_in_the_first_step():
    rates = factors(20, idle=False)
    np.testing.assert_allclose(rates[0], 1 / 6, rtol=1e-6)
    np.testing.assert_allclose(rates[5], 1.0, rtol=1e-6)
    assert min(rates) > 0


def test_learning_rate_schedules_end_where_they_say():
    cosine = factors(105, schedule="cosine")
    np.testing.assert_allclose(cosine[55], 0.5, atol=1e-6)
    assert cosine[104] < 1e-3
    assert factors(20, schedule="constant")[5:] == [1.0] * 15
    with pytest.raises(ValueError, match="schedule='step'; accepted: constant, linear"):
        factors(20, schedule="step")


def adamw(rate, parts):
    return optimizers.adamw(
        rate, eps=1e-8, weight_decay=0.0, max_grad_norm=1.0, parts=parts
    )


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
    rates = clipped(())
    norm = (30.0**2 + 0.4**2) ** 0.5
    assert rates["policy"] == pytest.approx(30 / norm, rel=1e-5)
    assert rates["value"] == pytest.approx(0.4 / norm, rel=1e-5)


def test_separate_clipping_leaves_the_small_gradient_whole():
    rates = clipped(("policy", "value"))
    assert rates["policy"] == pytest.approx(1.0, rel=1e-5)
    assert rates["value"] == pytest.approx(0.4, rel=1e-5)


def test_adamw_equals_adam_by_hand():
    optimizer = optimizers.adamw(
        lambda count: 0.1, eps=1e-8, weight_decay=0.5, max_grad_norm=100.0, parts=()
    )
    params = jnp.array([2.0])
    updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(params), params)
    # m^ / sqrt(v^) = 1, decay 0.5 * 2
    np.testing.assert_allclose(updates, [-0.1 * (1.0 + 1.0)], rtol=1e-5)
    assert isinstance(optimizer, optax.GradientTransformation)
