"""The tokenizer of tests, plans and random models: a token is a byte."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from rlcd_jax.text import backends, tokenizer

CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def make(vocab_size: int = 259) -> tokenizer.Tokenizer:
    """Return a tokenizer whose tokens are the 256 bytes, with a chat template.

    Ids 0 to 255 are the bytes, then come <pad>, <bos> and <eos>; ids up to
    `vocab_size` are special tokens without a use.

    Raises:
      ValueError: there are too few ids for all bytes.
    """
    if vocab_size < 259:
        raise ValueError(
            f"a tokenizer of bytes needs 259 ids or more, got {vocab_size}"
        )
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=backends.byte_alphabet(), merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    names = ["<pad>", "<bos>", "<eos>"]
    names += [f"<extra_{i}>" for i in range(vocab_size - 259)]
    backend.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in names]
    )
    return tokenizer.Tokenizer(
        backend,
        pad_id=256,
        bos_id=257,
        eos_ids=[258],
        chat_template=CHAT_TEMPLATE,
    )
