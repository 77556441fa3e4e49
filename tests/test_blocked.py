"""Attention in blocks is attention: values, gradients, caches, and no T x T array.

So is that of rows of short texts, whose tokens look no farther than a text is long.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
from jax.extend import core as jax_core

from rlcd_jax.models import (
    attention,
    blocked,
    cached,
    footprint,
    llama,
    presets,
)

CFG = dataclasses.replace(
    presets.get_preset("tiny"), dtype="float32", attention_block=0
)
IN_BLOCKS = dataclasses.replace(CFG, attention_block=5)
BATCH, LENGTH, HEADS, KV_HEADS, WIDTH = 3, 13, 4, 2, 8
MASKS = {
    "all": np.ones((BATCH, LENGTH), bool),
    "left padded": np.arange(LENGTH) >= np.array([[0], [4], [11]]),
    "holes": np.random.default_rng(1).random((BATCH, LENGTH)) < 0.7,
    # Two texts in a row, tokens that see a text and are not seen, and none at all.
    "packed": np.array(
        [[1] * 6 + [2] * 7, [1] * 3 + [-1] * 3 + [2] * 5 + [0] * 2, [3] * 12 + [0]],
        np.int32,
    ),
}


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    shapes = [(BATCH, LENGTH, n, WIDTH) for n in (HEADS, KV_HEADS, KV_HEADS)]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return arrays, rng.standard_normal((BATCH, LENGTH, HEADS * WIDTH))


def seen_by_hand(mask):
    """Return which keys each query sees, [B, T, S], told one by one."""
    seen = np.zeros((*mask.shape, mask.shape[1]), bool)
    for b, t, s in np.ndindex(seen.shape):
        one_text = mask[b, s] if mask.dtype == bool else abs(mask[b, t]) == mask[b, s]
        seen[b, t, s] = s <= t and one_text and mask[b, s] > 0
    return seen


def oracle(arrays, mask):
    """Return attention in float64, a loop over rows and heads; none seen: zero."""
    q, k, v = arrays
    seen, out = seen_by_hand(mask), np.zeros(q.shape)
    for b, t, n in np.ndindex(q.shape[:3]):
        keys = np.flatnonzero(seen[b, t])
        if len(keys):
            head = n // (HEADS // KV_HEADS)
            scores = k[b, keys, head] @ q[b, t, n] / np.sqrt(WIDTH)
            weights = np.exp(scores - scores.max())
            out[b, t, n] = weights @ v[b, keys, head] / weights.sum()
    return out.reshape(*q.shape[:2], -1)


def run(block, arrays, mask, weights, dtype="float32", reach=0):
    """Return attention and the gradients of its weighted sum."""

    def total(arrays):
        out = attention.causal_attention(
            *arrays,
            jnp.asarray(mask),
            kernel="xla",
            block=block,
            dtype=dtype,
            reach=reach,
        )
        return jnp.sum(out * weights), out

    single = [jnp.asarray(x, jnp.float32) for x in arrays]
    grads, out = jax.jit(jax.grad(total, has_aux=True))(single)
    return np.asarray(out), [np.asarray(x) for x in grads]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_blocks_equal_the_oracle_and_whole_attention_with_gradients(given, mask):
    arrays, weights = given
    sees = seen_by_hand(mask).any(axis=-1)
    weights = np.where(sees[..., None], weights, 0.0)
    whole, wanted = run(0, arrays, mask, weights)
    out, grads = run(5, arrays, mask, weights)  # blocks of 5, 5 and 3
    exact = oracle(arrays, mask)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(out[~sees], 0.0)
    np.testing.assert_allclose(out[sees], whole[sees], rtol=0, atol=1e-5)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    # One number of each gradient against a difference of the float64 oracle.
    for index in range(3):
        at, step = tuple(np.array(arrays[index].shape) // 2), 1e-5
        totals = []
        for sign in (1, -1):
            moved = [x.copy() for x in arrays]
            moved[index][at] += sign * step
            totals.append(np.sum(oracle(moved, mask) * weights))
        slope = (totals[0] - totals[1]) / (2 * step)
        assert grads[index][at] == pytest.approx(slope, rel=0, abs=1e-5)


def test_rounding_of_operands_is_of_the_same_size_in_blocks(given):
    arrays, weights = given
    exact, grads = run(0, arrays, MASKS["all"], weights)
    errors = {}
    for block in (0, 4):
        out, slopes = run(block, arrays, MASKS["all"], weights, "bfloat16")
        pairs = zip((out, *slopes), (exact, *grads), strict=True)
        errors[block] = [np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs]
    assert min(errors[0]) > 0
    assert all(a < 1.5 * b for a, b in zip(errors[4], errors[0], strict=True))


def rows_of_texts(length, longest):
    """Return rows full of texts of at most so many tokens, some as long as allowed."""
    rng, rows = np.random.default_rng(3), np.zeros((2, length), np.int32)
    for row in rows:
        at, number = 0, 1
        while at + longest < length:
            size = longest if number % 2 else int(rng.integers(1, longest + 1))
            row[at : at + size] = number
            if number % 3 == 0:  # padding that sees the text
                row[at + size // 2 : at + size] = -number
            at, number = at + size, number + 1
    return rows


# Longest text, tokens of a block: in windows of 8 and 16 queries; in blocks of 5 and 7.
REACHES = {
    "eights": (13, 20),
    "sixteens": (60, 60),
    "never in blocks": (60, 0),
    "blocks": (13, 5),
    "two": (9, 7),
}


@pytest.mark.parametrize(("reach", "block"), REACHES.values(), ids=REACHES)
def test_texts_in_wide_rows_see_themselves_alone_however_wide(reach, block):
    length = 150
    found = blocked.windows(length, block, reach)
    assert (found is None) == (block in (5, 7))
    rng, mask = np.random.default_rng(0), rows_of_texts(length, reach)
    arrays = [rng.standard_normal((2, length, n, WIDTH)) for n in (4, 2, 2)]
    sees = seen_by_hand(mask).any(axis=-1)[..., None]
    weights = np.where(sees, rng.standard_normal((2, length, 4 * WIDTH)), 0.0)
    out, grads = run(block, arrays, mask, weights, reach=reach)
    assert np.all(np.isfinite(out))
    exact = oracle(arrays, mask)
    np.testing.assert_allclose(np.where(sees, out, 0), exact, rtol=0, atol=1e-5)
    _, wanted = run(0, arrays, mask, weights)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    # A smaller reach leaves keys out that texts have.
    short, _ = run(block, arrays, mask, weights, reach=reach // 3)
    assert np.abs(np.where(sees, short, 0) - exact).max() > 1e-3


def test_a_row_of_one_text_is_read_whole_whatever_the_reach(given):
    arrays, weights = given
    whole, wanted = run(0, arrays, MASKS["left padded"], weights)
    out, grads = run(5, arrays, MASKS["left padded"], weights, reach=3)
    sees = MASKS["left padded"]
    np.testing.assert_allclose(out[sees], whole[sees], rtol=0, atol=1e-5)
    assert all(np.all(np.isfinite(x)) for x in (*grads, *wanted))


def test_what_wide_rows_cost_by_hand():
    at = blocked.windows(1008, 128, 80)
    assert (at.size, at.before, at.keys) == (16, 5, 96)  # 79 tokens before, by sixteens
    assert blocked.windows(1008, 128, 88).keys == 112
    assert blocked.windows(96, 128, 80) is None  # no fewer keys than the row has
    assert blocked.windows(1008, 128, 300) is None  # too many at once
    assert blocked.windows(1968, 0, 492).keys == 616  # but for those of no blocks
    assert blocked.windows(1008, 128, 0) is None
    assert blocked.keys_computed(1008, 128, 80) == 96
    assert blocked.blocks_before(2048, 256, 0) == 7
    assert blocked.blocks_before(2048, 256, 257) == 1
    assert blocked.blocks_before(2048, 256, 258) == 2
    assert blocked.keys_computed(2048, 256, 258) == 336
    assert blocked.keys_computed(2048, 256, 700) == 256 * (1 + 2 + 3 + 5 * 4) / 8


def test_blocks_of_a_text_by_hand():
    tokens = [blocked.block_tokens(n, 256) for n in (1, 512, 513, 768, 1023, 2048)]
    assert tokens == [1, 512, 171, 256, 256, 256]
    assert [blocked.num_blocks(n, 256) for n in (512, 513, 2048)] == [1, 3, 8]
    assert blocked.block_tokens(4096, 0) == 4096 and blocked.num_blocks(4096, 0) == 1
    assert blocked.keys_computed(512, 256) == 512
    assert blocked.keys_computed(2048, 512) == 512 * (1 + 2 + 3 + 4) / 4
    assert blocked.keys_computed(2048, 0) == 2048


def arrays_of(jaxpr):
    """Yield the shape of every array of a program, those of its loops too."""
    for equation in jaxpr.eqns:
        yield from (one.aval.shape for one in equation.outvars)
        for inner in jax_core.jaxprs_in_params(equation.params):
            yield from arrays_of(inner)


@pytest.mark.parametrize("remat", llama.REMAT)
def test_a_long_text_has_no_array_of_all_scores_whatever_is_made_again(remat):
    """Values and gradients stay; no array has two axes of T, forwards or backwards."""
    length = 37
    tokens = np.arange(2 * length).reshape(2, length) % 264
    mask = np.arange(length) >= np.array([[0], [9]])
    params = llama.init_params(CFG, jax.random.key(0))
    found, largest = {}, {}
    for block in (0, 8):
        cfg = dataclasses.replace(CFG, attention_block=block, remat=remat)

        def loss(params, cfg=cfg):
            return padded.text_logprobs(params, cfg, tokens, mask, chunk_tokens=9).sum()

        made = jax.make_jaxpr(jax.value_and_grad(loss))(params)
        largest[block] = max(shape.count(length) for shape in arrays_of(made.jaxpr))
        if remat == "full":
            found[block] = jax.jit(jax.value_and_grad(loss))(params)
    assert largest == {0: 2, 8: 1}
    if found:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            found[0],
            found[8],
        )


@pytest.mark.parametrize("past", [0, 4])
def test_prefill_in_blocks_equals_prefill_at_once(past):
    """New tokens behind none and behind some that are there, kept alike."""
    weights = llama.decode_form(llama.init_params(CFG, jax.random.key(0)), CFG)
    tokens = np.random.default_rng(0).integers(0, 264, (2, past + LENGTH))
    before = llama.init_cache(CFG, 2, 8) if past else None

    def read(cfg, cache, begin, end):
        where = np.broadcast_to(np.arange(begin, end, dtype=np.int32), (2, end - begin))
        mask = np.ones(where.shape, bool)
        new = tokens[:, begin:end].astype(np.int32)
        return llama.hidden_states(weights, cfg, new, where, mask, cache=cache)

    if past:
        _, before = read(CFG, before, 0, past)
    drafts, seen = {}, {}
    for cfg in (CFG, IN_BLOCKS):
        window = llama.init_cache(cfg, 2, LENGTH)
        draft = cached.draft(before, window, jnp.full(2, past, jnp.int32))
        seen[cfg], drafts[cfg] = read(cfg, draft, past, past + LENGTH)
    np.testing.assert_allclose(seen[CFG], seen[IN_BLOCKS], rtol=0, atol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5),
        drafts[CFG].window,
        drafts[IN_BLOCKS].window,
    )
    cache = llama.init_cache(CFG, 2, past + LENGTH)  # written to, not drafted
    if past:
        _, cache = read(CFG, cache, 0, past)
    again, _ = read(IN_BLOCKS, cache, past, past + LENGTH)
    np.testing.assert_allclose(again, seen[CFG], rtol=0, atol=2e-5)


def test_plans_count_blocks_as_a_compiler_does():
    """One text of 1,024 tokens: all scores are 16 MiB, those of a block are one."""
    length, sizes = 1024, {}
    tokens = np.zeros((1, length), np.int32)
    where, mask = np.arange(length)[None], np.ones((1, length), bool)
    shapes = jax.eval_shape(lambda: llama.init_params(CFG, jax.random.key(0)))
    for block in (0, 256):
        cfg = dataclasses.replace(CFG, attention_block=block)

        def loss(params, cfg=cfg):
            return llama.hidden_states(params, cfg, tokens, where, mask)[0].sum()

        made = jax.jit(jax.grad(loss)).lower(shapes).compile()
        one = footprint.Pass(1, length, 1, 0, fsdp_ways=1, tensor_ways=1)
        planned = footprint.working_bytes(cfg, one)["activations"]
        sizes[block] = made.memory_analysis().temp_size_in_bytes, planned
    all_scores = 4 * CFG.num_heads * length**2
    assert min(sizes[0]) > 2 * all_scores
    assert max(sizes[256]) < all_scores
    assert 0.5 < sizes[256][0] / sizes[256][1] < 2
    cudnn = dataclasses.replace(CFG, attention="cudnn", dtype="bfloat16")
    same = [
        footprint.layer_bytes(dataclasses.replace(cudnn, attention_block=n), one)
        for n in (0, 256)
    ]
    assert same[0] == same[1]  # its kernel stores no scores
    assert footprint.keys_computed(cudnn, 2048) == 2048
    assert footprint.keys_computed(llama.LlamaConfig(**NUMBERS), 2048) == 256 * 4.5


NUMBERS = {
    field.name: getattr(CFG, field.name)
    for field in dataclasses.fields(CFG)
    if field.name != "attention_block"
}
