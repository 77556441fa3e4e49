"""The ids of prompt, reply and end mark: one way for every model that reads a reply.

Training, rollout, evaluation and diagnostics all make ids here, always of the whole
text, so equal texts have equal ids wherever they are read. A piece that is encoded
alone may have others: SentencePiece puts a space in front of it, and merges across its
borders are lost.

Source: the released code joins the texts in the same way for the preference model; for
its supervised loss it encodes the prompt alone and counts, which is off by the tokens
that the border changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers

from rlcd_jax import records, tasks
from rlcd_jax.text import dialogue_format, tokenizer

# Where a reply begins in its ids: see `join_replies`.
BY_TEXT, BY_TOKENS = BORDERS = "text", "tokens"
PART = 512  # texts in the fast tokenizer at once: what it says of them is large


def encode_texts(
    text_tokenizer: tokenizer.Tokenizer, texts: Sequence[str]
) -> list[list[int]]:
    """Return the ids of each text, as `Tokenizer.encode` gives them."""
    return [
        text_tokenizer.with_bos(encoding.ids)
        for start in range(0, len(texts), PART)
        for encoding in text_tokenizer.encode_batch(texts[start : start + PART])
    ]


def encode_prompts(
    text_tokenizer: tokenizer.Tokenizer,
    task: tasks.Task,
    prompts: Sequence[records.Prompt],
) -> tuple[list[str], list[list[int]]]:
    """Return the texts of prompts without affix, up to the reply, and their ids."""
    texts = [
        dialogue_format.plain_prompt(prompt, task, text_tokenizer.chat)
        for prompt in prompts
    ]
    return texts, encode_texts(text_tokenizer, texts)


def join_reply(
    text_tokenizer: tokenizer.Tokenizer, prompt: str, reply: str
) -> tuple[list[int], list[bool]]:
    """Return the ids of prompt and reply, and which of them are the reply's.

    See `join_replies`.
    """
    return join_replies(text_tokenizer, [(prompt, reply)])[0]


def join_replies(
    text_tokenizer: tokenizer.Tokenizer,
    texts: Sequence[tuple[str, str]],
    border: str = BY_TEXT,
) -> list[tuple[list[int], list[bool]]]:
    """Return for each prompt with its reply their ids, and which are the reply's.

    The two are encoded together, and the border is found among the characters of the
    text, by the spans that the fast tokenizer reports: bytes of tokens are no measure
    of a text that is normalised, gains a space or has its special tokens written out.
    A token that holds characters of both texts is the prompt's, since no reply begins
    inside a token of its prompt; blanks that a special token swallows are not its own.
    Once the reply has begun, every token is the reply's.

    As released, the prompt with the blanks before the reply is encoded alone and
    counted instead. Such a blank is a token of its own there, and joined to the first
    word it is none: the reply's first token is then taken for the prompt's.

    Args:
      text_tokenizer: of the model.
      texts: (prompt, reply) pairs, the reply from its leading space to its end mark.
      border: "text", or "tokens": as released.

    Returns:
      For each the ids of the whole text, and a bool an id: True from the first token
      of the reply on.
    """
    joined = []
    for start in range(0, len(texts), PART):
        part = texts[start : start + PART]
        encodings = text_tokenizer.encode_batch([a + b for a, b in part])
        for (prompt, reply), encoding in zip(part, encodings, strict=True):
            ids = text_tokenizer.with_bos(encoding.ids)
            if border == BY_TOKENS:
                blanks = reply[: len(reply) - len(reply.lstrip())]
                first = len(text_tokenizer.encode(prompt + blanks, bos=False))
            else:
                first = _first_of_reply(text_tokenizer, encoding, prompt, reply)
            first += len(ids) - len(encoding.ids)
            joined.append((ids, [place >= first for place in range(len(ids))]))
    return joined


def _first_of_reply(
    text_tokenizer: tokenizer.Tokenizer,
    encoding: tokenizers.Encoding,
    prompt: str,
    reply: str,
) -> int:
    """Return the place of the first token that is the reply's alone."""
    border, text = len(prompt), prompt + reply
    # A character that the normaliser took away has no token.
    places = map(encoding.char_to_token, range(border, len(text)))
    first = next((place for place in places if place is not None), len(encoding.ids))
    while first < len(encoding.ids):
        start, end = encoding.token_to_chars(first)
        written = text[start:end]
        piece = text_tokenizer.token_bytes(encoding.ids[first])
        if piece.decode("utf-8", "replace") == written.strip():
            start += len(written) - len(written.lstrip())
        if start >= border:
            break
        first += 1
    return first
