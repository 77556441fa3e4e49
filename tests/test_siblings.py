"""siblings: texts that begin alike are computed once, and are what they are alone."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.job import rates
from rlcd_jax.models import footprint, heads, llama, siblings, splash
from rlcd_jax.training import packing, row_arrays

CFG = llama.LlamaConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    mlp_dim=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    dtype="float32",
)
LONGEST = 40
SHARES = 2  # tokens of a beginning that is shared, at least
# Tokens of a beginning, and of what follows it in each text; 0 after no beginning: none.
EXAMPLES = (
    (9, (3, 12, 1)),
    (1, (30, 2, 7)),
    (20, (0, 5, 0)),
    (0, (4, 0, 9)),
    (15, (15, 15, 15)),
    (0, (0, 6, 0)),
)


def examples_of(shapes, wanted=0):
    rng, made = np.random.default_rng(0), []
    for beginning, rests in shapes:
        start = rng.integers(1, 30, beginning).tolist()
        # Each rest begins with a token of its own.
        texts = [
            start + ([30 + k, *rng.integers(1, 30, rest - 1)] if rest else [])
            for k, rest in enumerate(rests)
        ]
        made.append(
            [
                packing.Text(tuple(ids), tuple(range(len(ids)))[-wanted:][1:])
                if wanted
                else packing.Text(tuple(ids))
                for ids in texts
            ]
        )
    return made


def packed(examples, shares, **own):
    packer = packing.Packer(LONGEST, pad_id=0, shares=SHARES * shares, **own)
    places = packer.place(examples)
    return row_arrays.fill(packer, examples, places, places.size), places


def one_part(**own):
    return {"parts": 1, "ways": 1, "wanted": 0} | own


@hypothesis.given(
    st.lists(
        st.tuples(st.integers(0, 20), st.tuples(*[st.integers(0, 20)] * 3)),
        min_size=4,
        max_size=12,
    ),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 6]),
)
def test_every_text_is_read_whole_at_its_places(shapes, parts, ways, wanted):
    examples = examples_of(shapes[: len(shapes) // parts * parts], wanted)
    rows, places = packed(examples, True, parts=parts, ways=ways, wanted=wanted)
    size, read = places.size, 0
    assert rows["tokens"].shape == (parts * size.rows, size.width)
    assert rows["segments"].shape == rows["sources"].shape
    laid = np.take_along_axis(rows["tokens"], rows["sources"], axis=1)
    for place, index in enumerate(places.order):
        example = examples[index]
        shared = packing.common_beginning(example)
        shared *= shared >= SHARES
        texts = [text for text in example if text.ids]
        read += sum(len(text.ids) for text in texts)
        read -= shared * max(len(texts) - 1, 0)
        for k, text in enumerate(example):
            lines, here = np.nonzero(rows["segments"] == place * 3 + k + 1)
            assert tuple(laid[lines, here]) == text.ids
            if not text.ids:
                continue
            line = lines[0]
            assert set(lines) == {line} and line % parts == place % parts
            assert (np.diff(here) == 1).all()
            own = rows["sources"][line, here]
            found = rows["places"][line, own]  # [tokens, K]: where they stand
            assert (found == here[:, None]).any(axis=1).all()
            if not wanted:
                last = rows["ends"][place, k] - line // parts * size.width
                assert own[-1] == last
                continue
            counted = rows["counted"][place, k]
            row, state = np.divmod(rows["at"][place, k][counted], size.states)
            assert (row == line // parts).all()
            asked = list(text.wanted)
            np.testing.assert_array_equal(
                rows["states"][line, state], own[np.array(asked, int) - 1]
            )
            np.testing.assert_array_equal(
                rows["nexts"][line, state], own[np.array(asked, int)]
            )
    assert row_arrays.useful_share(rows) == read / rows["tokens"].size
    total = sum(len(text.ids) for one in examples for text in one)
    if total:
        assert row_arrays.shared_share(rows) == pytest.approx(1 - read / total)
    stands = np.bincount(np.nonzero(rows["places"] < size.whole)[0], minlength=1)
    assert stands.sum() == total  # no place twice, none missing


@pytest.mark.parametrize("kernel", ["windows", "blocks", "whole", "splash"])
def test_scalars_and_gradients_are_those_of_texts_apart(kernel, monkeypatch):
    monkeypatch.setattr(splash, "INTERPRET", True)
    how = {
        "windows": {"reach": LONGEST},
        "blocks": {"attention_block": 16, "reach": LONGEST},
        "whole": {"attention_block": 0},
        "splash": {"attention": "splash", "dtype": "bfloat16", "reach": LONGEST},
    }
    cfg = dataclasses.replace(CFG, **how[kernel])
    key = jax.random.key(0)
    params = heads.scalar_from_trunk(cfg, llama.init_params(cfg, key), key)
    examples, found = examples_of(EXAMPLES), {}
    weights = np.random.default_rng(1).normal(size=(len(examples), 3))
    weights *= np.array([[len(text.ids) > 0 for text in one] for one in examples])
    for shares in (False, True):
        rows, places = packed(examples, shares, **one_part())
        own = jnp.asarray(weights[places.order], jnp.float32)

        def loss(params, rows, own=own):
            return jnp.sum(heads.scalar_in_rows(params, cfg, rows) * own)

        found[shares] = jax.jit(jax.value_and_grad(loss))(
            params, jax.tree.map(jnp.asarray, rows)
        )
    near = 3e-2 if kernel == "splash" else 1e-5
    (apart, expected), (together, grads) = found[False], found[True]
    np.testing.assert_allclose(together, apart, rtol=near, atol=near)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=near, atol=near * scale),
        grads,
        expected,
    )


def test_a_move_and_its_way_back_by_hand():
    rows, _ = packed(examples_of([(2, (1, 2, 0))]), True, **one_part(rows=1))
    alike = siblings.find(rows["segments"], rows["sources"], rows["places"])
    x = jnp.arange(1.0, 1 + rows["tokens"].shape[1])[None, :, None]
    # The third text is the beginning alone: a, b; so the row is a, b, c, d, e.
    laid = [1, 2, 3, 1, 2, 4, 5, 1, 2]
    np.testing.assert_array_equal(alike.laid_out(x)[0, :9, 0], laid)
    places = jnp.arange(1.0, 1 + rows["segments"].shape[1])[None, :, None]
    np.testing.assert_array_equal(alike.by_token(places)[0, :5, 0], [1, 2, 3, 6, 7])
    _, back = jax.vjp(alike.laid_out, x)
    (sums,) = back(places)
    np.testing.assert_array_equal(sums[0, :6, 0], [1 + 4 + 8, 2 + 5 + 9, 3, 6, 7, 0])
    _, back = jax.vjp(alike.by_token, places)
    (given,) = back(x)
    np.testing.assert_array_equal(given[0, :9, 0], [1, 2, 3, 0, 0, 4, 5, 0, 0])


def test_beginnings_are_shared_where_that_spares_work():
    def chosen(beginning, rest, **own):
        batches = [examples_of([(beginning, (rest,) * 3)] * 8)] * 2
        return packing.Packer(LONGEST, pad_id=0, **one_part(**own)).choose(batches)

    assert chosen(20, 5).shares == 2  # a sixteenth of 40, about
    assert not chosen(0, 20).shares
    assert not chosen(1, 30).shares  # two of 91 tokens are not worth it
    alone = [[[one[0]] for one in examples_of([(9, (3,))] * 8)]]
    assert not packing.Packer(LONGEST, pad_id=0, **one_part()).choose(alone).shares
    padded = [
        [[packing.Text(text.ids, unseen=1) for text in one] for one in batch]
        for batch in [examples_of([(20, (5, 5))] * 8)]
    ]
    assert not packing.Packer(LONGEST, pad_id=0, **one_part()).choose(padded).shares


def test_work_that_is_shared_is_counted_once():
    texts = [packing.Text(range(12)), packing.Text(range(15))]
    apart = rates.update_flops(CFG, texts, adapted=False)
    once = rates.update_flops(CFG, texts, adapted=False, shared=[9])
    spared = footprint.forward_flops(CFG, 9, 9, logit_tokens=0)
    assert apart - once == pytest.approx(3 * spared)


def test_a_kernel_of_few_texts_a_row_has_room_for_all():
    examples = examples_of([(10, (2, 2, 2))] * 8)
    _, places = packed(
        examples, True, **one_part(rows=1), most=lambda width: width // 16
    )
    assert places.size.width == 8 * 16
    assert places.size.whole == 24 * 16  # 24 texts, of 288 tokens
