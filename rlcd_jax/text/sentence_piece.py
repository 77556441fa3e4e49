"""The merges of a SentencePiece vocabulary, from the scores of its pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import gguf


def score_merges(
    pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece BPE vocabulary, best first.

    SentencePiece joins the neighbours whose joint piece has the highest score, so every
    split of a normal piece into two is a merge with that piece's rank.

    Args:
      pieces: of all tokens, in the order of their ids.
      scores: of the pieces.
      kinds: of the pieces, as `gguf.TokenType`; bytes, controls and user-defined
        tokens are never joined from others.

    Raises:
      ValueError: two joint pieces have one score, so that no order is known, or one is
        not used, or its score is no number.
    """
    normal = (gguf.TokenType.NORMAL, gguf.TokenType.UNUSED)
    ids = {piece: i for i, piece in enumerate(pieces) if kinds[i] in normal}
    ranked = []
    for piece, token_id in ids.items():
        for left, right in _cuts(piece):
            if left in ids and right in ids:
                order = (-scores[token_id], ids[left], ids[right])
                ranked.append((order, (left, right)))
    joint = {left + right for _, (left, right) in ranked}
    _check_joint(joint, ids, scores, kinds)
    return [pair for _, pair in sorted(ranked)]


def _cuts(piece: str) -> Iterable[tuple[str, str]]:
    return ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))


def _check_joint(
    joint: Iterable[str],
    ids: Mapping[str, int],
    scores: Sequence[float],
    kinds: Sequence[int],
) -> None:
    """Refuse joint pieces whose order or use a list of merges cannot tell."""
    remedy = "load the tokenizer from a Hugging Face folder instead"
    by_score: dict[float, str] = {}
    for piece in joint:
        score = scores[ids[piece]]
        if kinds[ids[piece]] == gguf.TokenType.UNUSED:
            raise ValueError(
                f"the vocabulary calls the joint piece {piece!r} unused; {remedy}"
            )
        if not math.isfinite(score):
            raise ValueError(f"the piece {piece!r} has the score {score}; {remedy}")
        other = by_score.setdefault(score, piece)
        if other != piece:
            raise ValueError(
                f"the vocabulary gives the pieces {other!r} and {piece!r} the same "
                f"score {score}, so that it does not say which is joined first; "
                f"{remedy}"
            )
