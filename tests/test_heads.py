"""What is read off the trunk, against dense oracles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest

from rlcd_jax.models import heads, llama, presets
from rlcd_jax.training import packing, row_arrays

CFG = dataclasses.replace(presets.get_preset("tiny"), dtype="float32", remat="none")
CLOSE = {"rtol": 0, "atol": 2e-5}  # float32 log-probabilities of size 5


@pytest.fixture(scope="module")
def params():
    return llama.init_params(CFG, jax.random.key(0))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    mask = np.ones((3, 11), bool)
    mask[0, :4] = mask[2, 8:] = False
    return rng.integers(0, 264, (3, 11)).astype(np.int32), mask


def dense_logprobs(params, tokens, mask) -> np.ndarray:
    """Return the log-probabilities [B, T, V] of every next token, in float64."""
    positions = heads.positions_of(jnp.asarray(mask))
    hidden, _ = llama.hidden_states(params, CFG, tokens, positions, jnp.asarray(mask))
    logits = np.asarray(llama.logits(params, CFG, hidden), np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("chunk_tokens", [1, 6, 9, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_logprobs_in_chunks_equal_the_dense(
    params, texts, chunk_tokens, temperature
):
    hidden = jax.random.normal(jax.random.key(1), (3, 11, CFG.embed_dim))
    logprobs, entropy = heads.token_logprobs(
        params,
        CFG,
        hidden,
        texts[0],
        chunk_tokens=chunk_tokens,
        temperature=temperature,
        with_entropy=True,
    )
    logits = np.asarray(llama.logits(params, CFG, hidden), np.float64) / temperature
    dense = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = np.take_along_axis(dense, texts[0][..., None], -1)[..., 0]
    np.testing.assert_allclose(logprobs, want, **CLOSE)
    np.testing.assert_allclose(entropy, -(np.exp(dense) * dense).sum(-1), **CLOSE)


@pytest.mark.parametrize("with_entropy", [False, True])
def test_token_logprobs_have_the_gradient_of_a_dense_softmax(
    params, texts, with_entropy
):
    hidden = jax.random.normal(jax.random.key(1), (3, 11, CFG.embed_dim))
    weigh = np.random.default_rng(1).standard_normal((3, 11))

    def ours(hidden):
        found, _ = heads.token_logprobs(
            params,
            CFG,
            hidden,
            texts[0],
            chunk_tokens=6,
            temperature=0.7,
            with_entropy=with_entropy,
        )
        return jnp.sum(found * weigh)

    logits = np.asarray(llama.logits(params, CFG, hidden), np.float64) / 0.7
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    change = np.eye(CFG.vocab_size)[texts[0]] - probs  # of a log-probability
    table = np.asarray(llama.output_table(params, CFG), np.float64)
    want = (weigh[..., None] * change / 0.7) @ table
    np.testing.assert_allclose(jax.grad(ours)(hidden), want, rtol=1e-4, atol=1e-5)


def test_token_logprobs_chunks_have_the_same_gradient(params, texts):
    hidden = jax.random.normal(jax.random.key(1), (3, 11, CFG.embed_dim))

    def loss(hidden, chunk_tokens):
        return heads.token_logprobs(
            params,
            CFG,
            hidden,
            texts[0],
            chunk_tokens=chunk_tokens,
            temperature=1.0,
        )[0].sum()

    one, other = (jax.grad(loss)(hidden, size) for size in (4, 1000))
    np.testing.assert_allclose(one, other, **CLOSE)


def test_text_logprobs_are_of_each_token_given_those_before(params, texts):
    tokens, mask = texts
    found = padded.text_logprobs(params, CFG, tokens, jnp.asarray(mask), chunk_tokens=7)
    dense = dense_logprobs(params, tokens, mask)
    for row in range(3):
        inside = np.flatnonzero(mask[row])
        for at in inside[1:]:
            want = dense[row, at - 1, tokens[row, at]]
            assert float(found[row, at]) == pytest.approx(want, abs=2e-5)
        outside = np.setdiff1d(np.arange(11), inside[1:])
        np.testing.assert_array_equal(np.asarray(found)[row, outside], 0.0)


@pytest.fixture(scope="module")
def rows(texts):
    """Return the three texts in two rows, read from their fourth token on."""
    packer = packing.Packer(
        longest=11, parts=1, ways=1, pad_id=0, wanted=8, rows=2, width=20
    )
    examples = [
        [packing.Text(ids[mask].tolist(), wanted=range(3, mask.sum()))]
        for ids, mask in zip(*texts, strict=True)
    ]
    places = packer.place(examples)
    return row_arrays.fill(
        packer, examples, places, dataclasses.replace(places.size, states=13)
    )


def test_policy_divergence_is_zero_at_equality(params, rows):
    away = heads.policy_divergence(params, params, CFG, rows, chunk_tokens=9)
    assert away.shape == (2, 13)
    np.testing.assert_array_equal(away, 0.0)


def test_policy_divergence_equals_a_dense_oracle(params, texts, rows):
    tokens, mask = texts
    policy = llama.init_params(CFG, jax.random.key(5))
    away = heads.policy_divergence(policy, params, CFG, rows, chunk_tokens=9)
    ours, theirs = (dense_logprobs(p, tokens, mask) for p in (policy, params))
    kl = (np.exp(ours) * (ours - theirs)).sum(-1)  # of the state after each token
    away = np.asarray(row_arrays.unpack(away, rows["at"]))
    for row, (own, counted) in enumerate(zip(away, rows["counted"], strict=True)):
        inside = np.flatnonzero(mask[row])
        np.testing.assert_allclose(own[counted], kl[row, inside[2:-1]], rtol=1e-4)
        assert (own[counted] > 0).all()


@pytest.mark.parametrize(("length", "chunk"), [(1, 1), (7, 4), (8, 8), (5, 100)])
def test_chunked_and_back_is_the_identity(length, chunk):
    x = jnp.arange(2 * length).reshape(2, length)
    np.testing.assert_array_equal(heads.unchunked(heads.chunked(x, chunk), length), x)


@pytest.mark.parametrize(
    ("batch", "length", "chunk", "width"),
    [
        (2, 320, 512, 160),  # two, not 256 and 64 that are filled up to 256
        (2, 560, 512, 192),  # three of 187, in steps of 8
        (2, 300, 2048, 300),
        (16, 100, 32, 2),
        (16, 100, 8, 1),
        (1, 1000, 341, 336),
    ],
)
def test_chunks_are_even(batch, length, chunk, width):
    assert heads.chunk_width(batch, length, chunk) == width
    shape = heads.chunked(jnp.zeros((batch, length)), chunk).shape
    assert shape == (-(-length // width), batch, width)


def test_positions_count_from_the_first_token_of_the_text():
    mask = jnp.array([[False, False, True, True], [True, True, False, False]])
    want = [[0, 0, 0, 1], [0, 1, 1, 1]]
    np.testing.assert_array_equal(heads.positions_of(mask), want)


def scalar_params(params):
    out = heads.scalar_from_trunk(CFG, params, jax.random.key(3))
    bias = jnp.asarray(0.25)
    return {**out, "head": {**out["head"], "bias": bias}}


def test_scalar_is_the_head_on_the_hidden_state(params, texts):
    tokens, mask = texts
    model = scalar_params(params)
    found = heads.scalar_per_token(model, CFG, tokens, jnp.asarray(mask))
    positions = heads.positions_of(jnp.asarray(mask))
    hidden, _ = llama.hidden_states(params, CFG, tokens, positions, jnp.asarray(mask))
    want = np.asarray(hidden) @ np.asarray(model["head"]["weight"]) + 0.25
    np.testing.assert_allclose(found, want, **CLOSE)


def test_scalar_in_rows_is_that_of_each_text_alone(params):
    model, text, other = scalar_params(params), [5, 6, 7], [9, 8]
    rows = {
        "tokens": np.array([[*other, *text], [*text, *other]], np.int32),
        "segments": np.array([[4, 4, 1, 1, 1], [2, 2, 2, 3, 3]], np.int32),
        "ends": np.array([[4, 7], [9, 1]], np.int32),
    }
    found = heads.scalar_in_rows(model, CFG, jax.tree.map(jnp.asarray, rows))
    for ids, places in ((text, found[0]), (other, found[1])):
        every = heads.scalar_per_token(
            model, CFG, np.array([ids], np.int32), jnp.ones((1, len(ids)), bool)
        )
        np.testing.assert_allclose(places, [every[0, -1]] * 2, atol=2e-5)


def test_scalar_head_starts_within_its_bound_and_its_specs_fit(params):
    model = heads.scalar_from_trunk(CFG, params, jax.random.key(3))
    bound = CFG.embed_dim**-0.5
    weight = np.asarray(model["head"]["weight"])
    assert np.abs(weight).max() <= bound and weight.std() == pytest.approx(
        bound / 3**0.5, rel=0.2
    )
    assert float(model["head"]["bias"]) == 0.0
    specs = heads.scalar_specs(CFG)
    shapes = jax.tree.map(
        lambda s: s.shape, specs, is_leaf=lambda s: hasattr(s, "axes")
    )
    assert shapes == jax.tree.map(lambda x: x.shape, model)


def test_value_starts_at_zero_with_the_trunk_of_the_preference_model(params):
    value = heads.value_from_preference(scalar_params(params))
    tokens = np.arange(6, dtype=np.int32)[None]
    values = heads.scalar_per_token(value, CFG, tokens, jnp.ones((1, 6), bool))
    np.testing.assert_array_equal(values, 0.0)
    np.testing.assert_array_equal(value["trunk"]["embed"], params["embed"])
