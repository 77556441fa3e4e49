"""Counts and means of a set of pairs: by cell, by side, and what was lost."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlcd_jax import records
from rlcd_jax.pairs import cut_counts, draws, length_counts, scored_labels


def summarise(
    pairs: Sequence[records.Pair], dropped: Sequence[records.Dropped]
) -> dict[str, Any]:
    """Return counts and means of a set of pairs: by cell, by side, and what was lost.

    It depends on the records alone, so the summary of several processes is that of
    their records together; each draw of a prompt counts. Tries and drops by
    side show a filter that works on one side more than on the other; a reply counts
    once in each of its pairs. A draw that lost replies and has pairs of the others is
    not dropped: it has fewer.
    """
    cells: dict[str, list[records.Pair]] = {}
    for pair in pairs:
        cells.setdefault(f"{pair.sampling}-{pair.labels}", []).append(pair)
    reasons: dict[str, Counter] = {}
    for d in dropped:
        reasons.setdefault(d.side, Counter())[d.reason] += 1
    key_of = records.key_of
    whole = {(key_of(pair), pair.sampling) for pair in pairs}
    lost = {(key_of(d), d.sampling) for d in dropped}
    prompts = {key_of(row) for row in (*pairs, *dropped)}
    long = dict.fromkeys(key_of(d) for d in dropped if d.reason == draws.TOO_LONG)
    return {
        "pairs": len(pairs),
        "prompts_with_pairs": len({key_of(pair) for pair in pairs}),
        "prompts_with_fewer_replies": len(lost & whole),
        "prompts_dropped": len({key for key, _ in lost - whole}),
        "dropped_by_side": {side: dict(count) for side, count in reasons.items()},
        "dropped_tries": sum(d.tries for d in dropped),
        length_counts.SUMMARY: {
            "prompts": length_counts.counts(len(prompts), dropped=len(long))
        },
        "first_too_long": list(long)[:20],
        "cells": {name: _summarise_cell(cell) for name, cell in cells.items()},
    }


def _summarise_cell(cell: Sequence[records.Pair]) -> dict[str, Any]:
    sides: dict[str, list[tuple[int, str, int, float]]] = {}
    for p in cell:
        first = (p.tries_1, p.finish_1, p.num_tokens_1, 1 - p.prob_2)
        second = (p.tries_2, p.finish_2, p.num_tokens_2, p.prob_2)
        for side, grade, one in (
            (p.side_1, p.grade_1, first),
            (p.side_2, p.grade_2, second),
        ):
            name = side if grade is None else f"grade {grade:g}"
            sides.setdefault(name, []).append(one)
    by_side = {}
    for side, entries in sorted(sides.items()):
        tries, finishes, lengths, probs = zip(*entries, strict=True)
        by_side[side] = {
            "tries": {str(n): c for n, c in sorted(Counter(tries).items())},
            "finish": dict(sorted(Counter(finishes).items())),
            "mean_tokens": sum(lengths) / len(lengths),
            "mean_prob_better": sum(probs) / len(probs),
        }
    total = sum(p.prob_2 for p in cell)
    told = {"pairs": len(cell), "mean_prob_2": total / len(cell), "sides": by_side}
    votes = scored_labels.count_votes(cell)
    return told | ({"votes": votes} if votes else {})


def count_cut(sides: Iterable[draws.SampledSide]) -> Mapping[str, int]:
    """Return the counts of `cut_counts` of all attempts at sides, rejected too."""
    of = cut = rejected = shortened = 0
    for side in sides:
        ends = [reply.finish == cut_counts.LENGTH for reply in side.replies]
        taken = ends[-1:] if side.text is not None else []
        of, cut = of + len(ends), cut + sum(ends)
        rejected += sum(ends) - sum(taken)
        shortened += side.shortened
    return cut_counts.counts(of, cut=cut, rejected=rejected, shortened=shortened)
