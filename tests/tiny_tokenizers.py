"""Small tokenizers, one for each way in which the models of this family differ."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from rlcd_jax.text import backends, byte_tokenizer
from rlcd_jax.text import tokenizer as tk

SPACE = "\u2581"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'()[]-"
TEMPLATE = (
    "{{ '<bot>' }}{% for m in messages %}"
    "{{ '<h>' + m['role'] + '\n\n' + m['content'] | trim + '<eot>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<h>assistant\n\n' }}{% endif %}"
)
# Texts in which tokenizers differ: numbers, blanks, scripts, marks, nothing.
TEXTS = (
    "Human: I've lost $1,234.50 in 2023!\n\nAssistant:",
    "  leading, trailing  \n\n\n\ttabs\r\n",
    "naïve café — 漢字かな 🙂🏽 ½ ٣٤ x²",
    "it's they're WE'LL don't 'quoted'",
    "def f(x):\n    return x  # 007\n",
    "",
    " ",
    "The answer is: (",
)
SPECIALS = ("<bot>", "<h>", "<eot>", "<eos>")


def special(text: str, **sides) -> tokenizers.AddedToken:
    """Return a special token."""
    return tokenizers.AddedToken(text, special=True, normalized=False, **sides)


def sentence_piece(metaspace: bool = False) -> tk.Tokenizer:
    """Return one like LLaMA 1 and 2: a space in front, bytes for the unknown, a BOS.

    Args:
      metaspace: spaces are put by a pre-tokenizer instead of a normaliser.
    """
    joined = ["ll", "he", f"{SPACE}w", "hell", "or", "ld", "hello", f"{SPACE}hello"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += [SPACE, *LETTERS, *joined]
    merges = ["l l", "h e", f"{SPACE} w", "he ll", "o r", "l d", "hell o"]
    merges.append(f"{SPACE} hello")
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[tuple(merge.split(" ")) for merge in merges],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme="first", split=False
        )
    else:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens([special(x) for x in ("<unk>", "<s>", "</s>")])
    return tk.Tokenizer(backend, bos_id=1, eos_ids=[2])


def byte_level(*, merges=(), normalizer=None, trims=False, bos=True, more=()):
    """Return one like LLaMA 3, whose chat template writes the BOS.

    Args:
      merges: pairs of pieces, in the alphabet of bytes.
      normalizer: of texts.
      trims: has a post-processor that trims the spans of tokens.
      bos: a BOS is put in front of texts.
      more: special tokens.
    """
    pieces = [*backends.byte_alphabet(), *("".join(pair) for pair in merges)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    if trims:
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.add_special_tokens([*map(special, SPECIALS), *more])
    ids = {name: backend.token_to_id(name) for name in SPECIALS}
    return tk.Tokenizer(
        backend,
        bos_id=ids["<bot>"] if bos else None,
        eos_ids=[ids["<eot>"], ids["<eos>"]],
        chat_template=TEMPLATE,
    )


TOKENIZERS = {
    "bytes": byte_tokenizer.make,
    "space in front": sentence_piece,
    "space in front, by a pre-tokenizer": lambda: sentence_piece(metaspace=True),
    "byte level": byte_level,
    "byte level, no BOS": lambda: byte_level(bos=False),
    "byte level, spans trimmed": lambda: byte_level(trims=True, merges=[("Ġ", "a")]),
    "NFC": lambda: byte_level(normalizer=normalizers.NFC()),
    "lower case": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "swallows blanks": lambda: byte_level(
        more=[special("<x>", lstrip=True, rstrip=True)]
    ),
}
