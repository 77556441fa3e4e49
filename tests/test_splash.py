"""Splash attention, whose kernel is interpreted here: its own runs are on TPUs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from rlcd_jax import sharding
from rlcd_jax.checks import refusals
from rlcd_jax.decode import programs
from rlcd_jax.job import kernels
from rlcd_jax.models import attention, footprint, llama, splash
from rlcd_jax.planning import chips, plan

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
ROUNDED = 0.02  # of an array's norm: operands have eight bits
LENGTH = 150  # one block of 256, a part of it filled up


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(splash, "INTERPRET", True)


def rows_of_texts(length=LENGTH):
    """Return rows of several texts, of one text, of none, and with unseen tokens."""
    rows = np.zeros((4, length), np.int32)
    rows[0, :40], rows[0, 40:130], rows[0, 130:140] = 1, 2, 3
    rows[1] = 1
    rows[2, :30], rows[2, 30:50], rows[2, 60:61], rows[2, 61:120] = 5, -5, 2, 1
    return rows


def run(mask, shape, kv_heads, *, kernel, dtype="float32", mesh=None, reach=0):
    """Return results where tokens count, and the gradients of queries, keys, values."""
    rng = np.random.default_rng(0)
    heads_of, width = shape
    sizes = [(*mask.shape, n, width) for n in (heads_of, kv_heads, kv_heads)]
    arrays = [jnp.asarray(rng.standard_normal(size), jnp.float32) for size in sizes]
    counts = np.asarray(mask != 0)[:, :, None]
    weights = rng.standard_normal((*mask.shape, heads_of * width)) * counts

    def total(arrays, mask):
        out = attention.causal_attention(
            *arrays, mask, kernel=kernel, block=0, dtype=dtype, reach=reach
        )
        return jnp.sum(out * weights), out

    program = jax.jit(jax.grad(total, has_aux=True))
    if mesh is None:
        grads, out = program(arrays, jnp.asarray(mask))
    else:
        place = sharding.batch_sharding(mesh)
        with jax.set_mesh(mesh):
            grads, out = program(*jax.device_put((arrays, jnp.asarray(mask)), place))
    assert np.all(np.isfinite(out))
    if kernel == "splash":
        assert np.all(np.where(counts, 0.0, out) == 0)
    return [np.asarray(out * counts), *map(np.asarray, grads)]


def agree(mask, shape, kv_heads, **how):
    ours = run(mask, shape, kv_heads, kernel="splash", **how)
    truth = run(mask, shape, kv_heads, kernel="xla")
    for one, other in zip(ours, truth, strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
    return ours


@pytest.mark.parametrize(("kv_heads", "width"), [(1, 64), (2, 128), (4, 64)])
def test_the_kernel_attends_as_masked_scores_do(kv_heads, width):
    """Packed rows; no gradient goes where no text is, or to what is not seen."""
    numbers = rows_of_texts()
    _, d_q, d_k, d_v = agree(numbers, (4, width), kv_heads)
    assert not np.any(d_q[numbers == 0])
    assert not np.any(d_k[numbers <= 0]) and not np.any(d_v[numbers <= 0])


def test_padding_before_and_behind_a_text_is_not_seen():
    mask = np.ones((3, 128), bool)
    mask[0, 100:] = mask[1, :20] = False
    agree(mask, (2, 64), 1)


def test_rows_of_several_blocks_are_read_as_one():
    length = splash.LARGEST + 90
    assert splash.padded(length) == 2 * splash.block_tokens(length) == 768
    agree(rows_of_texts(length), (2, 64), 1)


@pytest.mark.parametrize(
    ("length", "block", "padded"),
    [(1, 128, 128), (128, 128, 128), (500, 512, 512), (684, 384, 768)]
    + [(1024, 512, 1024), (1152, 384, 1152), (1408, 512, 1536), (4096, 512, 4096)],
)
def test_blocks_are_whole_and_of_one_size(length, block, padded):
    assert (splash.block_tokens(length), splash.padded(length)) == (block, padded)
    assert splash.keys_computed(length) == (padded + block) / 2


def test_blocks_farther_away_than_a_text_is_long_are_left_out():
    length, longest = 700, 129
    numbers = np.zeros((2, length), np.int32)
    for text, start in enumerate(range(0, length - longest, longest), start=1):
        numbers[0, start : start + longest] = text
        numbers[1, start + 20 : start + longest - text] = text
    assert splash.block_tokens(length) == 384
    agree(numbers, (2, 64), 1, reach=longest)
    assert splash.keys_computed(2048, 129) == 512 * (1 + 2 + 2 + 2) / 4
    assert splash.keys_computed(2048, 514) == 512 * (1 + 2 + 3 + 3) / 4
    assert splash.keys_computed(2048, 2048) == splash.keys_computed(2048)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 4, 1), (2, 1, 4)])
def test_each_device_attends_for_its_own_rows_and_heads(sizes):
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])
    agree(rows_of_texts(), (4, 64), 4, mesh=mesh)


def close(ours, truth):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(truth), strict=True):
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        assert np.linalg.norm(one - other) <= ROUNDED * np.linalg.norm(other)


def tiny(**numbers):
    """Return a tiny model whose three key/value heads two devices cannot share."""
    return llama.LlamaConfig(
        vocab_size=264,
        num_layers=2,
        embed_dim=48,
        mlp_dim=64,
        num_heads=6,
        num_kv_heads=3,
        head_dim=8,
        **numbers,
    )


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_model_learns_as_with_masked_scores(remat):
    """On a mesh whose tensor axis does not divide the model's heads, too."""
    cfg, numbers = tiny(remat=remat), jnp.asarray(rows_of_texts())
    params = llama.init_params(cfg, jax.random.key(0))
    tokens = jnp.asarray(np.random.default_rng(0).integers(5, 260, numbers.shape))
    where = jnp.broadcast_to(jnp.arange(LENGTH), numbers.shape)

    def run(**how):
        own = dataclasses.replace(cfg, **how)

        def loss(params):
            hidden, _ = llama.hidden_states(params, own, tokens, where, numbers)
            return jnp.sum(jnp.where((numbers != 0)[:, :, None], hidden, 0.0)[..., :9])

        return jax.jit(jax.value_and_grad(loss))(params)

    truth = run()
    close(run(attention="splash"), truth)
    if remat == "full":
        with jax.set_mesh(sharding.make_mesh(2, 2, 2)):
            close(run(attention="splash", tensor_ways=2), truth)


def test_a_prefill_is_that_of_masked_scores():
    cfg, rng = tiny(), np.random.default_rng(0)
    weights = llama.decode_form(llama.init_params(cfg, jax.random.key(0)), cfg)
    length = np.asarray([16, 1, 9])

    def run(**how):
        own = dataclasses.replace(cfg, **how)
        program = functools.partial(programs.prefill, weights, cfg=own, part=None)
        offset = jnp.zeros(3, jnp.int32)
        return jax.jit(program)(tokens=tokens, offset=offset, length=length)

    tokens = jnp.asarray(rng.integers(5, 260, (3, 16)))
    there = np.arange(16) < length[:, None]
    ours, truth = run(attention="splash"), run()
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, truth)
    keys = [[np.moveaxis(k, 3, 1)[there] for k in one.k] for one in (ours, truth)]
    values = [[np.moveaxis(v, 2, 1)[there] for v in one.v] for one in (ours, truth)]
    close(*keys)
    close(*values)


@pytest.mark.parametrize(
    ("platform", "dtype", "chosen"),
    [("tpu", "bfloat16", "splash"), ("tpu", "float32", "xla")]
    + [("cpu", "bfloat16", "xla"), ("gpu", "bfloat16", "xla")],
)
def test_it_is_chosen_on_tpus_in_bfloat16(platform, dtype, chosen):
    cfg = kernels.configured(
        tiny(dtype=dtype),
        attention=kernels.AUTO,
        results=kernels.AUTO,
        backend=kernels.Backend(platform),
    )
    assert cfg.attention == chosen


def test_a_run_without_a_tpu_is_refused_before_its_first_stage(tmp_path):
    config = runs.tiny_config(model__dtype="bfloat16", model__attention="splash")
    with pytest.raises(ValueError) as refused:
        refusals.check_run(config, tmp_path, config.stages)
    assert (
        "model.attention='splash' needs a TPU, and this is for the platform 'cpu'; set "
        "model.attention='xla', or 'auto' for the one that fits"
    ) in str(refused.value)


def test_plans_for_tpus_count_no_scores():
    """What a pass makes grows with its tokens, and no faster, with and without grads."""
    topology = chips.parse_topology("v5e:1")
    cfg = plan.make_setting(runs.tiny_config(model__dtype="bfloat16"), topology).cfg
    assert cfg.attention == "splash"
    own, whole = dataclasses.replace(cfg, mlp_dim=1), {"attention_block": 0}
    scores = dataclasses.replace(own, attention="xla", **whole)
    for models in (0, 1):
        passes = [
            footprint.Pass(2, n, models, 0, 1, 1, platform="tpu") for n in (2048, 4096)
        ]
        short, long = (footprint.layer_bytes(own, one) for one in passes)
        assert long == 2 * short < footprint.layer_bytes(scores, passes[1]) / 4
    assert footprint.keys_computed(own, 2048) == (2048 + 512) / 2
