"""Dist-n of systems with intervals, and a paired test between two systems.

Dist-n is distinct n-grams over all n-grams, pooled over all replies, so it is no mean
over prompts: a bootstrap that repeats prompts would lower it. The interval is a
delete-one jackknife over prompts, the test exchanges the two systems' replies to a
prompt.

Source: RLCD Appendix J.3 (Li et al. 2016 for Dist-n).
"""

from __future__ import annotations

import collections
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from scipy import special

from rlcd_jax.statistics import estimates

Replies = Mapping[str, Sequence[str]]  # prompt id -> the replies to it


def distinct_n(
    sequences: Sequence[Sequence[Hashable]], n: int
) -> float | estimates.Missing:
    """Return distinct n-grams over all n-grams, pooled over all sequences, in [0, 1].

    Args:
      sequences: words or token ids of each text. The share falls with the amount of
        text, so compare equal amounts only.
      n: length of the n-grams.
    """
    grams = count_grams(sequences, n)
    if not grams:
        return estimates.Missing(f"no text of {n} words or more")
    return len(grams) / grams.total()


def count_grams(sequences: Sequence[Sequence[Hashable]], n: int) -> collections.Counter:
    """Return how often each n-gram occurs in sequences of words or token ids.

    Raises:
      ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    counts: collections.Counter = collections.Counter()
    for words in sequences:
        counts.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return counts


def distinct_interval(
    replies: Replies, n: int, *, level: float = 0.95
) -> estimates.Estimate | estimates.Missing:
    """Estimate Dist-n with a jackknife interval over prompts.

    With D_i the value without prompt i, the standard error is
    `sqrt((k - 1) / k sum_i (D_i - mean D)^2)`.

    Args:
      replies: replies of one system by prompt; words are split at white space.
      n: length of the n-grams.
      level: coverage of the interval.

    Returns:
      A share in [0, 1].
    """
    estimates.check_level(level)
    grams = [_grams(texts, n) for texts in replies.values()]
    whole = sum(grams, collections.Counter())
    total = whole.total()
    if len(grams) < 2 or any(total == own.total() for own in grams):
        return estimates.Missing(f"fewer than two prompts with replies of {n} words")
    left_out = []
    for own in grams:
        gone = sum(count == whole[gram] for gram, count in own.items())
        left_out.append((len(whole) - gone) / (total - own.total()))
    spread = np.array(left_out) - np.mean(left_out)
    error = math.sqrt((len(grams) - 1) / len(grams) * float(spread @ spread))
    half = float(special.ndtri((1 + level) / 2)) * error
    value = len(whole) / total
    low, high = max(0.0, value - half), min(1.0, value + half)
    return estimates.Estimate(value, low, high, level, len(grams))


def exchange_test(
    replies_1: Replies, replies_2: Replies, n: int, *, seed: int, draws: int
) -> float:
    """Return the two-sided p-value of two systems having the same Dist-n.

    The replies of the systems to a prompt are exchanged or not, by a coin each; the
    p-value is the share of such exchanges whose difference of Dist-n is at least the
    observed one, that one included.

    Args:
      replies_1: replies of the first system by prompt.
      replies_2: replies of the second system to the same prompts.
      n: length of the n-grams.
      seed: of the coins.
      draws: how many exchanges.

    Raises:
      ValueError: the systems answered different prompts.
    """
    if replies_1.keys() != replies_2.keys():
        raise ValueError("the two systems answered different prompts; give the same")
    pairs = [(_grams(replies_1[p], n), _grams(replies_2[p], n)) for p in replies_1]
    names: dict[tuple[str, ...], int] = {}
    for both in pairs:
        for own in both:
            for gram in own:
                names.setdefault(gram, len(names))
    entries = [[_arrays(own, names) for own in both] for both in pairs]

    def gap(exchanged: np.ndarray) -> float:
        shares = []
        for side in (0, 1):
            taken = [
                both[side ^ int(x)] for both, x in zip(entries, exchanged, strict=True)
            ]
            seen = np.zeros(len(names), bool)
            for ids, _ in taken:
                seen[ids] = True
            total = sum(count for _, count in taken)
            shares.append(seen.sum() / total if total else 0.0)
        return abs(shares[0] - shares[1])

    observed = gap(np.zeros(len(pairs), bool)) - 1e-12
    rng = np.random.default_rng(seed)
    hits = sum(
        gap(rng.integers(0, 2, len(pairs)).astype(bool)) >= observed
        for _ in range(draws)
    )
    return (hits + 1) / (draws + 1)


def _grams(texts: Sequence[str], n: int) -> collections.Counter:
    """Return how often each n-gram of words occurs in the replies to one prompt."""
    return count_grams([text.split() for text in texts], n)


def _arrays(own: collections.Counter, names: Mapping) -> tuple[np.ndarray, int]:
    return np.array([names[gram] for gram in own], np.int64), own.total()
