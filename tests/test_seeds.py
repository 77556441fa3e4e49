"""seeds: the same words forever, no two the same, choices uniform."""

import pytest

from rlcd_jax import seeds


def test_seed_words_are_fixed_forever():
    # Golden: blake2b of '[0, "simulate", "p0", "positive", 0]', 8 bytes, little-endian.
    assert seeds.seed_words(0, "simulate", "p0", "positive", 0) == (
        3549542969,
        3643997465,
    )
    assert seeds.seed_words(0, "a", 1) != seeds.seed_words(0, "a", "1")
    assert seeds.seed_words(0, "ab", "c") != seeds.seed_words(0, "a", "bc")
    with pytest.raises(TypeError):
        seeds.seed_words(0, 1.5)


def test_seed_words_do_not_collide_and_seed_choice_is_uniform():
    keys = {seeds.seed_words(0, "p", i, s) for i in range(2000) for s in ("a", "b")}
    assert len(keys) == 4000
    counts = [0] * 16
    for i in range(4000):
        counts[seeds.seed_choice(16, 0, "affix", f"p{i}")] += 1
    chi_square = sum((c - 250) ** 2 / 250 for c in counts)
    assert chi_square < 37.7  # 99.9 % quantile of 15 degrees of freedom
    with pytest.raises(ValueError, match="0 things"):
        seeds.seed_choice(0, 0, "x")
