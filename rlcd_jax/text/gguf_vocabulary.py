"""Fast tokenizers built from the vocabulary that a GGUF file carries.

A GGUF file stores pieces, kinds and merges (or scores) but not the rules that split a
text before merging: those it only names. The rules of the LLaMA family are below; an
unknown name is an error, since a nearly right split changes some texts.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from rlcd_jax.text import backends, sentence_piece
from rlcd_jax.weights import gguf_header

# The splitting rule of LLaMA 3, as its tokenizer.json states it.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_NAMES = ("llama-bpe", "llama3", "llama-v3")
LLAMA3_TOKENS = {"<|begin_of_text|>", "<|end_of_text|>"}
SPLITS = ("gpt-2", "smollm", *LLAMA3_NAMES)
NO_SPLITS = (None, "", "default")  # what converters write that do not know the rule
SPACE = backends.SPACE

PREFIX = "tokenizer.ggml."
CONTROL = (gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL)
FOLDER = "load the tokenizer from a Hugging Face folder instead"


def read_file(path: pathlib.Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file.

    Raises:
      ValueError: it is no whole GGUF file; see `gguf_header`.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    gguf_header.check(path)
    try:
        return read_fields(gguf.GGUFReader(path))
    except Exception as error:  # the reader checks little: any of many, by the damage
        raise ValueError(
            f"{path} is no whole GGUF file ({type(error).__name__}: {error}); fetch it "
            "again"
        ) from error


def read_fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    """Return all metadata of an open GGUF file as plain values."""
    return {name: field.contents() for name, field in reader.fields.items()}


def read_vocabulary(fields: Mapping[str, Any]) -> backends.Vocabulary:
    """Return what a GGUF file's metadata says about tokens.

    Args:
      fields: metadata by name, as `read_fields` gives them.

    Raises:
      ValueError: as `build`, or a named token or the template is damaged.
    """
    backend = build(fields)
    _check_table(fields, backend.get_vocab_size())
    ids = named_ids(fields)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown"}
    return backends.Vocabulary(
        backend=backend,
        bos_id=ids.get("bos") if adds_bos(fields) else None,
        eos_ids=tuple(ids[name] for name in ("eos", "eot", "eom") if name in ids),
        pad_id=ids.get("padding"),
        names={k: backend.id_to_token(ids[v]) for k, v in names.items() if v in ids},
        chat_template=chat_template(fields),
    )


def build(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Return the fast tokenizer that a GGUF file's metadata describes.

    Args:
      fields: metadata by name, as `read_fields` gives them.

    Raises:
      ValueError: the kind of tokenizer or its splitting rule is not of the family, or
        the file lacks a part of its vocabulary.
    """
    kind = fields.get(f"{PREFIX}model")
    if kind not in ("gpt2", "llama"):
        raise ValueError(
            f"the GGUF file has a tokenizer of kind {kind!r}; accepted: 'gpt2' "
            f"(byte level) and 'llama' (SentencePiece); {FOLDER}"
        )
    pieces, kinds = _pieces(fields)
    if kind == "gpt2":
        backend = _byte_level(fields, pieces)
    else:
        backend = _sentence_piece(fields, pieces, kinds)
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind in CONTROL:
            added = tokenizers.AddedToken(piece, special=True, normalized=False)
            backend.add_special_tokens([added])
        elif kind == gguf.TokenType.USER_DEFINED:
            backend.add_tokens([tokenizers.AddedToken(piece, normalized=False)])
    return backend


def adds_bos(fields: Mapping[str, Any]) -> bool:
    """Return whether the model was trained with a BOS in front of each text.

    Where the file does not say, SentencePiece vocabularies have one, and byte-level
    ones only LLaMA 3's: the rule by which llama.cpp runs these files. A token at the
    end (`add_eos_token`) is never added, since texts are prompts.
    """
    sentence_piece = fields.get(f"{PREFIX}model") == "llama"
    default = sentence_piece or splitting_rule(fields) in LLAMA3_NAMES
    return _flag(fields, "add_bos_token", default)


def named_ids(fields: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of the tokens that a file names: "bos", "eos", "eot" and others.

    Raises:
      ValueError: one of them is no id of the vocabulary.
    """
    count = len(fields[f"{PREFIX}tokens"])
    ids = {}
    for name in ("bos", "eos", "eot", "eom", "padding", "unknown"):
        token_id = fields.get(f"{PREFIX}{name}_token_id")
        if token_id is None:
            continue
        if not isinstance(token_id, int) or not 0 <= token_id < count:
            raise ValueError(
                f"the GGUF file has {PREFIX}{name}_token_id {token_id!r}; accepted: "
                f"ids of its {count} tokens, 0 to {count - 1}; {FOLDER}"
            )
        ids[name] = token_id
    return ids


def chat_template(fields: Mapping[str, Any]) -> str | None:
    """Return the default chat template, or None.

    Raises:
      ValueError: it is not a text.
    """
    template = fields.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError(
            f"tokenizer.chat_template of the GGUF file must be a text, got {template!r}"
        )
    return template


def _check_table(fields: Mapping[str, Any], count: int) -> None:
    """Refuse more ids than the model in the file has rows."""
    name = f"{fields.get('general.architecture')}.vocab_size"
    rows = fields.get(name)
    if isinstance(rows, int) and count > rows:
        raise ValueError(
            f"the GGUF file has {count} tokens, but its {name} is {rows}; fetch it "
            f"again, or {FOLDER}"
        )


def _flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    said = fields.get(f"{PREFIX}{name}")
    if said is not None and not isinstance(said, bool):
        raise ValueError(f"the GGUF file has {PREFIX}{name} {said!r}; accepted: a bool")
    return default if said is None else said


def _column(
    fields: Mapping[str, Any], name: str, kind: type, length: int | None = None
) -> list[Any]:
    """Return one of the arrays of a vocabulary.

    Raises:
      ValueError: it is missing, holds other values than of that kind, or has another
        length than the tokens.
    """
    values = fields.get(f"{PREFIX}{name}")
    if not isinstance(values, list) or not all(isinstance(v, kind) for v in values):
        raise ValueError(
            f"the GGUF file has no list of {kind.__name__} {PREFIX}{name}; {FOLDER}"
        )
    if length is not None and len(values) != length:
        raise ValueError(
            f"the GGUF file has {length} tokens, but {len(values)} values in "
            f"{PREFIX}{name}; fetch it again, or {FOLDER}"
        )
    return values


def _pieces(fields: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    pieces = _column(fields, "tokens", str)
    kinds = _column(fields, "token_type", int, len(pieces))
    twice = [p for p, times in collections.Counter(pieces).items() if times > 1]
    if twice:
        raise ValueError(
            f"the GGUF file has the token {twice[0]!r} twice ({len(twice)} tokens are "
            f"not alone), so that an id is not known by its text; {FOLDER}"
        )
    return pieces, kinds


def splitting_rule(fields: Mapping[str, Any]) -> str:
    """Return the name of the rule that splits a text before byte-level merges.

    A file of before May 2024 names none; that of LLaMA 3 is known by its tokens.

    Raises:
      ValueError: the rule is none of ours, or none is named.
    """
    rule = fields.get(f"{PREFIX}pre")
    if rule in NO_SPLITS:
        if set(fields[f"{PREFIX}tokens"]) >= LLAMA3_TOKENS:
            return LLAMA3_NAMES[0]
        raise ValueError(
            f"the GGUF file does not name the rule that splits a text ({PREFIX}pre is "
            f"{rule!r}), and a wrong one gives wrong ids in silence; accepted: "
            f"{', '.join(SPLITS)}; write it into a copy (gguf-new-metadata "
            f"--pre-tokenizer smollm OLD NEW), convert the model anew, or {FOLDER}"
        )
    if rule not in SPLITS:
        raise ValueError(
            f"the GGUF file names the splitting rule {rule!r}; accepted: "
            f"{', '.join(SPLITS)}; {FOLDER}"
        )
    return rule


def split_steps(rule: str) -> list[pre_tokenizers.PreTokenizer]:
    """Return what a splitting rule does, step by step.

    Args:
      rule: one of `SPLITS`.
    """
    is_llama3 = rule in LLAMA3_NAMES
    steps = []
    if rule == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if is_llama3:
        pattern = tokenizers.Regex(LLAMA3_PATTERN)
        steps.append(pre_tokenizers.Split(pattern, behavior="isolated"))
    steps.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not is_llama3)
    )
    return steps


def _byte_level(
    fields: Mapping[str, Any], pieces: Sequence[str]
) -> tokenizers.Tokenizer:
    split = splitting_rule(fields)
    lines = _column(fields, "merges", str)
    merges = [tuple(line.split(" ")) for line in lines]
    known = set(pieces)
    for merge, line in zip(merges, lines, strict=True):
        if len(merge) != 2 or not {*merge, "".join(merge)} <= known:
            raise ValueError(
                f"the GGUF file has the merge {line!r}, which joins no two of its "
                f"tokens to a third; fetch it again, or {FOLDER}"
            )
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=merges,
            ignore_merges=split in LLAMA3_NAMES,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(split_steps(split))
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentence_piece(
    fields: Mapping[str, Any], pieces: Sequence[str], kinds: Sequence[int]
) -> tokenizers.Tokenizer:
    scores = _column(fields, "scores", float, len(pieces))
    merges = sentence_piece.score_merges(pieces, scores, kinds)
    spaced = [
        piece
        for piece, kind in zip(pieces, kinds, strict=True)
        if kind == gguf.TokenType.USER_DEFINED and SPACE in piece
    ]
    if spaced:
        raise ValueError(
            f"the GGUF file has user-defined tokens with spaces ({spaced[0]!r}), which "
            f"no LLaMA has and which are not read here; {FOLDER}"
        )
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=merges,
            unk_token=pieces[named_ids(fields).get("unknown", 0)],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps = [normalizers.Replace(" ", SPACE)]
    undo = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if _flag(fields, "add_space_prefix", True):
        steps.insert(0, normalizers.Prepend(SPACE))
        undo.append(decoders.Strip(content=" ", left=1, right=0))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(undo)
    return backend
