"""A tokenizer as the metadata of a GGUF file; `gguf_vocabulary` reads it back.

Byte-level vocabularies go with their merges and the name of the rule that splits a text
first. A SentencePiece vocabulary goes with scores instead of merges: the rank of each
joint piece among the merges, which are the scores of LLaMA's own files.

What llama.cpp would read in another way is refused; that reading and writing make the
same ids is for the caller to check on texts, since flags and rules may hide anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gguf
import tokenizers
from tokenizers import models

from rlcd_jax.text import backends, gguf_vocabulary, sentence_piece, tokenizer

PREFIX = gguf_vocabulary.PREFIX
REMEDY = "write a Hugging Face folder instead (a name without .gguf)"
# Control tokens that llama.cpp takes by their text for the end of a reply.
KNOWN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|endoftext|>", "<|eom_id|>")
KINDS = gguf.TokenType


def of_tokenizer(one: tokenizer.Tokenizer, num_rows: int) -> dict[str, Any]:
    """Return the metadata of a tokenizer, by the names of GGUF's fields.

    Args:
      one: the tokenizer.
      num_rows: of the model's table of embeddings; a row beyond the tokenizer's ids
        gets the name of an unused token, as llama.cpp's converter gives it.

    Raises:
      ValueError: GGUF has no place for a rule of this tokenizer; it is named.
    """
    parts = one.parts()
    backend = parts.backend
    model = json.loads(backend.to_str())["model"]
    if not isinstance(backend.model, models.BPE):
        raise ValueError(
            f"the tokenizer joins pieces by {model.get('type')}, and GGUF's LLaMA has "
            f"BPE; {REMEDY}"
        )
    _check_added(backend)
    pieces = [backend.id_to_token(i) for i in range(one.vocab_size)]
    kinds = _kinds(backend, pieces)
    if backends.is_byte_level(backend):
        fields = _byte_level(backend, model)
    else:
        fields = _sentence_piece(backend, model, pieces, kinds)
    spare = range(one.vocab_size, num_rows)
    pieces += [f"[PAD{i}]" for i in spare]
    kinds += [int(KINDS.UNUSED)] * len(spare)
    if scores := fields.get(f"{PREFIX}scores"):
        scores += [min(scores) - 1.0] * len(spare)
    fields |= {f"{PREFIX}tokens": pieces, f"{PREFIX}token_type": kinds}
    fields |= {f"{PREFIX}{k}_token_id": i for k, i in _named_ids(one, parts).items()}
    fields |= {
        f"{PREFIX}add_bos_token": one.bos_id is not None,
        f"{PREFIX}add_eos_token": False,
    }
    if parts.chat_template is not None:
        fields["tokenizer.chat_template"] = parts.chat_template
    return fields


def _check_added(backend: tokenizers.Tokenizer) -> None:
    """Refuse added tokens that are looked for otherwise than as they are written."""
    for token in backend.get_added_tokens_decoder().values():
        if token.lstrip or token.rstrip or token.single_word:
            raise ValueError(
                f"the token {token.content!r} takes blanks beside it or stands for a "
                f"whole word only, which llama.cpp does not know; {REMEDY}"
            )


def _kinds(backend: tokenizers.Tokenizer, pieces: Sequence[str]) -> list[int]:
    """Return GGUF's kind of each token."""
    added = backend.get_added_tokens_decoder()
    is_bytes = backends.is_byte_level(backend)
    unknown = None if is_bytes else backend.model.unk_token

    def kind(token_id: int, piece: str) -> KINDS:
        if piece == unknown:
            return KINDS.UNKNOWN
        if token_id in added:
            return KINDS.CONTROL if added[token_id].special else KINDS.USER_DEFINED
        is_byte = not is_bytes and backends.BYTE_PIECE.fullmatch(piece)
        return KINDS.BYTE if is_byte else KINDS.NORMAL

    return [int(kind(i, piece)) for i, piece in enumerate(pieces)]


def _named_ids(one: tokenizer.Tokenizer, parts: backends.Vocabulary) -> dict[str, int]:
    """Return the ids that a GGUF file names."""
    backend = parts.backend
    ids = {"eos": one.eos_id, "padding": one.pad_id}
    for name, field in (("bos_token", "bos"), ("unk_token", "unknown")):
        if name in parts.names:
            ids[field] = backend.token_to_id(parts.names[name])
    if one.bos_id is not None:
        ids["bos"] = one.bos_id
    # The token that closes a turn first: it is the one that conversations end with.
    others = [i for i in one.eos_ids if i != one.eos_id]
    if one.template_closes_turns:
        turn = backend.token_to_id(one.end_of_turn)
        others.sort(key=lambda i: i != turn)
        known = [i for i in others if backend.id_to_token(i) in KNOWN_ENDS]
        others = [i for i in others if i == turn or i not in known]
    else:
        others = [i for i in others if backend.id_to_token(i) not in KNOWN_ENDS]
    if len(others) > 2:
        raise ValueError(
            f"the tokenizer has the tokens {[backend.id_to_token(i) for i in others]} "
            f"that end a text beside its EOS, and GGUF has room for two; {REMEDY}"
        )
    return ids | dict(zip(("eot", "eom"), others, strict=False))


def _byte_level(backend: tokenizers.Tokenizer, model: dict[str, Any]) -> dict[str, Any]:
    if backend.normalizer is not None:
        raise ValueError(
            "the tokenizer changes a text before it is split (its normalizer), which "
            f"GGUF's byte-level vocabularies do not; {REMEDY}"
        )
    merges = [" ".join(pair) for pair in _merges(model)]
    if not merges:
        raise ValueError(
            "the tokenizer joins no bytes to longer pieces (no merges), and a GGUF "
            f"file has at least one merge; {REMEDY}"
        )
    return {
        f"{PREFIX}model": "gpt2",
        f"{PREFIX}pre": _splitting_rule(backend, model),
        f"{PREFIX}merges": merges,
    }


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a model's merges, which files hold as pairs or as lines."""
    return [
        tuple(one.split(" ") if isinstance(one, str) else one)
        for one in model["merges"]
    ]


def _splitting_rule(backend: tokenizers.Tokenizer, model: dict[str, Any]) -> str:
    """Return GGUF's name of the rule that splits a text before the merges."""
    own = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    steps = _flat(own)
    for rule in gguf_vocabulary.SPLITS:
        joins_whole = rule in gguf_vocabulary.LLAMA3_NAMES
        same = bool(model.get("ignore_merges")) == joins_whole
        if same and steps == _flat(gguf_vocabulary.split_steps(rule)):
            return rule
    raise ValueError(
        f"the tokenizer splits a text by {[step['type'] for step in steps]}, none of "
        f"the rules that are known by name: {', '.join(gguf_vocabulary.SPLITS)}; "
        f"{REMEDY}"
    )


def _flat(steps: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the steps of pre-tokenizers, one after the other, as plain data."""
    found: list[dict[str, Any]] = []
    todo = [json.loads(step.__getstate__()) for step in steps]
    while todo:
        step = todo.pop(0)
        if step["type"] == "Sequence":
            todo = step["pretokenizers"] + todo
        else:
            step.pop("trim_offsets", None)  # moves offsets, and no token
            found.append(step)
    return found


def _sentence_piece(
    backend: tokenizers.Tokenizer,
    model: dict[str, Any],
    pieces: Sequence[str],
    kinds: Sequence[int],
) -> dict[str, Any]:
    if not (model.get("byte_fallback") and model.get("fuse_unk")):
        raise ValueError(
            "the tokenizer has no bytes for unknown characters, as SentencePiece's "
            f"vocabularies of LLaMA have; {REMEDY}"
        )
    merges = _merges(model)
    rank = {left + right: None for left, right in merges}
    normal = [p for p, kind in zip(pieces, kinds, strict=True) if kind == KINDS.NORMAL]
    order = [*rank, *(piece for piece in normal if piece not in rank)]
    scores = {piece: -float(place) for place, piece in enumerate(order)}
    listed = [
        scores[piece] if kind == KINDS.NORMAL else 0.0
        for piece, kind in zip(pieces, kinds, strict=True)
    ]
    again = sentence_piece.score_merges(pieces, listed, kinds)
    if {*again} != {*merges} or [a + b for a, b in again] != [a + b for a, b in merges]:
        raise ValueError(
            "the merges of the tokenizer are not those of a SentencePiece vocabulary: "
            f"{len({*again} ^ {*merges})} of {len(merges)} do not follow from the "
            f"order of its pieces; {REMEDY}"
        )
    first = backend.encode("a", add_special_tokens=False).tokens
    return {
        f"{PREFIX}model": "llama",
        f"{PREFIX}pre": "default",
        f"{PREFIX}scores": listed,
        f"{PREFIX}add_space_prefix": first[0].startswith(backends.SPACE),
    }
