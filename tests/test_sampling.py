"""Tests of rlcd_jax.decode.sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rlcd_jax.decode import sampling


def draw_many(logits, count, *, temperature=1.0, top_k=0, top_p=1.0, forbidden=None):
    """Draw `count` tokens from one row of logits, each with another seed."""
    seeds = jnp.stack([jnp.full(count, 7), jnp.arange(count)], axis=1).astype(
        jnp.uint32
    )

    def run(row):
        return sampling.sample(
            jnp.broadcast_to(row, (count, row.shape[0])),
            sampling.uniforms(seeds, jnp.zeros(count, jnp.int32)),
            temperature=jnp.full(count, temperature),
            top_k=jnp.full(count, top_k, jnp.int32),
            top_p=jnp.full(count, top_p),
            forbidden=None
            if forbidden is None
            else jnp.broadcast_to(forbidden, (count, row.shape[0])),
            truncate=top_k > 0 or top_p < 1,
        )

    return jax.jit(run)(jnp.asarray(logits, jnp.float32))


def expected_probs(logits, *, temperature=1.0, top_k=0, top_p=1.0, forbidden=None):
    """Temperature, top-k and top-p in float64 by sorting: the oracle."""
    logits = np.asarray(logits, np.float64)
    if forbidden is not None:
        logits = np.where(forbidden, -np.inf, logits)
    probs = np.exp((logits - logits.max()) / temperature)
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    if top_k:
        probs[order[top_k:]] = 0
        probs /= probs.sum()
    if top_p < 1:
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= top_p]] = 0
        probs /= probs.sum()
    return probs


CASES = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"top_k": 5},
    {"top_p": 0.8},
    {"top_k": 20, "top_p": 0.6, "temperature": 1.3},
    {"top_k": 1},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sample_frequencies_match_softmax(case):
    logits = np.random.RandomState(0).randn(61) * 1.5
    forbidden = np.arange(61) % 9 == 4
    count = 8000
    draws = draw_many(logits, count, forbidden=forbidden, **case)
    probs = expected_probs(logits, forbidden=forbidden, **case)
    seen = np.bincount(np.asarray(draws.ids), minlength=61)
    assert seen[probs == 0].sum() == 0
    likely = probs * count >= 5
    observed = np.append(seen[likely], seen[~likely].sum())
    expected = np.append(probs[likely], probs[~likely].sum()) * count
    observed, expected = observed[expected > 0], expected[expected > 0]
    if len(expected) > 1:
        assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sample_logprobs_match_oracle(case):
    logits = np.random.RandomState(1).randn(300) * 2
    draws = draw_many(logits, 200, **case)
    ids = np.asarray(draws.ids)
    plain, cut = expected_probs(logits), expected_probs(logits, **case)
    np.testing.assert_allclose(draws.logprobs, np.log(plain[ids]), atol=1e-5)
    np.testing.assert_allclose(draws.sampled_logprobs, np.log(cut[ids]), atol=1e-5)


@pytest.mark.parametrize("vocab_size", [4, 16, 61, 300, 1000])
def test_sample_greedy_is_argmax(vocab_size):
    logits = np.random.RandomState(2).randn(vocab_size)
    logits[-1] = logits[1] = 9.0  # equals: the lowest id
    draws = draw_many(logits, 3, temperature=0.0)
    assert np.asarray(draws.ids).tolist() == [1, 1, 1]
    assert np.asarray(draws.sampled_logprobs).tolist() == [0.0] * 3


def test_sample_greedy_obeys_forbidden():
    logits = np.asarray([0.0, 5.0, 3.0, 1.0])
    draws = draw_many(logits, 2, temperature=0.0, forbidden=logits == 5.0)
    assert np.asarray(draws.ids).tolist() == [2, 2]


def test_sample_truncate_changes_nothing_when_off():
    logits = np.random.RandomState(3).randn(40, 500).astype(np.float32)
    noise = np.random.RandomState(4).rand(40, 2).astype(np.float32)
    settings = {
        "temperature": jnp.linspace(0, 2, 40),
        "top_k": jnp.zeros(40, jnp.int32),
        "top_p": jnp.ones(40),
        "forbidden": None,
    }
    with_it = sampling.sample(logits, noise, truncate=True, **settings)
    without = sampling.sample(logits, noise, truncate=False, **settings)
    np.testing.assert_array_equal(with_it.ids, without.ids)


def test_sample_row_ignores_other_rows():
    rng = np.random.RandomState(5)
    logits, noise = rng.randn(6, 100).astype(np.float32), rng.rand(6, 2)
    settings = {
        "temperature": np.asarray([0, 0.5, 1, 1, 1, 2], np.float32),
        "top_k": np.asarray([0, 0, 3, 0, 7, 0], np.int32),
        "top_p": np.asarray([1, 0.5, 1, 0.9, 0.9, 1], np.float32),
    }
    together = sampling.sample(logits, noise, forbidden=None, truncate=True, **settings)
    for row in range(6):
        part = {name: value[row : row + 1] for name, value in settings.items()}
        alone = sampling.sample(
            logits[row : row + 1],
            noise[row : row + 1],
            forbidden=None,
            truncate=True,
            **part,
        )
        assert alone.ids[0] == together.ids[row]


def test_sample_never_draws_zero_weight_at_the_edges():
    logits = np.full((2, 64), -np.inf, np.float32)
    logits[:, 40] = 0.0
    logits[:, 3] = -200.0  # weight zero in float32
    noise = np.asarray([[0.0, 0.0], [1 - 2**-24, 1 - 2**-24]], np.float32)
    draws = sampling.sample(
        jnp.asarray(logits),
        noise,
        temperature=jnp.ones(2),
        top_k=jnp.zeros(2, jnp.int32),
        top_p=jnp.ones(2),
        forbidden=None,
        truncate=False,
    )
    assert np.asarray(draws.ids).tolist() == [40, 40]


def test_threshold_is_exact():
    rng = np.random.RandomState(6)
    weights = np.exp(-rng.exponential(4, (5, 12, 16))).astype(np.float32)
    weights /= weights.max((1, 2), keepdims=True)
    ranked = -np.sort(-weights.reshape(5, -1), axis=1).astype(np.float64)

    def kept(top_k, top_p, most=0):
        top_k, top_p = np.full(5, top_k), np.full(5, top_p, np.float32)
        floor = sampling.threshold(weights, top_k=top_k, top_p=top_p, most=most)
        return (weights.reshape(5, -1) >= np.asarray(floor)[:, None]).sum(1).tolist()

    for k in (1, 2, 50, 191, 192, 500):
        assert kept(k, 1) == [min(k, 192)] * 5
        if k <= 64:
            assert kept(k, 1, most=64) == [k] * 5
    for p in (0.05, 0.5, 0.9, 0.99):
        for k in (0, 40):
            share = np.cumsum(ranked[:, : k or None], 1)
            wanted = (share < p * share[:, -1:]).sum(1) + 1
            assert kept(k, p) == wanted.tolist()
            if k:
                assert kept(k, p, most=64) == wanted.tolist()


def test_uniforms_depend_on_request_and_step_only():
    seeds = np.asarray([[1, 2], [1, 2], [3, 4]], np.uint32)
    numbers = np.asarray(sampling.uniforms(seeds, np.asarray([0, 1, 0])))
    again = np.asarray(sampling.uniforms(seeds[1:2], np.asarray([1])))
    assert numbers.shape == (3, 2) and ((numbers >= 0) & (numbers < 1)).all()
    assert len({tuple(row) for row in numbers.tolist()}) == 3
    np.testing.assert_array_equal(numbers[1:2], again)
    key = jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(seeds[0])), 1)
    np.testing.assert_array_equal(jax.random.uniform(key, (2,)), again[0])
