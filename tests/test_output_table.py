"""Logits in chunks on many devices: what is sent does not grow with the chunks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax import sharding
from rlcd_jax.models import heads, llama, presets, table
from rlcd_jax.planning import collectives

CFG = dataclasses.replace(
    presets.get_preset("tiny"), remat="none", tie_embeddings=False
)
SHAPE = (8, 12)  # texts, tokens


def program(cfg, chunk_tokens, temperature=0.7):
    """Return the gradient of the sum of log-probabilities by weights and states."""

    def total(params, hidden, targets):
        logprobs, _ = heads.token_logprobs(
            params,
            cfg,
            hidden,
            targets,
            chunk_tokens=chunk_tokens,
            temperature=temperature,
        )
        return jnp.sum(logprobs)

    return jax.value_and_grad(total, argnums=(0, 1))


def inputs(cfg):
    specs = llama.param_specs(cfg)
    name = "embed" if cfg.tie_embeddings else "unembed"
    params = table.init_from_specs({name: specs[name]}, jax.random.key(0))
    hidden = jax.random.normal(jax.random.key(1), (*SHAPE, cfg.embed_dim))
    targets = np.random.default_rng(0).integers(0, cfg.vocab_size, SHAPE)
    return params, hidden, targets.astype(np.int32)


def on_mesh(cfg, mesh, chunk_tokens):
    """Return the program of `inputs` compiled for a mesh, and these where it is."""
    params, *texts = inputs(cfg)
    specs = {name: llama.param_specs(cfg)[name] for name in params}
    places = (
        sharding.param_shardings(specs, mesh),
        *[sharding.batch_sharding(mesh)] * 2,
    )
    jitted = jax.jit(
        program(cfg, chunk_tokens),
        in_shardings=places,
        out_shardings=(sharding.replicated(mesh), places[:2]),
    )
    with jax.set_mesh(mesh):
        placed = jax.device_put((params, *texts), places)
        return jitted.lower(*placed).compile(), placed


@pytest.mark.parametrize(
    ("dtype", "close", "tied", "shapes"),
    [
        ("float32", 2e-6, False, [(1, 8, 1), (2, 2, 2), (8, 1, 1)]),
        ("bfloat16", 2e-2, True, [(2, 2, 2)]),
    ],
    ids=["float32", "bfloat16-tied"],
)
def test_values_and_gradients_are_those_of_one_device(dtype, close, tied, shapes):
    cfg = dataclasses.replace(CFG, dtype=dtype, tie_embeddings=tied)
    want = jax.tree.leaves(jax.jit(program(cfg, 1000))(*inputs(cfg)))
    for shape in shapes:
        compiled, placed = on_mesh(cfg, sharding.make_mesh(*shape), 32)
        found = jax.tree.leaves(compiled(*placed))
        for one, other in zip(found, want, strict=True):
            scale = np.abs(np.asarray(other)).max()
            np.testing.assert_allclose(one, other, rtol=0, atol=close * scale)


def test_gradients_are_summed_in_float32_over_chunks():
    """Many chunks round no more than one: the copies' dtype is not the gradient's."""
    cfg = dataclasses.replace(CFG, dtype="bfloat16")
    (_, (whole, _)), (_, (parts, _)) = (
        jax.jit(program(cfg, tokens))(*inputs(cfg)) for tokens in (1000, 8)
    )
    assert parts["unembed"].dtype == jnp.float32
    scale = np.abs(np.asarray(whole["unembed"])).max()
    np.testing.assert_allclose(
        parts["unembed"], whole["unembed"], rtol=0, atol=1e-6 * scale
    )


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
def test_what_is_sent_does_not_grow_with_the_chunks(shape):
    mesh = sharding.make_mesh(*shape)
    sent = []
    for chunk_tokens in (96, 8):  # 1 chunk and 12
        compiled, _ = on_mesh(CFG, mesh, chunk_tokens)
        sent.append(collectives.count(compiled.as_text(), mesh.size))
    size = 4 * CFG.vocab_size * CFG.embed_dim
    whole, parts = (sum(sent for _, sent in one.values()) for one in sent)
    assert whole > size / 4  # the table is seen
    # Sums over parts of the vocabulary, a few numbers a token, stay in the loop.
    assert parts < whole + 0.05 * size, sent


def test_texts_that_do_not_divide_share_one_copy():
    mesh = sharding.make_mesh(1, 8, 1)
    params, hidden, targets = inputs(CFG)
    want, _ = jax.jit(program(CFG, 32))(params, hidden[:3], targets[:3])
    with jax.set_mesh(mesh):
        found, _ = jax.jit(program(CFG, 32))(params, hidden[:3], targets[:3])
    np.testing.assert_allclose(found, want, rtol=1e-5)
