"""Masked statistics against numpy.ma in float64, by hand, and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.training import masked

VALUES = np.array([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]], np.float32)
MASK = np.array([[True, True, False], [True, False, False]])


def _random_case(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(2.0, 3.0, (5, 7)).astype(np.float32)
    mask = rng.random((5, 7)) < 0.6
    return values, mask, np.ma.masked_array(values.astype(np.float64), ~mask)


def test_statistics_by_hand():
    # The entries that count are 1, 2, 3.
    assert masked.count(VALUES, MASK) == 3
    assert masked.sum(VALUES, MASK) == 6
    assert masked.mean(VALUES, MASK) == 2
    assert masked.maximum(VALUES, MASK) == 3
    np.testing.assert_allclose(masked.variance(VALUES, MASK), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(masked.std(VALUES, MASK), np.sqrt(2 / 3), rtol=1e-6)
    root = np.sqrt(1.5)
    expected = [[-root, 0, 0], [root, 0, 0]]
    whitened = masked.whiten(VALUES, MASK, shift_mean=True)
    np.testing.assert_allclose(whitened, expected, atol=1e-6)
    expected = [[2 - root, 2, 0], [2 + root, 0, 0]]
    whitened = masked.whiten(VALUES, MASK, shift_mean=False)
    np.testing.assert_allclose(whitened, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_statistics_match_numpy_ma(seed):
    values, mask, oracle = _random_case(seed)
    # float32 sums of 35 values of size 10 against float64
    close = dict(rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(masked.sum(values, mask), oracle.sum(), **close)
    np.testing.assert_allclose(masked.mean(values, mask), oracle.mean(), **close)
    np.testing.assert_allclose(masked.variance(values, mask), oracle.var(), **close)
    np.testing.assert_allclose(masked.std(values, mask), oracle.std(), **close)
    for axis in (0, 1):
        np.testing.assert_allclose(
            masked.mean(values, mask, axis=axis), oracle.mean(axis).filled(0), **close
        )
        np.testing.assert_allclose(
            masked.sum(values, mask, axis=axis), oracle.sum(axis).filled(0), **close
        )


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whiten_matches_numpy_ma(shift_mean):
    values, mask, oracle = _random_case(7)
    expected = (oracle - oracle.mean()) / (oracle.std() + 1e-8)
    if not shift_mean:
        expected = expected + oracle.mean()
    actual = masked.whiten(values, mask, shift_mean=shift_mean)
    np.testing.assert_allclose(actual, expected.filled(0), atol=2e-6)


def test_whiten_gives_counted_entries_unit_variance_despite_padding():
    values, mask, _ = _random_case(3)
    values = np.where(mask, values, 0)
    whitened = masked.whiten(values, mask, shift_mean=True)
    np.testing.assert_allclose(masked.mean(whitened, mask), 0, atol=1e-6)
    np.testing.assert_allclose(masked.variance(whitened, mask), 1, atol=1e-6)
    padded = masked.whiten(values, None, shift_mean=True)
    assert abs(masked.mean(padded, mask)) > 0.05


def test_no_mask_is_a_full_mask():
    values, mask, _ = _random_case(1)
    full = np.ones_like(mask)
    for function in (masked.count, masked.sum, masked.mean, masked.std):
        np.testing.assert_array_equal(function(values, None), function(values, full))
    np.testing.assert_allclose(masked.std(values, None), values.std(), rtol=1e-6)


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_statistics_ignore_what_does_not_count(junk):
    values, mask, _ = _random_case(2)
    spoiled = np.where(mask, values, junk).astype(np.float32)
    for function in (masked.sum, masked.mean, masked.variance, masked.std):
        np.testing.assert_array_equal(function(spoiled, mask), function(values, mask))
    np.testing.assert_array_equal(
        masked.whiten(spoiled, mask, shift_mean=True),
        masked.whiten(values, mask, shift_mean=True),
    )


def test_nothing_counted_is_zero_and_finite():
    nothing = np.zeros_like(MASK)
    for function in (masked.sum, masked.mean, masked.variance, masked.std):
        assert function(VALUES, nothing) == 0
    assert masked.maximum(VALUES, nothing) == 0
    assert not np.any(masked.whiten(VALUES, nothing, shift_mean=False))
    gradient = jax.grad(lambda values: masked.mean(values, nothing))(VALUES)
    assert not np.any(gradient)


def test_results_are_float32_for_every_input_type():
    for values in (jnp.array([1, 2]), jnp.array([1, 2], jnp.bfloat16)):
        for mask in (None, jnp.array([True, True])):
            assert masked.mean(values, mask).dtype == jnp.float32
            assert masked.mean(values, mask) == 1.5
            assert masked.whiten(values, mask, shift_mean=True).dtype == jnp.float32


def test_select_names_the_rules():
    assert masked.select(MASK, statistics="masked") is MASK
    assert masked.select(MASK, statistics="padded") is None
    with pytest.raises(ValueError, match="'ranked'.*masked.*padded"):
        masked.select(MASK, statistics="ranked")


def test_masks_of_another_shape_or_type_are_refused():
    with pytest.raises(ValueError, match=r"values \(2, 3\), mask \(3,\)"):
        masked.mean(VALUES, MASK[0])
    with pytest.raises(ValueError, match="must be bool.*int32"):
        masked.mean(VALUES, MASK.astype(np.int32))
