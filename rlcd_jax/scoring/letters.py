"""Logits of the letters A and B after scoring prompts: how the model labels pairs.

Texts lie side by side in rows. Where they begin alike, as few-shot prompts do, their
common beginning is read once: its keys and values stand before every row.

A letter is read as the tokenizer writes it behind the text. Where that is one token for
both letters, and it is with the tokenizers of most models, the logits of the two after
the text are all that is needed. A SentencePiece vocabulary may hold " (A" as one piece
and " (B" as two: then the tokens in which the two texts with their letters differ are
read whole, and their log-probabilities take the place of the logits.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import sharding
from rlcd_jax.decode import layout, programs
from rlcd_jax.job import lengths, setup
from rlcd_jax.models import cached, heads, llama, products
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.scoring import likelihoods, packed_texts, reading
from rlcd_jax.text import encoding, tokenizer

Params = Any
Ids = Sequence[int]
# (tokens, segments [N, W] int32, letters [2]) -> logits after each token [N, W, 2]
Run = Callable[[jax.Array, jax.Array, np.ndarray], jax.Array]

LETTERS = ("A", "B")
SHARED = 64  # tokens; fewer in common are not worth programs of their own


def letter_scorer(
    job: setup.Job, params: Params, letters: str = scoring_prompt.LETTERS[0]
) -> Callable[[Sequence[str]], list[tuple[float, float]]]:
    """Return a function from scoring texts to the logits of the letters A and B.

    Args:
      job: of the run.
      params: of the model that is asked.
      letters: "continuation": the ids of the letters are those of the tokenised
        continuation of the texts; "bare": the last id of each letter as a text of its
        own, as released, which is another token where a word begins with a blank that
        the tokenizer adds.

    Source: the released simulation script for "bare".
    """
    params = reading.frozen(job, params)
    whole = functools.partial(letters_program(job), params)
    behind = functools.cache(lambda: _behind(job, params))

    def score(texts: Sequence[str]) -> list[tuple[float, float]]:
        if not texts:
            return []
        ids = letter_ids(job.text_tokenizer, texts[0], letters)
        if ids is None:
            return _by_endings(job, params, texts)
        asked = np.array(ids, np.int32)
        rows = encoding.encode_texts(job.text_tokenizer, texts)
        lengths.refuse_over(
            job, max(map(len, rows)), "a scoring prompt", "ask about shorter replies"
        )
        shared = num_shared(rows)
        if shared < SHARED:
            shared = 0
        with jax.set_mesh(job.mesh):
            run = behind()(rows[0][:shared]) if shared else whole
            pairs = packed_texts.read_ends(
                job,
                lambda tokens, segments: run(tokens, segments, asked),
                [row[shared:] for row in rows],
                what="answer letters",
            )
        return [(float(a), float(b)) for a, b in pairs]

    return score


def num_shared(rows: Sequence[Ids]) -> int:
    """Return how many tokens all rows begin with; each keeps one of its own."""
    first, last = min(rows), max(rows)  # in the order of a dictionary
    common = len(os.path.commonprefix([list(first), list(last)]))
    return min(common, min(map(len, rows)) - 1)


def letter_ids(
    text_tokenizer: tokenizer.Tokenizer, text: str, letters: str
) -> list[int] | None:
    """Return the ids at which the letters are read behind a text.

    Args:
      text_tokenizer: of the model.
      text: a question.
      letters: as of `letter_scorer`.

    Returns:
      One id of each letter; None where one of them is not one token there, or shares
      one with the end of the text.
    """
    if letters == "bare":
        return [text_tokenizer.encode(letter)[-1] for letter in LETTERS]
    try:
        ids = [text_tokenizer.continuation_ids(text, letter) for letter in LETTERS]
    except ValueError:  # a token is shared
        return None
    return [one[0] for one in ids] if all(len(one) == 1 for one in ids) else None


def ending_ids(
    text_tokenizer: tokenizer.Tokenizer, text: str
) -> tuple[list[list[int]], list[int]]:
    """Return a text with each of the letters as ids, and how many of these differ.

    The differing ids are the last of each; they begin at one place in both.
    """
    rows = [text_tokenizer.encode(text + letter) for letter in LETTERS]
    same = len(os.path.commonprefix(rows))
    return rows, [len(row) - same for row in rows]


def _by_endings(
    job: setup.Job, params: Params, texts: Sequence[str]
) -> list[tuple[float, float]]:
    """Return the log-probabilities of the letters' tokens, whatever they begin with."""
    read = [ending_ids(job.text_tokenizer, text) for text in texts]
    rows = [row for own, _ in read for row in own]
    counts = [count for _, own in read for count in own]
    lengths.refuse_over(
        job, max(map(len, rows)), "a scoring prompt", "ask about shorter replies"
    )
    found = likelihoods.ids_scorer(job)(params, rows, counts).reshape(-1, len(LETTERS))
    return [(float(a), float(b)) for a, b in found]


def letters_program(job: setup.Job) -> Callable[..., jax.Array]:
    """Return the compiled (params, tokens, segments, letters [2]) -> [N, W, 2].

    Tokens and segments are [N, W], as `row_arrays.fill` gives them; the logits of
    the letters are after each token.
    """
    return _program(job.cfg, job.mesh)


@functools.lru_cache(maxsize=reading.KEPT)
def _program(cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh) -> Callable:
    def program(params, tokens, segments, letters):
        hidden, _ = llama.hidden_states(
            params, cfg, tokens, heads.positions_of(segments), segments
        )
        return _logits(params, cfg, hidden, letters)

    return jax.jit(
        program,
        in_shardings=(None, *reading.batch_of(mesh, 2), None),
        out_shardings=sharding.replicated(mesh),
    )


def _logits(params: Params, cfg: llama.LlamaConfig, hidden, letters) -> jax.Array:
    """Return the logits of the letters [N, W, 2] of states [N, W, D]: no others."""
    own = llama.output_table(params, cfg)[letters]
    return products.product(hidden, own, cfg.dtype)


def _behind(job: setup.Job, params: Params) -> Callable[[Ids], Run]:
    """Return a maker of programs that read texts behind a beginning, given without."""
    form, read, run = _behind_programs(job.cfg, job.mesh, job.config.engine.weights)
    weights = form(params)

    def make(beginning: Ids) -> Run:
        ways = sharding.batch_ways(job.mesh)
        past = read(weights, np.tile(np.asarray(beginning, np.int32), (ways, 1)))
        return functools.partial(run, weights, past)

    return make


@functools.lru_cache(maxsize=reading.KEPT)
def _behind_programs(
    cfg: llama.LlamaConfig, mesh: jax.sharding.Mesh, weights: str
) -> tuple[Callable, Callable, Callable]:
    """Return the compiled making of decode weights, reading of a beginning, and rest.

    Weights lie as the engine of the same config holds them: what does not fit it, fits
    nobody.
    """
    cfg = dataclasses.replace(cfg, attention="xla")  # a draft is of this kernel
    where = mesh if mesh.size > 1 else None
    cfg = layout.placed(cfg, where, weights)
    places = layout.shardings(cfg, where, weights)
    form = functools.partial(llama.decode_form, cfg=cfg)

    def read(weights, tokens):
        rows, length = tokens.shape
        entries = programs.prefill(
            weights,
            cfg=cfg,
            part=None,
            tokens=tokens,
            offset=jnp.zeros(rows, jnp.int32),
            length=jnp.full(rows, length, jnp.int32),
        )
        return jax.tree.map(lambda entry: entry[:1], entries)

    whole = sharding.replicated(mesh)
    return (
        jax.jit(form, out_shardings=places.params),
        jax.jit(read, out_shardings=whole),
        jax.jit(
            functools.partial(_read_on, cfg),
            in_shardings=(None, None, *reading.batch_of(mesh, 2), None),
            out_shardings=whole,
        ),
    )


def _read_on(cfg, weights, past, tokens, segments, letters) -> jax.Array:
    """Return logits [N, W, 2] of rows of texts that are behind a cache of one row."""
    rows, width = tokens.shape
    shared = cached.entries(past, cfg.attention)
    past = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape[1:])), past)
    window = llama.init_cache(cfg, rows, width)
    hidden, _ = llama.hidden_states(
        weights,
        cfg,
        tokens,
        shared + heads.positions_of(segments),
        segments > 0,
        cache=cached.draft(past, window, jnp.full(rows, shared, jnp.int32), segments),
    )
    return _logits(weights, cfg, hidden, letters)
