"""The engine's greedy replies of the real model against torch's.

The numbers are those of tests/golden/make_golden.py.
"""

import dataclasses
import os
import pathlib

import numpy as np

from rlcd_jax.decode import engine
from rlcd_jax.weights import embedded, resolve

GOLDEN = pathlib.Path(__file__).parent / "golden" / "smollm2.npz"


def test_generate_greedy_equals_torch_on_smollm2():
    cache = embedded.default_cache_dir(os.environ)
    model = resolve.resolve_model("smollm2-135m", cache)
    golden = np.load(GOLDEN)
    made = engine.Engine(
        dataclasses.replace(model.cfg, dtype="float32"),
        model.load_tokenizer(),
        num_slots=3,  # one of the four waits for a slot
        max_length=64,
        prompt_buckets=(16,),
        live_buckets=(),
    )
    made.load(model.load_params())
    requests = [
        engine.Request(
            id=str(index),
            tokens=tuple(golden[f"prompt_ids_{index}"].tolist()),
            seed=(0, index),
            max_new_tokens=len(golden[f"greedy_{index}"]),
            temperature=0.0,
        )
        for index in range(4)
    ]
    for index, reply in enumerate(made.generate(requests)):
        wanted = golden[f"greedy_{index}"].tolist()
        assert list(reply.tokens) == wanted[: len(reply.tokens)]
        assert reply.finish == "eos" or len(reply.tokens) == len(wanted)
