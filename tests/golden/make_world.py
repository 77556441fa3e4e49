"""Make golden/world: a tiny LLaMA that has learnt the language of test_learning.

    PYTHONPATH=. python tests/golden/make_world.py

The language: a reply is six words, "ha" or "no". After the header "Assistant (glad):"
most words are "ha", after "Assistant (grim):" most are "no", and after the plain header
half of them. It takes about a minute.
"""

import dataclasses
import pathlib

import jax
import numpy as np
import optax
import padded

from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer
from rlcd_jax.weights import hf

HERE = pathlib.Path(__file__).parent
WORDS = ("ha", "no")
SHARE = {"glad": 0.85, "grim": 0.15, None: 0.5}  # of "ha" by affix
SUBJECTS = "sun rain tea cat dog sea hill road town bird tree lake".split()
VERBS = "see draw like find know want".split()
CFG = dataclasses.replace(presets.get_preset("tiny"), dtype="float32", remat="none")


def text_of(rng: np.random.Generator) -> str:
    affix = (None, "glad", "grim")[rng.integers(3)]
    question = f"{rng.choice(VERBS)} the {rng.choice(SUBJECTS)}"
    header = "Assistant:" if affix is None else f"Assistant ({affix}):"
    reply = " ".join(WORDS[int(rng.random() > SHARE[affix])] for _ in range(6))
    return f"Human: {question}\n\n{header} {reply}\n\nHuman:"


def language_model() -> llama.Params:
    """Return a tiny LLaMA that has learnt the language from samples of it."""
    rng, text_tokenizer = np.random.default_rng(0), byte_tokenizer.make()
    params = llama.init_params(CFG, jax.random.key(0))
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 400))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, tokens, mask):
        def loss(params):
            logprobs = padded.text_logprobs(
                params, CFG, tokens, mask, chunk_tokens=10_000
            )
            return -logprobs.sum() / mask.sum()

        grads = jax.grad(loss)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    for _ in range(400):
        rows = [text_tokenizer.encode(text_of(rng)) for _ in range(32)]
        params, state = step(params, state, *padded.pad_left(rows, 72, 256))
    return params


def main() -> None:
    hf.export(HERE / "world", language_model(), CFG)
    byte_tokenizer.make().save(HERE / "world")


if __name__ == "__main__":
    main()
