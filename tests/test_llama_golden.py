"""Our LLaMA against torch: tests/golden/make_golden.py made the numbers."""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.models import llama
from rlcd_jax.weights import embedded, hf, resolve

GOLDEN = pathlib.Path(__file__).parent / "golden"
VARIANTS = ("llama1", "tinyllama", "llama3", "tied", "wide_heads_sharded_bf16")


def logits_of(params, cfg, ids):
    """Return float32 logits [T, V] of one row of ids."""
    cfg = dataclasses.replace(cfg, dtype="float32", remat="none")
    tokens = jnp.asarray(ids, jnp.int32)[None]
    positions = jnp.arange(tokens.shape[1])[None]

    def forward(params, tokens):
        mask = jnp.ones(tokens.shape, bool)
        hidden, _ = llama.hidden_states(params, cfg, tokens, positions, mask)
        return llama.logits(params, cfg, hidden)[0]

    return np.asarray(jax.jit(forward)(params, tokens))


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_match_torch_on_tiny_models(variant):
    cfg = hf.read_config(GOLDEN / variant)
    params = hf.load_params(GOLDEN / variant, cfg)
    golden = np.load(GOLDEN / variant / "golden.npz")
    found = logits_of(params, cfg, golden["ids"])
    # Both are float32 and logits reach ±5: 1e-4 is some hundred roundings.
    np.testing.assert_allclose(found, golden["logits"], atol=1e-4, rtol=0)


def test_hidden_states_notice_the_rope_scaling():
    cfg = hf.read_config(GOLDEN / "llama3")
    params = hf.load_params(GOLDEN / "llama3", cfg)
    golden = np.load(GOLDEN / "llama3" / "golden.npz")
    plain = dataclasses.replace(cfg, rope_scaling=None)
    assert np.abs(logits_of(params, plain, golden["ids"]) - golden["logits"]).max() > 1


@pytest.fixture(scope="module")
def smollm2():
    model = resolve.resolve_model(
        "smollm2-135m", embedded.default_cache_dir(os.environ)
    )
    return model.cfg, model.load_params(), model.load_tokenizer()


@pytest.mark.parametrize("text", [0, 1])
def test_smollm2_logits_match_torch_at_every_position(smollm2, text):
    cfg, params, tokenizer = smollm2
    golden = np.load(GOLDEN / "smollm2.npz")
    ids = tokenizer.encode(str(golden[f"text_{text}"]))
    assert ids == golden[f"ids_{text}"].tolist()
    found = logits_of(params, cfg, ids)
    columns = golden["columns"]
    wanted = golden[f"logits_{text}"]
    np.testing.assert_allclose(found[:, columns], wanted, atol=1e-3, rtol=0)
    logsumexp = np.log(np.exp(found - found.max(-1, keepdims=True)).sum(-1))
    logsumexp += found.max(-1)
    np.testing.assert_allclose(
        logsumexp, golden[f"logsumexp_{text}"], atol=1e-3, rtol=0
    )
    assert found.argmax(-1).tolist() == golden[f"argmax_{text}"].tolist()


def test_smollm2_greedy_matches_torch_given_its_own_past(smollm2):
    """Each greedy token of torch is our most likely one after the same tokens."""
    cfg, params, tokenizer = smollm2
    golden = np.load(GOLDEN / "smollm2.npz")
    prompt = golden["prompt_ids_2"].tolist()
    assert tokenizer.encode(str(golden["prompt_2"])) == prompt
    greedy = golden["greedy_2"].tolist()
    found = logits_of(params, cfg, prompt + greedy[:-1])
    assert found.argmax(-1)[len(prompt) - 1 :].tolist() == greedy
