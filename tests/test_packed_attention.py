"""Where the texts of rows lie, for cuDNN, and its attention where there is such a GPU.

The kernel's own tests run on an NVIDIA GPU alone: `python -m pytest -n 0
tests/test_packed_attention.py` with JAX_PLATFORMS=cuda.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.decode import programs
from rlcd_jax.models import attention, cached, heads, llama, packed, presets
from rlcd_jax.training import packing, row_arrays

WIDTH = 96
CLOSE = 2e-2  # of the largest entry: operands have eight bits
on_gpu = pytest.mark.skipif(
    jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU"
)


FIND = jax.jit(packed.find)


def rows_of(texts, width=WIDTH):
    """Return the numbers of rows; of each text its length and unseen tokens."""
    packer = packing.Packer(
        width, 1, 1, pad_id=0, wanted=0, width=width, most=packed.most_texts
    )
    examples = [[packing.Text([1] * own, unseen=more)] for own, more in texts]
    places = packer.place(examples)
    return row_arrays.fill(packer, examples, places, places.size)["segments"]


@given(
    st.lists(
        st.tuples(st.integers(1, WIDTH - 8), st.integers(0, 8)),
        min_size=1,
        max_size=12,
    )
)
def test_texts_are_found_where_they_lie(texts):
    numbers = rows_of(texts)
    numbers = np.pad(numbers, ((0, 12 - len(numbers)), (0, 0)))  # of one shape always
    found = FIND(jnp.asarray(numbers))
    told = []
    for row, starts in enumerate(np.asarray(found.starts)):
        assert starts[-1] == -1
        if not numbers[row].any():
            continue  # see the next test
        padding = int(np.sum(numbers[row] == 0))
        last = int(np.sum(starts >= 0)) - 1
        for place, start in enumerate(starts[:-1]):
            asking, asked = (int(x[row, place]) for x in (found.asking, found.asked))
            if start < 0:
                assert asking == asked == -1
                continue
            asking -= padding * (place == last)  # that the row ends with
            (number,) = set(np.abs(numbers[row, start : start + asking]))
            assert np.sum(np.abs(numbers) == number) == asking
            assert np.all(numbers[row, start : start + asked] == number)
            told.append((asked, asking - asked))
    assert sorted(told) == sorted(texts)
    np.testing.assert_array_equal(found.seen, numbers > 0)


def test_every_token_asks():
    """The kernel writes nothing elsewhere, and what is there may not be a number."""
    numbers = jnp.asarray(np.pad(rows_of([(90, 6), (3, 2)]), ((0, 1), (0, 0))))
    found = packed.find(numbers)
    np.testing.assert_array_equal(
        found.asking, [[96, -1, -1, -1], [96, -1, -1, -1], [96, -1, -1, -1]]
    )
    np.testing.assert_array_equal(found.asked[:, 0], [90, 3, 1])  # of an empty row one
    assert not found.seen[2].any()


def test_a_row_takes_as_many_texts_as_the_kernel_is_told_of():
    numbers = rows_of([(1, 0)] * 7)
    assert packed.most_texts(WIDTH) == 4
    assert [len(set(row) - {0}) for row in numbers] == [4, 3]
    assert packed.most_texts(512) == 4 and packed.most_texts(2048) == 16


TEXTS = [(90, 6), (40, 0), (37, 8), (1, 0), (1, 3), (60, 0), (25, 2)]


@on_gpu
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_kernel_attends_as_masked_scores_do(kv_heads):
    numbers = jnp.asarray(np.pad(rows_of(TEXTS), ((0, 1), (0, 0))))  # an empty row
    rng = np.random.default_rng(0)
    shapes = [(len(numbers), WIDTH, n, 64) for n in (4, kv_heads, kv_heads)]
    arrays = [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]
    inside = np.asarray(numbers != 0)[:, :, None]
    weights = jnp.asarray(rng.standard_normal((*inside.shape[:2], 4 * 64))) * inside

    def run(kernel, dtype):
        def total(arrays):
            mask = attention.prepared(numbers, kernel)
            out = attention.causal_attention(
                *arrays, mask, kernel=kernel, block=0, dtype=dtype
            )
            return jnp.sum(out * weights), out

        grads, out = jax.jit(jax.grad(total, has_aux=True))(arrays)
        return [np.asarray(out * inside), *map(np.asarray, grads)]

    for ours, truth in zip(
        run("cudnn", "bfloat16"), run("xla", "float32"), strict=True
    ):
        assert np.all(np.isfinite(ours))
        np.testing.assert_allclose(ours, truth, atol=CLOSE * np.abs(truth).max())


@on_gpu
@pytest.mark.parametrize("remat", llama.REMAT)
def test_a_model_reads_rows_as_with_masked_scores(remat):
    cfg = dataclasses.replace(
        presets.get_preset("smollm2-135m"), num_layers=3, dtype="bfloat16", remat=remat
    )
    params = llama.init_params(cfg, jax.random.key(0))
    rng = np.random.default_rng(0)
    packer = packing.Packer(
        WIDTH, 1, 1, pad_id=0, wanted=30, width=WIDTH, most=packed.most_texts
    )
    examples = [
        [packing.Text(rng.integers(5, 999, own), range(1, min(own, 31)), more)]
        for own, more in TEXTS
    ]
    places = packer.place(examples)
    rows = row_arrays.fill(packer, examples, places, places.size)
    rows = {name: jnp.asarray(value) for name, value in rows.items()}

    def run(**numbers):
        how = dataclasses.replace(cfg, **numbers)

        def loss(params):
            found, _ = heads.state_logprobs(params, how, rows, chunk_tokens=256)
            own = row_arrays.unpack(found, rows["at"])
            return jnp.sum(jnp.where(rows["counted"], own, 0.0)), own

        grads, found = jax.jit(jax.grad(loss, has_aux=True))(params)
        return np.where(rows["counted"], found, 0.0), jax.tree.leaves(grads)

    ours, our_grads = run(attention="cudnn")
    truth, true_grads = run(dtype="float32")
    np.testing.assert_allclose(ours, truth, atol=CLOSE * np.abs(truth).max())
    for one, other in zip(our_grads, true_grads, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.linalg.norm(one - other) <= 0.03 * np.linalg.norm(other)


@on_gpu
def test_a_prefill_is_that_of_masked_scores():
    cfg = dataclasses.replace(presets.get_preset("smollm2-135m"), num_layers=3)
    params = llama.init_params(cfg, jax.random.key(0))
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(5, 999, (5, 64)), jnp.int32)
    length = jnp.asarray([64, 1, 33, 7, 50], jnp.int32)

    def run(**numbers):
        how = dataclasses.replace(cfg, **numbers)
        rows = jax.jit(functools.partial(programs.prefill, cfg=how, part=None))(
            llama.decode_form(params, how),
            tokens=tokens,
            offset=jnp.zeros(5, jnp.int32),
            length=length,
        )
        axes = cached.length_axes(how.attention)
        return [
            np.moveaxis(np.asarray(buffer, np.float32), axis, 0)
            for buffers, axis in ((rows.k, axes.k), (rows.v, axes.v))
            for buffer in buffers
        ]

    there = np.arange(64)[:, None] < np.asarray(length)
    ours, truth = run(attention="cudnn", results="bfloat16"), run(dtype="float32")
    for one, other in zip(ours, truth, strict=True):
        one, other = (x[there].ravel() for x in (one, other))
        assert np.linalg.norm(one - other) <= CLOSE * np.linalg.norm(other)
