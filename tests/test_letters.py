"""Tests of rlcd_jax.scoring.letters: scoring texts with and without a beginning."""

import hypothesis
import numpy as np
import pytest
import runs
from hypothesis import strategies as st

from rlcd_jax.job import setup
from rlcd_jax.scoring import letters

BEGINNING = "A long beginning that all of the texts have in common, word for word. " * 2


@pytest.fixture(scope="module", params=[1, 2], ids=["one", "eight"])
def job(request):
    """Return the inputs of a run on one device, and on eight."""
    ways = {f"mesh__{axis}": request.param for axis in ("data", "fsdp", "tensor")}
    with runs.devices_by_mesh():
        return setup.load_job(runs.tiny_config(**ways))


def scores(job, texts, monkeypatch, *, shared):
    monkeypatch.setattr(letters, "SHARED", shared)
    score = letters.letter_scorer(job, job.load_base())
    return np.array(score(texts))


def test_a_beginning_read_once_gives_the_same_logits(job, monkeypatch):
    texts = [BEGINNING + "x" * n + " The answer is: (" for n in (3, 90, 0, 41, 7)]
    whole = scores(job, texts, monkeypatch, shared=10_000)
    drawn = []
    make = letters._behind
    monkeypatch.setattr(letters, "_behind", lambda *a: drawn.append(a) or make(*a))
    behind = scores(job, texts, monkeypatch, shared=64)
    assert len(drawn) == 1
    np.testing.assert_allclose(behind, whole, atol=2e-5)
    assert np.ptp(whole, axis=0).min() > 1e-3  # the rest of a text matters
    one = scores(job, texts[1:2], monkeypatch, shared=64)  # all but its last token
    np.testing.assert_allclose(one, whole[1:2], atol=2e-5)


@hypothesis.given(
    st.lists(st.integers(0, 2), max_size=4),
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1),
)
def test_num_shared_is_the_common_beginning_less_a_token(beginning, ends):
    rows = [[*beginning, *end] for end in ends]
    count = letters.num_shared(rows)
    assert count >= min(len(beginning), min(map(len, rows)) - 1)
    assert all(row[:count] == rows[0][:count] and len(row) > count for row in rows)
    if count + 1 < min(map(len, rows)):
        assert len({row[count] for row in rows}) > 1
