"""Texts side by side in rows: each is read once, as it is read alone."""

import jax
import numpy as np
import pytest
import runs

from rlcd_jax.job import setup
from rlcd_jax.models import llama
from rlcd_jax.scoring import divergence, packed_texts, reading
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


@pytest.mark.parametrize("count", [1, 3, 15, 16, 17, 40])
def test_each_text_is_in_one_part(job, count):
    texts, seen = drawn(count), []
    sizes = set()
    for which, rows in packed_texts.parts(job, texts):
        sizes.add(tuple(rows[name].shape for name in packed_texts.READ))
        for place, number in enumerate(which):
            counted = rows["counted"][place]
            if number >= count:
                assert not counted.any()
                continue
            seen.append(number)
            flat = rows["at"][place][counted]
            row, state = np.divmod(flat, rows["states"].shape[1])
            after = rows["states"][row, state] + 1
            text = texts[number]
            want = [text.ids[at] for at in text.wanted]
            np.testing.assert_array_equal(rows["tokens"][row, after], want)
    assert sorted(seen) == list(range(count))
    assert len(sizes) == 1


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
    assert packed_texts.map_texts(job, pytest.fail, [], "KL").shape == (0,)


def test_rows_are_few_where_texts_are_long(job):
    limit = reading.rows_at(job)(4096, 64)
    assert limit < reading.rows_at(job)(64, 64)
    texts = [packing.Text(range(4000), wanted=range(3990, 4000))] * 64
    sizes = [len(which) for which, _ in packed_texts.parts(job, texts)]
    assert max(sizes) <= limit and sum(sizes) >= 64
