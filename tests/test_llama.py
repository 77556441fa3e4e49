"""Properties of the one forward, and hand numbers of its positions."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import padded
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from rlcd_jax.models import attention, cached, heads, llama, packed, presets

CFG = dataclasses.replace(presets.get_preset("tiny"), dtype="float32")
UNTIED = dataclasses.replace(CFG, tie_embeddings=False)
# float32 sums in another order; hidden states are of size 1.
CLOSE = {"rtol": 0, "atol": 2e-5}


@pytest.fixture(scope="module")
def params():
    return llama.init_params(CFG, jax.random.key(0))


def run(params, cfg, tokens, mask):
    tokens, mask = jnp.asarray(tokens, jnp.int32), jnp.asarray(mask, bool)
    positions = heads.positions_of(mask)
    return np.asarray(llama.hidden_states(params, cfg, tokens, positions, mask)[0])


def test_left_padding_equals_right_padding_equals_none(params):
    text = [5, 9, 200, 31, 7]
    plain = run(params, CFG, [text], [[True] * 5])[0]
    left = run(params, CFG, [[0, 0, 0, *text]], [[False] * 3 + [True] * 5])[0, 3:]
    right = run(params, CFG, [[*text, 0, 0]], [[True] * 5 + [False] * 2])[0, :5]
    np.testing.assert_allclose(left, plain, **CLOSE)
    np.testing.assert_allclose(right, plain, **CLOSE)


def test_masked_tokens_do_not_matter(params):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 264, (3, 10))
    mask = np.ones((3, 10), bool)
    mask[0, :4] = mask[1, 6:] = mask[2, [3, 5]] = False
    other = np.where(mask, tokens, rng.integers(0, 264, (3, 10)))
    one, two = (run(params, CFG, x, mask) for x in (tokens, other))
    np.testing.assert_array_equal(one[mask], two[mask])
    assert np.isfinite(one).all()


def test_rows_and_later_tokens_do_not_matter(params):
    tokens = np.random.default_rng(1).integers(0, 264, (2, 8))
    changed = tokens.copy()
    changed[0, 5:] += 1
    one, two = (run(params, CFG, x, np.ones((2, 8))) for x in (tokens, changed % 264))
    np.testing.assert_allclose(one[0, :5], two[0, :5], **CLOSE)
    np.testing.assert_allclose(one[1], two[1], **CLOSE)
    assert np.abs(one[0, 5:] - two[0, 5:]).max() > 1e-3


@pytest.mark.parametrize("cfg", [CFG, UNTIED], ids=["tied", "untied"])
def test_decode_form_equals_training_form(cfg):
    params = llama.init_params(cfg, jax.random.key(1))
    decode = llama.decode_form(params, cfg)
    tokens, mask = np.arange(12).reshape(2, 6), np.ones((2, 6))
    np.testing.assert_allclose(
        run(params, cfg, tokens, mask), run(decode, cfg, tokens, mask), **CLOSE
    )
    hidden = jnp.ones((2, cfg.embed_dim))
    np.testing.assert_allclose(
        llama.logits(params, cfg, hidden), llama.logits(decode, cfg, hidden), **CLOSE
    )


def test_cache_token_by_token_equals_whole_text(params):
    decode = llama.decode_form(params, CFG)
    tokens = np.random.default_rng(2).integers(0, 264, (2, 7)).astype(np.int32)
    whole = run(params, CFG, tokens, np.ones((2, 7)))
    cache = llama.init_cache(CFG, 2, 16)
    steps = []
    for index in range(7):
        where = np.full((2, 1), index, np.int32)
        hidden, cache = llama.hidden_states(
            decode,
            CFG,
            tokens[:, index : index + 1],
            where,
            np.ones((2, 1), bool),
            cache=cache,
        )
        steps.append(hidden[:, 0])
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, **CLOSE)


def test_cache_needs_decode_form(params):
    ones = np.ones((1, 1), np.int32)
    with pytest.raises(ValueError, match="decode form; .*decode_form"):
        llama.hidden_states(
            params, CFG, ones, ones, ones > 0, cache=llama.init_cache(CFG, 1, 4)
        )


def test_draft_window_equals_cache(params):
    decode = llama.decode_form(params, CFG)
    tokens = np.random.default_rng(3).integers(0, 264, (2, 6)).astype(np.int32)
    whole = run(params, CFG, tokens, np.ones((2, 6)))
    window = llama.init_cache(CFG, 2, 8)
    draft = cached.draft(None, window, jnp.zeros(2, jnp.int32))
    where = jnp.broadcast_to(jnp.arange(6), (2, 6))
    hidden, draft = llama.hidden_states(
        decode, CFG, tokens, where, np.ones((2, 6), bool), cache=draft
    )
    np.testing.assert_allclose(hidden, whole, **CLOSE)
    assert int(draft.filled) == 6


def test_remat_does_not_change_gradients():
    tokens, mask = np.arange(12).reshape(2, 6), np.ones((2, 6), bool)
    found = {}
    for remat in llama.REMAT:
        cfg = dataclasses.replace(CFG, remat=remat)
        params = llama.init_params(cfg, jax.random.key(0))

        def loss(params, cfg=cfg):
            return padded.text_logprobs(params, cfg, tokens, mask, chunk_tokens=5).sum()

        found[remat] = jax.jit(jax.value_and_grad(loss))(params)
    for remat in ("dots", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            found["none"],
            found[remat],
        )


def test_remat_keeps_what_it_says():
    """ "full" computes each product of a layer again, "dots" those of attention only."""
    tokens, mask = jnp.ones((2, 40), jnp.int32), jnp.ones((2, 40), bool)
    counts = {}
    for remat in llama.REMAT:
        cfg = dataclasses.replace(CFG, remat=remat)
        params = llama.init_params(cfg, jax.random.key(0))

        def loss(params, cfg=cfg):
            where = jnp.broadcast_to(jnp.arange(40), (2, 40))
            return llama.hidden_states(params, cfg, tokens, where, mask)[0].sum()

        jaxpr = str(jax.make_jaxpr(jax.grad(loss))(params))
        counts[remat] = jaxpr.count("dot_general[")
    # The body of the scan over layers stands once forwards and once backwards: seven
    # products of weights and two of attention, and twice as many transposes.
    assert counts["none"] == 9 + 18
    assert counts["dots"] == counts["none"] + 2
    assert counts["full"] in (counts["none"] + 8, counts["none"] + 9)


@pytest.mark.parametrize("remat", llama.REMAT)
def test_layers_one_by_one_are_those_of_a_loop(remat):
    tokens, mask = np.arange(12).reshape(2, 6), np.ones((2, 6), bool)
    found, loops = {}, []
    for unroll in (False, True):
        cfg = dataclasses.replace(CFG, remat=remat, unroll=unroll)
        params = llama.init_params(cfg, jax.random.key(0))

        def loss(params, cfg=cfg):
            return padded.text_logprobs(
                params, cfg, tokens, mask, chunk_tokens=99
            ).sum()

        program = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
        found[unroll] = program(params)
        loops.append(program.as_text().count(" while("))
    assert loops[0] == loops[1] + 2  # there and back
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *found.values(),
    )


@pytest.mark.parametrize(("remat", "runs"), [("none", 1), ("dots", 1), ("full", 2)])
def test_what_a_kernel_of_attention_gives_is_kept(remat, runs, monkeypatch):
    """As long as products are: only "full" runs cuDNN's way there again."""
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda asked: True)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91200)
    cfg = dataclasses.replace(
        CFG, remat=remat, attention="cudnn", dtype="bfloat16", head_dim=64
    )
    params = llama.init_params(cfg, jax.random.key(0))
    numbers = jnp.ones((2, 128), jnp.int32)

    def loss(params):
        where = jnp.broadcast_to(jnp.arange(128), (2, 128))
        return llama.hidden_states(params, cfg, numbers, where, numbers)[0].sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert jaxpr.count(f"{packed.KERNEL}[") == runs


@pytest.mark.parametrize("remat", llama.REMAT)
def test_layers_cut_as_bits_are_the_same_and_have_no_copy_in_float32(remat):
    wide = {"num_layers": 12, "embed_dim": 128, "mlp_dim": 512, "vocab_size": 64}
    cfg = dataclasses.replace(CFG, dtype="bfloat16", remat=remat, **wide)
    made = llama.init_params(cfg, jax.random.key(2))
    made["layers"] = jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if leaf.ndim > 2 else leaf,
        made["layers"],
    )
    tokens = jnp.arange(12, dtype=jnp.int32).reshape(2, 6)

    def states(embed, params, cut):
        own = dataclasses.replace(cfg, cut_as_bits=cut)
        where = jnp.broadcast_to(jnp.arange(6), tokens.shape)
        mask = jnp.ones(tokens.shape, bool)
        given = {**params, "embed": embed}
        return llama.hidden_states(given, own, tokens, where, mask)[0]

    def gradient(embed, params, cut):
        return jax.grad(lambda embed: jnp.sum(states(embed, params, cut) ** 2))(embed)

    taken = {}
    for function in (states, gradient):
        found = {}
        for cut in (False, True):
            program = jax.jit(function, static_argnums=2)
            program = program.lower(made["embed"], made, cut).compile()
            found[cut] = np.asarray(program(made["embed"], made), np.float32)
            size = program.memory_analysis().temp_size_in_bytes
            taken[function.__name__, cut] = size
        # XLA may multiply what was float32 for a while in another order.
        scale = np.abs(found[False]).max()
        np.testing.assert_allclose(found[True], found[False], atol=1e-2 * scale)
    if jax.default_backend() == "cpu":
        layers = sum(leaf.nbytes for leaf in jax.tree.leaves(made["layers"]))
        assert taken["states", True] < taken["states", False] - 1.5 * layers
        if remat == "full":
            assert taken["gradient", True] < taken["gradient", False] - 1.5 * layers


def test_rms_norm_by_hand():
    x, scale = jnp.array([3.0, 4.0]), jnp.array([1.0, 2.0])
    # mean square 12.5
    want = [3 / math.sqrt(12.5), 8 / math.sqrt(12.5)]
    np.testing.assert_allclose(llama.rms_norm(x, scale, 0.0), want, rtol=1e-6)
    tiny = llama.rms_norm(jnp.zeros(2), scale, 1e-6)
    np.testing.assert_array_equal(tiny, 0.0)


def test_rope_frequencies_by_hand():
    plain = attention.rope_frequencies(4, 100.0, None)
    np.testing.assert_allclose(plain, [1.0, 0.1], rtol=1e-6)


def test_llama3_scaling_by_hand():
    """factor 8, low 1, high 4, 8192 positions: the numbers of LLaMA 3.1."""
    scaling = (8.0, 1.0, 4.0, 8192)
    plain = attention.rope_frequencies(128, 500000.0, None).astype(np.float64)
    scaled = attention.rope_frequencies(128, 500000.0, scaling).astype(np.float64)
    turns = 8192 * plain / (2 * np.pi)  # full turns within the old context
    np.testing.assert_array_equal(scaled[turns >= 4], plain[turns >= 4])
    np.testing.assert_allclose(scaled[turns <= 1], plain[turns <= 1] / 8, rtol=1e-6)
    # Frequency 31 of 64: theta^(-62/128) = 0.00173605, 2.26345 turns, so the part
    # kept is (2.26345 - 1) / 3 = 0.42115, the rest is divided by 8: 0.42115 + 0.07236.
    assert plain[31] == pytest.approx(0.00173605, rel=1e-4)
    assert scaled[31] == pytest.approx(0.00173605 * 0.49351, rel=1e-4)
    assert (np.diff(scaled) < 0).all()


def test_rotation_depends_on_distance_alone():
    frequencies = attention.rope_frequencies(8, 10000.0, None)
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in range(2))

    def score(at_q, at_k):
        turned = [
            attention.rotate(
                x, attention.rope_angles(jnp.array([[at]], jnp.int32), frequencies)
            )
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-5)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def test_grouped_queries_equal_repeated_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (1, 5, 4, 8))
    k, v = (jax.random.normal(key, (1, 5, 2, 8)) for key in keys[1:])
    mask = jnp.ones((1, 5), bool)
    kinds = {"kernel": "xla", "block": 0, "dtype": "float32"}
    grouped = attention.causal_attention(q, k, v, mask, **kinds)
    full = attention.causal_attention(
        q, jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2), mask, **kinds
    )
    np.testing.assert_allclose(grouped, full, **CLOSE)
    scores = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 2, axis=2)) / math.sqrt(8)
    scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    oracle = np.einsum("bnts,bsnh->btnh", weights, np.repeat(v, 2, axis=2))
    np.testing.assert_allclose(grouped, oracle.reshape(1, 5, 32), **CLOSE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_kv_heads", 3, "num_heads=4 must be a multiple of num_kv_heads=3"),
        ("dtype", "float16", "dtype='float16'; accepted: bfloat16, float32"),
        ("remat", "some", "remat='some'; accepted: none, dots, full"),
        ("attention_block", -1, "attention_block=-1; accepted: 0 or more"),
        ("reach", -1, "reach=-1; accepted: 0 or more"),
        ("attention", "flash", "attention='flash'; accepted: xla, cudnn, splash"),
        ("attention", "cudnn", "needs dtype='bfloat16', got 'float32'"),
        ("attention", "splash", "attention='splash' needs dtype='bfloat16'"),
    ],
)
def test_config_refuses_wrong_numbers(field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CFG, **{field: value})


def test_presets_have_their_published_sizes():
    sizes = {  # billions of parameters
        "llama-7b": 6.738,
        "llama-13b": 13.016,
        "llama-30b": 32.529,
        "llama-65b": 65.286,
        "llama2-7b": 6.738,
        "llama3-8b": 8.030,
        "tinyllama-1.1b": 1.100,
        "smollm2-135m": 0.13452,
    }
    for name, billions in sizes.items():
        specs = llama.param_specs(presets.get_preset(name))
        leaves = jax.tree.leaves(specs, is_leaf=lambda x: hasattr(x, "axes"))
        count = sum(math.prod(leaf.shape) for leaf in leaves)
        assert count / 1e9 == pytest.approx(billions, rel=5e-4), name
    with pytest.raises(ValueError, match="unknown model preset 'gpt'; accepted: tiny"):
        presets.get_preset("gpt")
