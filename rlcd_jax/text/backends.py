"""Fast tokenizers (`tokenizers`): what is turned off in them, read and checked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping

import tokenizers
from tokenizers import models

SPACE = "\u2581"  # how SentencePiece writes a space
BYTE_PIECE = re.compile("<0x[0-9A-Fa-f]{2}>")  # a byte in a SentencePiece vocabulary


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the files of a model say about its tokens.

    Attributes:
      backend: the fast tokenizer, with all tokens that the files add.
      bos_id: id that stands in front of every text, or None.
      eos_ids: ids that end a text, the one that is appended to texts first.
      pad_id: id of the padding token if one is named.
      names: special tokens by their names in a template ("bos_token": "<s>").
      chat_template: the default template, or None.
    """

    backend: tokenizers.Tokenizer
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    names: Mapping[str, str]
    chat_template: str | None


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
    """Return the number of ids, which must be 0, 1, 2 and so on.

    Raises:
      ValueError: an id belongs to two tokens, or to none.
    """
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


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each printable stand-in of a byte-level vocabulary means.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, for
    the characters from U+0100 on.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    alphabet = {chr(byte): byte for byte in shown}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def spell(piece: str, alphabet: Mapping[str, int] | None) -> bytes:
    """Return the bytes that a piece of a vocabulary stands for.

    Args:
      piece: no added token; those stand for their text.
      alphabet: byte by stand-in in a byte-level vocabulary; None for SentencePiece.
    """
    if alphabet is not None:
        if all(character in alphabet for character in piece):
            return bytes(alphabet[character] for character in piece)
        return piece.encode()  # no stand-ins: it stands for itself
    if BYTE_PIECE.fullmatch(piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE, " ").encode()


def padding(
    backend: tokenizers.Tokenizer, declared: int | None, taken: Collection[int | None]
) -> int:
    """Return an id for unused places, which is none of `taken`.

    The declared one, else the unknown token, else a special token without a use, else
    the first id that is free.
    """
    unknown = getattr(backend.model, "unk_token", None)
    special = [i for i, t in backend.get_added_tokens_decoder().items() if t.special]
    candidates = [
        declared,
        None if unknown is None else backend.token_to_id(unknown),
        *sorted(special),
        *range(backend.get_vocab_size()),
    ]
    return next(i for i in candidates if i is not None and i not in taken)
