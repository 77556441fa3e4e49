"""Texts side by side in rows: each is read once, as it is read alone."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
import runs

from rlcd_jax.job import setup
from rlcd_jax.models import llama
from rlcd_jax.scoring import divergence, likelihoods, packed_texts, reading
from rlcd_jax.training import packing


@pytest.fixture(scope="module", params=[1, 2])
def job(request):
    with runs.devices_by_mesh():
        return setup.load_job(
            runs.tiny_config(
                model__dtype="float32",
                mesh__data=request.param,
                mesh__fsdp=request.param,
                mesh__tensor=request.param,
            )
        )


def drawn(count: int, seed: int = 0, most: int = 40) -> list[packing.Text]:
    rng = np.random.default_rng(seed)
    out = []
    for length in rng.integers(4, most, count).tolist():
        ids = rng.integers(5, 200, length).tolist()
        out.append(divergence.text(ids, int(rng.integers(0, length + 1))))
    return out


def test_a_text_has_the_divergence_that_it_has_alone(job):
    policy, base = (llama.init_params(job.cfg, jax.random.key(n)) for n in (1, 2))
    measure = divergence.divergence_scorer(job, base)
    texts = drawn(21, seed=3)
    ids = [text.ids for text in texts]
    starts = [len(text.ids) - len(text.wanted) for text in texts]
    together = measure(policy, ids, starts)
    alone = [measure(policy, [i], [s])[0] for i, s in zip(ids, starts, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    bare = [start == len(i) for i, start in zip(ids, starts, strict=True)]
    assert 0 < sum(bare) < len(bare)
    np.testing.assert_array_equal(together == 0, bare)
    np.testing.assert_array_equal(measure(base, ids, starts), 0.0)


def test_no_text_is_no_number(job):
    base = llama.init_params(job.cfg, jax.random.key(2))
    assert divergence.divergence_scorer(job, base)(base, [], []).shape == (0,)


def test_rows_are_few_where_texts_are_long(job):
    limit, sizes = reading.rows_at(job)(4096, 64), []
    assert limit < reading.rows_at(job)(64, 64)

    def program(tokens, segments, states):
        sizes.append(len(tokens))
        return jnp.ones(states.shape)

    texts = [packing.Text(range(4000), wanted=range(3990, 4000))] * 64
    with jax.set_mesh(job.mesh):
        found = packed_texts.read_states(job, program, texts)
    np.testing.assert_array_equal(found, 10)
    assert max(sizes) <= limit and sum(sizes) >= 64


def numbered(count: int, seed: int, most: int = 70) -> list[list[int]]:
    """Return texts of ids that are nowhere twice."""
    sizes = np.random.default_rng(seed).integers(1, most, count)
    ids = np.split(np.arange(1, sizes.sum() + 1), np.cumsum(sizes)[:-1])
    return [own.tolist() for own in ids]


@pytest.mark.parametrize("count", [1, 5, 40, 300])
def test_what_is_read_at_a_text_is_its_own(job, count, caplog):
    """By programs that give back what they are given, whatever rows there are."""
    texts, shapes = numbered(count, seed=count), set()

    def ends(tokens, segments):
        shapes.add(tokens.shape)
        return jnp.stack([tokens, segments], axis=-1)

    def states(tokens, segments, states):
        return jnp.take_along_axis(tokens, states + 1, axis=1).astype(jnp.float32)

    with jax.set_mesh(job.mesh), caplog.at_level(logging.INFO):
        found = packed_texts.read_ends(job, ends, texts, what="letters")
        wanted = [likelihoods.text(ids, 3) for ids in texts]
        sums = packed_texts.read_states(job, states, wanted)
    np.testing.assert_array_equal(found[:, 0], [ids[-1] for ids in texts])
    assert (found[:, 1] > 0).all()
    np.testing.assert_array_equal(sums, [sum(ids[1:][-3:]) for ids in texts])
    assert len(shapes) <= 3  # programs
    (line,) = [r.getMessage() for r in caplog.records if "letters" in r.getMessage()]
    assert line.startswith(f"letters: {count}/{count} texts (100.0 %)")


def test_a_text_has_the_likelihood_that_it_has_padded(job):
    params = llama.init_params(job.cfg, jax.random.key(4))
    rows = [text.ids for text in drawn(21, seed=5)]
    counts = [1 + 7 * n % len(ids) for n, ids in enumerate(rows)]
    counts[:2] = [0, len(rows[1])]
    found = likelihoods.ids_scorer(job)(params, rows, counts)
    tokens, mask = padded.pad_left(rows, 40, 0)
    of_tokens = padded.text_logprobs(params, job.cfg, tokens, mask, chunk_tokens=64)
    of_tokens = np.asarray(of_tokens)
    alone = [np.sum(of_tokens[n, 40 - num :]) for n, num in enumerate(counts)]
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
    assert found[0] == 0 and (found[1:] < 0).all()
    mean = likelihoods.ids_scorer(job, per_token=True)(params, rows, counts)
    np.testing.assert_allclose(mean, found / np.maximum(counts, 1), rtol=1e-6)
    assert likelihoods.ids_scorer(job)(params, [], []).shape == (0,)


@pytest.mark.parametrize("replies", [1, 2])
def test_nine_tenths_of_what_is_read_are_of_a_text(job, replies):
    """Lengths as in test_packing: a reply read, or two and the words of a question."""
    rng = np.random.default_rng(2)
    quantiles = [4, 16, 45, 86, 150, 273, 360]
    prompts = np.interp(rng.random(2000), [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1], quantiles)
    lengths = prompts.astype(int) + rng.integers(40, 141, (replies, 2000)).sum(0)
    lengths += 60 * (replies == 2)
    computed, shapes = [], set()

    def program(tokens, segments):
        computed.append(tokens.size)
        shapes.add(tokens.shape)
        return jnp.zeros(tokens.shape)

    texts = [range(n) for n in lengths.tolist()]
    with jax.set_mesh(job.mesh):
        packed_texts.read_ends(job, program, texts)
    assert len(shapes) <= 3
    assert lengths.sum() / sum(computed) >= 0.9
