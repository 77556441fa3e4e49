"""Tests of rlcd_jax.scoring.letters: scoring texts with and without a beginning."""

import hypothesis
import jax.numpy as jnp
import numpy as np
import padded
import pytest
import runs
import tokenizer_families as families
from hypothesis import strategies as st

from rlcd_jax import tasks
from rlcd_jax.job import setup
from rlcd_jax.models import heads, llama
from rlcd_jax.pairs import few_shots, scoring_prompt
from rlcd_jax.scoring import letters
from rlcd_jax.text import tokenizer as tk

# In whose small vocabularies " (A" is one piece and " (B" three.
JOINED = ("llama1", "llama2", "tinyllama", "codellama", "tinyllama_gguf")
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


@pytest.mark.parametrize("shared", [64, 10_000])
def test_texts_side_by_side_have_the_logits_of_each_alone(job, monkeypatch, shared):
    """Those of the whole vocabulary, from the forward of one text."""
    params, sizes = job.load_base(), [3, 90, 0, 41, 7, 12, 60, 1] * 5
    texts = [BEGINNING + "y" * n + " The answer is: (" for n in sizes]
    found = scores(job, texts, monkeypatch, shared=shared)
    asked = letters.letter_ids(job.text_tokenizer, texts[0], "continuation")
    tokens, mask = padded.pad_left(
        [job.text_tokenizer.encode(text) for text in texts[:8]], 320, 0
    )
    hidden, _ = llama.hidden_states(
        params, job.cfg, tokens, heads.positions_of(jnp.asarray(mask)), mask
    )
    alone = llama.logits(params, job.cfg, hidden[:, -1])[:, np.array(asked)]
    np.testing.assert_allclose(found, np.tile(alone, (5, 1)), atol=2e-5)


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


@pytest.mark.parametrize("name", families.FAMILIES)
def test_letters_are_read_as_every_family_writes_them(name, tmp_path):
    one = tk.load_tokenizer(families.write(name, tmp_path))
    task = tasks.load_task("cheerful")
    shots = few_shots.known_text("task", task, words=False)
    for reply in ("Yes!", "a (b", " x\n", "\u4eba", "2) (A) or (B"):
        asked = scoring_prompt.scoring_prompt("Human: Hi\n\nAssistant:", reply, "", "?")
        for text in (asked, shots + scoring_prompt.BLOCK + asked):
            ids = letters.letter_ids(one, text, "continuation")
            rows, counts = letters.ending_ids(one, text)
            assert rows == [one.encode(text + letter) for letter in "AB"]
            ends = [row[-num:] for row, num in zip(rows, counts, strict=True)]
            said = [b"".join(map(one.token_bytes, end)) for end in ends]
            # Both say the letter and what it shares a token with, and nothing more.
            assert said[0].endswith(b"A") and said[1].endswith(b"B")
            assert said[0][:-1] == said[1][:-1] and said[0][:-1] in (b"", b"(", b" (")
            assert ends[0][0] != ends[1][0]
            if ids is None:  # in these tests' small vocabularies " (A" is a piece
                assert counts == [1, 3] and one.token_bytes(ends[0][0]) == b" (A"
            else:
                assert [[found] for found in ids] == ends
                assert [one.token_bytes(found) for found in ids] == [b"A", b"B"]
    found = letters.letter_ids(one, text, "continuation")
    assert (found is None) == (name in JOINED)


def test_letters_that_share_a_token_are_read_by_their_log_probabilities(
    job, monkeypatch
):
    """Where they do not, the two ways say the same."""
    texts = [f"Which one? {n} The answer is: (" for n in ("", "2", "a b c")]
    whole = np.array(letters.letter_scorer(job, job.load_base())(texts))
    monkeypatch.setattr(letters, "letter_ids", lambda *_: None)
    found = np.array(letters.letter_scorer(job, job.load_base())(texts))
    assert (found < 0).all()
    np.testing.assert_allclose(np.diff(found), np.diff(whole), atol=2e-5)
