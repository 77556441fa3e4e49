"""Fast tokenizers of ``tokenizers``: what is turned off in them, and checked."""

from __future__ import annotations

import tokenizers
from tokenizers import models

SPACE = "\u2581"  # how SentencePiece writes a space


def plain(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Turn off what makes ids depend on more than the text; return the tokenizer."""
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    if isinstance(backend.model, models.BPE):
        backend.model.dropout = None
    if isinstance(backend.model, models.Unigram):
        backend.model.alpha = backend.model.nbest_size = None
    return backend


def count_ids(backend: tokenizers.Tokenizer) -> int:
    """Return the number of ids, which must be 0, 1, 2 and so on."""
    vocab = backend.get_vocab(with_added_tokens=True)
    used = set(vocab.values())
    if len(used) < len(vocab):
        seen: dict[int, str] = {}
        pairs = ((seen.setdefault(i, piece), piece, i) for piece, i in vocab.items())
        one, two, i = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"the vocabulary gives the id {i} to {one!r} and to {two!r}; each id must "
            "belong to one token: fetch the tokenizer's files again"
        )
    if used and max(used) >= len(used):
        gap = next(i for i in range(len(used)) if i not in used)
        raise ValueError(
            f"the vocabulary has {len(used)} tokens with ids up to {max(used)}, and no "
            f"token with the id {gap}; ids must be 0 to {len(used) - 1}: fetch the "
            "tokenizer's files again"
        )
    return len(used)


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Return whether pieces are byte stand-ins (True) or SentencePiece (False)."""
    decoder = "null"
    if backend.decoder is not None:
        decoder = backend.decoder.__getstate__().decode("utf-8")
    if '"ByteLevel"' in decoder:
        return True
    if SPACE in decoder:
        return False
    raise ValueError(
        f"the tokenizer decodes by {decoder}; accepted: ByteLevel, or SentencePiece's "
        "space mark (Metaspace or Replace)"
    )
