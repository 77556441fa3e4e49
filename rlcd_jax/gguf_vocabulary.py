"""Fast tokenizers built from the vocabulary that a GGUF file carries.

A GGUF file stores pieces, kinds and merges (or scores) but not the rules that split a
text before merging: those it only names. The rules of the LLaMA family are below; an
unknown name is an error, since a nearly right split changes some texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

# The splitting rule of LLaMA 3, as its tokenizer.json states it.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")
SPLITS = ("gpt-2", "smollm", *LLAMA3_NAMES)
SPACE = "\u2581"  # how SentencePiece writes a space

CONTROL = (gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL)


def read_fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    """Return all metadata of an open GGUF file as plain values."""
    return {name: field.contents() for name, field in reader.fields.items()}


def build(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Return the fast tokenizer that a GGUF file's metadata describes.

    Args:
      fields: metadata by name, as ``read_fields`` gives them.

    Raises:
      ValueError: the kind of tokenizer or its splitting rule is not of the family.
    """
    kind = fields.get("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(fields)
    elif kind == "llama":
        backend = _sentence_piece(fields)
    else:
        raise ValueError(
            f"the GGUF file has a tokenizer of kind {kind!r}; accepted: 'gpt2' "
            "(byte level) and 'llama' (SentencePiece); load the tokenizer from a "
            "Hugging Face folder instead"
        )
    for token_id, piece in enumerate(fields["tokenizer.ggml.tokens"]):
        kind = fields["tokenizer.ggml.token_type"][token_id]
        if kind in CONTROL:
            added = tokenizers.AddedToken(piece, special=True, normalized=False)
            backend.add_special_tokens([added])
        elif kind == gguf.TokenType.USER_DEFINED:
            backend.add_tokens([tokenizers.AddedToken(piece, normalized=False)])
    return backend


def adds_bos(fields: Mapping[str, Any]) -> bool:
    """Return whether the model was trained with a BOS in front of each text."""
    default = (
        fields.get("tokenizer.ggml.model") == "llama"
        or fields.get("tokenizer.ggml.pre") in LLAMA3_NAMES
    )
    return bool(fields.get("tokenizer.ggml.add_bos_token", default))


def _byte_level(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    split = fields.get("tokenizer.ggml.pre", "gpt-2")
    if split not in SPLITS:
        raise ValueError(
            f"the GGUF file names the splitting rule {split!r}; accepted: "
            f"{', '.join(SPLITS)}; load the tokenizer from a Hugging Face folder"
        )
    pieces = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in fields["tokenizer.ggml.merges"]]
    is_llama3 = split in LLAMA3_NAMES
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=merges,
            ignore_merges=is_llama3,
        )
    )
    steps = []
    if split == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if is_llama3:
        pattern = tokenizers.Regex(LLAMA3_PATTERN)
        steps.append(pre_tokenizers.Split(pattern, behavior="isolated"))
    steps.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not is_llama3)
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_piece(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    pieces = fields["tokenizer.ggml.tokens"]
    vocab = {piece: token_id for token_id, piece in enumerate(pieces)}
    merges = score_merges(vocab, fields["tokenizer.ggml.scores"])
    unknown = pieces[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps = [normalizers.Replace(" ", SPACE)]
    undo = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if fields.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(SPACE))
        undo.append(decoders.Strip(content=" ", left=1, right=0))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(undo)
    return backend


def score_merges(
    vocab: Mapping[str, int], scores: list[float]
) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece BPE vocabulary, best first.

    SentencePiece joins the neighbours whose joint piece has the highest score, so every
    split of a piece into two pieces is a merge with that piece's rank.
    """
    ranked = []
    for piece, token_id in vocab.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                order = (-scores[token_id], vocab[left], vocab[right])
                ranked.append((order, (left, right)))
    return [pair for _, pair in sorted(ranked)]
