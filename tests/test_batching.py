"""Tests of rlcd_jax.job.batching: rows of many lengths through few programs."""

import logging

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rlcd_jax.job import batching

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
        sum_of_row(shapes),
        rows,
        rows_at=lambda *_: batch_size,
        lengths=(4, 8, 12),
        pad_id=7,
    )
    np.testing.assert_array_equal(found, [sum(row) for row in rows])
    assert shapes <= {(batch_size, 4), (batch_size, 8), (batch_size, 12)}


@hypothesis.given(ROWS, st.integers(1, 7))
def test_map_rows_takes_fewer_long_rows_at_once(rows, most):
    shapes = set()
    found = batching.map_rows(
        sum_of_row(shapes),
        rows,
        rows_at=lambda length, _: max(1, most * 4 // length),
        lengths=(4, 8, 12),
        pad_id=7,
    )
    np.testing.assert_array_equal(found, [sum(row) for row in rows])
    assert all(size == max(1, most * 4 // length) for size, length in shapes)


@hypothesis.given(ROWS.filter(bool), st.integers(1, 5))
def test_map_rows_gives_each_row_its_own_numbers(rows, batch_size):
    def program(tokens, mask, place, pair):
        assert len(tokens) == len(place) == len(pair) == batch_size
        return place + 1000 * np.where(mask, tokens, 0).sum(1) + pair.sum(1)

    places = np.arange(len(rows))
    found = batching.map_rows(
        program,
        rows,
        places,
        np.stack([places, -places], axis=1),
        rows_at=lambda *_: batch_size,
        lengths=(12,),
        pad_id=7,
    )
    wanted = [1000 * sum(row) + place for place, row in enumerate(rows)]
    np.testing.assert_array_equal(found, wanted)


def test_no_row_is_cut_in_silence():
    with pytest.raises(ValueError, match="row 1 has 3 tokens and the width is 2"):
        batching.pad_left([[1], [1, 2, 3]], 2, 0)
    with pytest.raises(ValueError, match=r"5 tokens and the widths are \(2, 4\)"):
        batching.fitting_length(5, (2, 4))
    with pytest.raises(ValueError, match="a row has 9 tokens"):
        batching.map_rows(
            sum_of_row(set()), [[1] * 9], rows_at=lambda *_: 2, lengths=(8,), pad_id=0
        )


@hypothesis.given(st.integers(0, 5000))
def test_lengths_up_to_begin_as_given_and_hold_the_longest(longest):
    lengths = batching.lengths_up_to(longest, (80, 144))
    assert lengths[:2] == (80, 144) and lengths[-1] >= longest
    assert list(lengths) == sorted(set(lengths))
    assert all(length < longest for length in lengths[1:-1])


def test_map_rows_shows_how_far_it_is_when_it_has_a_name(caplog):
    def run(what):
        with caplog.at_level(logging.INFO):
            batching.map_rows(
                sum_of_row(set()),
                [[1]] * 5,
                rows_at=lambda *_: 2,
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
