"""Tests of rlcd_jax.job.batching: few lengths hold what is wanted."""

import hypothesis
from hypothesis import strategies as st

from rlcd_jax.job import batching


@hypothesis.given(st.integers(0, 5000))
def test_lengths_up_to_begin_as_given_and_hold_the_longest(longest):
    lengths = batching.lengths_up_to(longest, (80, 144))
    assert lengths[:2] == (80, 144) and lengths[-1] >= longest
    assert list(lengths) == sorted(set(lengths))
    assert all(length < longest for length in lengths[1:-1])


@hypothesis.given(st.integers(0, 5000))
def test_rising_lengths_waste_little(longest):
    lengths = batching.rising_lengths(longest)
    assert lengths[0] == 64 and lengths[-1] >= longest
    assert all(2 * b <= 3 * a for a, b in zip(lengths, lengths[1:], strict=False))
    assert all(length < longest for length in lengths[:-1])


def test_rising_lengths_by_hand():
    assert batching.rising_lengths(500) == (64, 96, 128, 192, 256, 384, 512)
    assert batching.rising_lengths(64) == (64,)
