"""Heads that are copied and filled up change no value, and are as few as can be."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
from hypothesis import strategies as st

from rlcd_jax.models import head_layout, llama, presets

TINY = dataclasses.replace(
    presets.get_preset("tiny"), dtype="float32", num_layers=1, head_dim=8
)
# float32 sums in another order; a head in the wrong place moves both by 0.1.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize(
    ("heads_of", "ways", "copies", "computed"),
    [
        ((32, 32), 8, 1, (32, 1)),
        ((52, 52), 8, 1, (56, 1)),  # LLaMA-30B
        ((32, 4), 8, 2, (8, 4)),  # TinyLlama
        ((32, 8), 16, 2, (16, 2)),  # LLaMA-3-8B
        ((9, 3), 2, 1, (4, 3)),  # SmolLM2-135M
        ((9, 3), 3, 1, (3, 3)),
        ((9, 3), 4, 1, (4, 3)),
        ((9, 3), 8, 2, (8, 2)),
    ],
)
def test_layouts_of_known_models_by_hand(heads_of, ways, copies, computed):
    found = head_layout.find(*heads_of, ways)
    assert (found.copies, (found.kv_heads, found.group)) == (copies, computed)
    divides = heads_of[1] % ways == 0
    assert found.is_own == divides and bool(found.describe()) != divides


@hypothesis.given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 16))
def test_layout_holds_every_head_and_divides(kv_heads, group, ways):
    found = head_layout.find(kv_heads * group, kv_heads, ways)
    assert found.kv_heads % ways == 0
    assert found.copies * found.group >= group
    assert found.kv_heads >= found.copies * kv_heads
    plain = -(-kv_heads // ways) * ways * (group + 1)
    assert found.kv_heads * (found.group + 1) <= plain


@pytest.mark.parametrize(
    ("num_heads", "kv_heads", "ways"), [(9, 3, 4), (9, 3, 8), (5, 5, 2), (6, 1, 4)]
)
def test_layout_changes_no_value(num_heads, kv_heads, ways):
    """Whole texts with their gradients, and a cache that is filled in two goes."""
    cfg = dataclasses.replace(TINY, num_heads=num_heads, num_kv_heads=kv_heads)
    spread = dataclasses.replace(cfg, tensor_ways=ways)
    assert not spread.layout.is_own
    params = jax.tree.map(lambda x: 4 * x, llama.init_params(cfg, jax.random.key(0)))
    tokens = np.random.default_rng(0).integers(0, 264, (2, 6)).astype(np.int32)
    mask = np.arange(6) >= np.array([[0], [2]])

    def loss(params, cfg):
        return padded.text_logprobs(params, cfg, tokens, mask, chunk_tokens=64).sum()

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
        run(params, spread),
        run(params, cfg),
    )
    states = jax.jit(llama.hidden_states, static_argnums=1)
    every = np.ones((2, 6), bool)
    whole, _ = states(params, cfg, tokens, jnp.arange(6)[None].repeat(2, 0), every)
    decode, cache = llama.decode_form(params, spread), llama.init_cache(spread, 2, 8)
    parts = []
    for start, stop in ((0, 4), (4, 6)):
        where = jnp.arange(start, stop)[None].repeat(2, 0)
        now = (slice(None), slice(start, stop))
        hidden, cache = states(
            decode, spread, tokens[now], where, every[now], cache=cache
        )
        parts.append(hidden)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, **CLOSE)
