"""Tests of rlcd_jax.stages.batching: rows of many lengths through few programs."""

import logging

import hypothesis
import numpy as np
from hypothesis import strategies as st

from rlcd_jax.stages import batching

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=12), max_size=20)


def sum_of_row(shapes):
    """Return a program that notes the shapes it is called with."""

    def program(tokens, mask):
        shapes.add(tokens.shape)
        return np.where(mask, tokens, 0).sum(1)

    return program


@hypothesis.given(ROWS, st.integers(1, 5))
def test_map_rows_keeps_the_order_with_few_shapes(rows, batch_size):
    shapes = set()
    found = batching.map_rows(
        sum_of_row(shapes), rows, batch_size=batch_size, lengths=(4, 8), pad_id=7
    )
    np.testing.assert_array_equal(found, [sum(row[-8:]) for row in rows])
    assert shapes <= {(batch_size, 4), (batch_size, 8)}


def test_map_rows_shows_how_far_it_is_when_it_has_a_name(caplog):
    def run(what):
        with caplog.at_level(logging.INFO):
            batching.map_rows(
                sum_of_row(set()),
                [[1]] * 5,
                batch_size=2,
                lengths=(4,),
                pad_id=0,
                what=what,
            )
        return [record.getMessage() for record in caplog.records]

    assert run("") == []
    (line,) = run("answer letters")
    assert line.startswith("answer letters: 5/5 texts (100.0 %)")


@hypothesis.given(st.integers(0, 5000), st.sampled_from([2, 64, 128]))
def test_rising_lengths_waste_little(longest, smallest):
    lengths = batching.rising_lengths(longest, smallest)
    assert lengths[0] == smallest and lengths[-1] >= longest
    assert all(2 * b <= 3 * a for a, b in zip(lengths, lengths[1:], strict=False))
    assert all(length < longest for length in lengths[:-1])


def test_rising_lengths_by_hand():
    assert batching.rising_lengths(500) == (64, 96, 128, 192, 256, 384, 512)
    assert batching.rising_lengths(64) == (64,)
