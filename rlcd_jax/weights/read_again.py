"""What was written, read again as anybody's files are, and compared with its source.

Compared are the config, every weight, the ids of texts, and what the model then does:
its logits along a text and its most likely continuation, or its scores.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcd_jax.models import heads, llama
from rlcd_jax.text import tokenizer
from rlcd_jax.weights import gguf_writing, hf, model_card, peft, resolve, scalar

# What tokenizers treat in ways of their own: headers, blanks, digits, other scripts.
TEXTS = (
    "Human: How are you?\n\nAssistant: Fine — thanks!  12345 \t(naïve) 日本",
    "\n\nHuman: we've 3,000 of them\r\n\n\nAssistant:   ok\n",
    " a  b\u00a0c \U0001f642e\u0301 __x__ ... 'LL it'S I'm",
)
GREEDY_TOKENS = 8  # of the most likely continuation of the first text
TEXT_TOKENS = 48  # of it that are read
# What a config says about how a run computes, which no file of weights holds.
OF_THE_RUN = (
    "dtype",
    "remat",
    "unroll",
    "attention",
    "attention_block",
    "reach",
    "cut_as_bits",
    "tensor_ways",
    "split_decode",
)
BAD = "do not use it"


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights to write: whose numbers they are, and how it spells.

    Attributes:
      params: float32, training form; of a scalar model, its trunk and head.
      cfg: of the model.
      text_tokenizer: of the model.
      role: "policy" (any language model), "preference" or "value".
      origin: where they are from, in words.
      about: what the model card says of it.
      adapters: of which they were merged, with their base; None: trained whole.
    """

    params: Any
    cfg: llama.LlamaConfig
    text_tokenizer: tokenizer.Tokenizer
    role: str
    origin: str
    about: model_card.About = model_card.UNKNOWN
    adapters: peft.Trained | None = None


def check_folder(folder: pathlib.Path, source: Source, dtype: str) -> list[str]:
    """Read a written Hugging Face folder again and compare it with its source.

    Returns:
      Lines that say what was compared.

    Raises:
      ValueError: the config, a weight, the tokenizer or the output is not the source's
        in `dtype`; it is named.
    """
    cfg = hf.read_config(folder, source.role)
    _compare_configs(cfg, source, folder)
    if source.role == scalar.POLICY:
        found = hf.load_params(folder, cfg)
    else:
        found = hf.load_scalar_params(folder, cfg, source.role)
    count = _compare_weights(found, source, lambda shape: dtype, folder)
    again = tokenizer.load_tokenizer(folder)
    _compare_tokenizers(again, source.text_tokenizer, source, folder)
    if differing := _special_texts(again, source.text_tokenizer):
        raise ValueError(
            f"{folder}: the tokenizer, read again, spells {differing[0]!r} otherwise; "
            f"{BAD}"
        )
    lines = [f"checked: {count} weights and the tokenizer, read again, are the same"]
    return lines + _compare_outputs(found, source, dtype, folder)


def check_gguf(path: pathlib.Path, source: Source, dtype: str) -> list[str]:
    """Read a written GGUF file again and compare it with its source.

    See `check_folder`.
    """
    model = resolve.resolve_model(f"gguf:{path}", path.parent)
    _compare_configs(model.cfg, source, path)
    found = model.load_params()
    count = _compare_weights(
        found, source, lambda shape: gguf_writing.dtype_of(shape, dtype), path
    )
    again = model.load_tokenizer()
    _compare_tokenizers(again, source.text_tokenizer, source, path)
    lines = [f"checked: {count} weights and the tokenizer, read again, are the same"]
    if differing := _special_texts(again, source.text_tokenizer):
        lines.append(
            "texts with a special token written out are split otherwise after it than "
            f"in the source's folder, as in {differing[0]!r}: llama.cpp has one rule "
            "for all"
        )
    return lines + _compare_outputs(found, source, dtype, path)


def _compare_configs(
    cfg: llama.LlamaConfig, source: Source, where: pathlib.Path
) -> None:
    own = {name: getattr(cfg, name) for name in OF_THE_RUN}
    if cfg != dataclasses.replace(source.cfg, **own):
        raise ValueError(
            f"the config of {where}, read again, is {cfg}, and the source's is "
            f"{source.cfg}; {BAD}"
        )


def _compare_weights(
    found: Any,
    source: Source,
    dtype_of: Callable[[tuple[int, ...]], str],
    where: pathlib.Path,
) -> int:
    """Return how many numbers are the same, all of them; one tensor at a time."""
    count = 0
    again = hf.disassemble(found, source.cfg, source.role)
    first = hf.disassemble(source.params, source.cfg, source.role)
    for (name, held), (_, values) in zip(again, first, strict=True):
        dtype = hf.DTYPES[dtype_of(values.shape)]
        wanted = hf.rounded_to(values, dtype, name).astype(np.float32)
        differing = int(np.count_nonzero(held != wanted))
        if differing:
            raise ValueError(
                f"{where}: {name}, read again, differs from the source in "
                f"{differing} of {held.size} values; {BAD}"
            )
        count += held.size
    if source.role != scalar.POLICY:  # its bias is no tensor of transformers'
        bias, wanted = found["head"]["bias"], source.params["head"]["bias"]
        if bias != wanted:
            raise ValueError(
                f"{where}: {scalar.BIAS_FIELD}, read again, is {bias}, and the source "
                f"has {wanted}; {BAD}"
            )
    return count


def _compare_tokenizers(
    found: tokenizer.Tokenizer,
    wanted: tokenizer.Tokenizer,
    source: Source,
    where: pathlib.Path,
) -> None:
    def about(one: tokenizer.Tokenizer) -> dict[str, Any]:
        ids = [one.encode(text) for text in TEXTS]
        # A file may name rows that no token has: they are padding of the table.
        count = wanted.vocab_size
        is_whole = one.vocab_size in (count, source.cfg.vocab_size)
        return {
            "ids of texts": ids,
            "texts of ids": [one.decode(row) for row in ids],
            "bos_id": one.bos_id,
            "eos_id": one.eos_id,
            "eos_ids": sorted(one.eos_ids),
            "chat template": one.chat_template,
            "special ids": sorted(one.special_ids),
            "number of ids": count if is_whole else one.vocab_size,
        }

    held, own = about(found), about(wanted)
    for what, value in own.items():
        if held[what] != value:
            raise ValueError(
                f"{where}: the tokenizer, read again, has other {what}: {held[what]}, "
                f"and the source {value}; {BAD}"
            )


def _special_texts(
    found: tokenizer.Tokenizer, wanted: tokenizer.Tokenizer
) -> list[str]:
    """Return the texts with special tokens that two tokenizers spell differently."""
    marks = [wanted.decode([i], keep_special=True) for i in wanted.eos_ids]
    texts = [f"a {mark} b{mark}c{mark}\n" for mark in marks]
    return [text for text in texts if found.encode(text) != wanted.encode(text)]


def _compare_outputs(
    found: Any, source: Source, dtype: str, where: pathlib.Path
) -> list[str]:
    """Return what rounding has changed of logits and text, or of scores."""
    ids = source.text_tokenizer.encode(TEXTS[0])[:TEXT_TOKENS]
    is_policy = source.role == scalar.POLICY
    if is_policy:
        ids = greedy(source.params, source.cfg, ids, GREEDY_TOKENS)
    first, again = (outputs(one, source, ids) for one in (source.params, found))
    gap = float(np.abs(first - again).max())
    if dtype == "float32":
        if gap:
            raise ValueError(
                f"{where}: the weights are the same, and what they give differs by "
                f"{gap:.2g}; {BAD}"
            )
        what = f"the next {GREEDY_TOKENS} tokens" if is_policy else "scores"
        logits = f"logits at {len(ids)} places and " * is_policy
        return [f"checked: {logits}{what} of a text are the same"]
    what = "a logit" if is_policy else "a score"
    lines = [f"rounding the weights to {dtype} moved {what} by {gap:.2g} at most"]
    if is_policy:
        last = slice(-GREEDY_TOKENS - 1, -1)
        same = first[last].argmax(-1) == again[last].argmax(-1)
        lines.append(
            f"of the {GREEDY_TOKENS} most likely next tokens of a text {same.sum()} "
            "are the same"
        )
    return lines


def greedy(
    params: Any, cfg: llama.LlamaConfig, ids: list[int], count: int
) -> list[int]:
    """Return ids and their most likely continuation by `count` tokens."""
    ids, width = list(ids), len(ids) + count
    for _ in range(count):
        row = _forward(params, cfg, ids, width)
        ids.append(int(row[len(ids) - 1].argmax()))
    return ids


def outputs(params: Any, source: Source, ids: list[int]) -> np.ndarray:
    """Return what a model says of a text, float32.

    Returns:
      Logits [T, V], or the scalars [T] of a scalar model.
    """
    if source.role == scalar.POLICY:
        return _forward(params, source.cfg, ids, len(ids))
    row = _row(ids, len(ids))
    return np.asarray(_program(source.cfg, scalars=True)(params, *row)[0])


def _forward(
    params: Any, cfg: llama.LlamaConfig, ids: list[int], width: int
) -> np.ndarray:
    return np.asarray(_program(cfg)(params, *_row(ids, width))[0])


@functools.lru_cache(maxsize=8)
def _program(cfg: llama.LlamaConfig, scalars: bool = False) -> Callable:
    """Return (params, tokens, mask) -> logits [B, T, V], or scalars [B, T], float32."""
    cfg = dataclasses.replace(cfg, dtype="float32", attention="xla")

    def logits(params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        positions = heads.positions_of(mask)
        hidden, _ = llama.hidden_states(params, cfg, tokens, positions, mask)
        return llama.logits(params, cfg, hidden)

    def values(params: Any, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        return heads.scalar_per_token(params, cfg, tokens, mask)

    return jax.jit(values if scalars else logits)


def _row(ids: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a text as tokens and mask [1, width]."""
    tokens = np.zeros((1, width), np.int32)
    tokens[0, : len(ids)] = ids
    return tokens, np.arange(width)[None] < len(ids)
