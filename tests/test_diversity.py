"""diversity: distinct n-grams and lengths by hand."""

import math

import pytest

from rlcd_jax.statistics import diversity, estimates


def test_distinct_n_by_hand():
    texts = ["a b a b".split(), "a b c".split(), ["a"]]
    assert diversity.distinct_n(texts, 1) == 3 / 8
    assert diversity.distinct_n(texts, 2) == 3 / 5  # ab ba bc of ab ba ab ab bc
    assert diversity.distinct_n(texts, 5) == estimates.Missing(
        "no text of 5 words or more"
    )


def test_length_stats_by_hand():
    found = estimates.length_stats([1, 2, 3, 4, 10])
    assert (found.mean, found.median, found.num) == (4.0, 3.0, 5)
    assert found.sd == pytest.approx(math.sqrt(50 / 4))
    assert isinstance(estimates.length_stats([1]), estimates.Missing)
