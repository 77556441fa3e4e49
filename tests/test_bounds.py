"""The bounds that the fuzz of loaders runs in do bound."""

import time

import bounds
import numpy as np
import pytest


def test_what_takes_little_is_left_alone():
    with bounds.bounded(megabytes=50, seconds=30):
        assert len(bytes(2**20)) == 2**20


def test_memory_that_is_used_is_counted_whoever_took_it():
    with (
        pytest.raises(bounds.TooMuch, match="it took 1.. MB; it may take 50"),
        bounds.bounded(megabytes=50, seconds=30),
    ):
        np.ones(100 * 2**20, np.uint8)


def test_memory_that_is_asked_for_and_never_used_is_not_given():
    with pytest.raises(MemoryError), bounds.bounded(megabytes=50, seconds=30):
        np.empty(2**44, np.uint8)


def test_what_does_not_end_is_ended():
    began = time.monotonic()
    with (
        pytest.raises(bounds.TooMuch, match="not ended after 0.1 seconds"),
        bounds.bounded(megabytes=50, seconds=0.1),
    ):
        while True:
            pass
    assert time.monotonic() - began < 5
