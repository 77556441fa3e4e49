"""A tiny model, a tokenizer of odd pieces and a slow oracle, for the engine's tests."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax.decode import engine, sampling
from rlcd_jax.models import llama, presets

PIECES = (
    ["<pad>", "<eos>", "\n", "\n\n", "\nHu", "man", "Hum", "an:", ":", "Human"]
    + ["a", "b", "ab", "ba", "abc", " ", " a", "cab", "e", "ee", " the", "the"]
    + ["q", "x", "y", "z", "xy", "yz", "zx", "!", "?", "."]
)
EOS = 1
CFG = dataclasses.replace(
    presets.get_preset("tiny"), vocab_size=len(PIECES), dtype="float32", embed_dim=32
)
LENGTH = 64


class Tokenizer:
    """Pieces of one to five bytes; what the engine asks of a tokenizer."""

    vocab_size = len(PIECES)
    eos_ids = (EOS,)
    special_ids = frozenset({0, EOS})

    def token_bytes(self, token_id):
        return PIECES[token_id].encode()

    def decode(self, ids):
        return "".join(PIECES[i] for i in ids if i not in self.special_ids)


@functools.cache
def params(seed=0):
    """Weights with logits of a few nats, so that samples vary but are not noise."""
    tree = llama.init_params(CFG, jax.random.key(seed))
    return jax.tree.map(lambda leaf: leaf * (6.0 if leaf.ndim > 1 else 1.0), tree)


def make_engine(**changes):
    settings = {
        "num_slots": 3,
        "max_length": LENGTH,
        "steps_per_dispatch": 3,
        "prompt_buckets": (4, 12),
        "live_buckets": (24,),
        "prefill_tokens": 24,
    }
    made = engine.Engine(CFG, Tokenizer(), **(settings | changes))
    made.load(params())
    return made


def prompt(length, seed=0):
    """Token ids with pads and ends of text among them: masks come from lengths."""
    return tuple(np.random.RandomState(seed).randint(0, len(PIECES), length).tolist())


def request(index=0, **changes):
    settings = {
        "id": str(index),
        "tokens": prompt(2 + 3 * (index % 8), index),
        "seed": (index, 77),
        "max_new_tokens": 6 + index % 5,
    }
    return engine.Request(**(settings | changes))


def full_logits(tokens, tree=None):
    """Next-token logits from one forward over the whole text, without a cache."""
    padded = np.zeros(LENGTH, np.int32)
    padded[: len(tokens)] = tokens
    tree = params() if tree is None else tree
    return np.asarray(_next_logits(tree, padded, len(tokens)))


@jax.jit
def _next_logits(tree, tokens, length):
    positions = jnp.arange(LENGTH)[None]
    mask = positions < length
    hidden, _ = llama.hidden_states(tree, CFG, tokens[None], positions, mask)
    return llama.logits(tree, CFG, hidden[0, length - 1])


@functools.partial(jax.jit, static_argnames="truncate")
def _draw(row, seed, step, numbers, truncate):
    return sampling.sample(
        row[None],
        sampling.uniforms(seed[None], step[None]),
        temperature=numbers["temperature"][None],
        top_k=numbers["top_k"][None],
        top_p=numbers["top_p"][None],
        forbidden=None,
        truncate=truncate,
    )


def oracle(one, tree=None):
    """Sample a request token by token with full forwards: (tokens, logprobs)."""
    numbers = {
        "temperature": np.float32(one.temperature),
        "top_k": np.int32(one.top_k),
        "top_p": np.float32(one.top_p),
    }
    tokens, logprobs = [], []
    for step in range(one.max_new_tokens):
        rows = [full_logits((*start, *tokens), tree) for start in one.prompts]
        row = rows[0] + one.alpha * (rows[-1] - rows[0])
        if one.contrast_tokens is None:
            row = rows[0]
        draw = _draw(
            row,
            np.asarray(one.seed, np.uint32),
            np.int32(step),
            numbers,
            one.top_k > 0 or one.top_p < 1,
        )
        tokens.append(int(draw.ids[0]))
        logprobs.append(float(draw.logprobs[0]))
        if tokens[-1] == EOS:
            break
    return tuple(tokens), logprobs
