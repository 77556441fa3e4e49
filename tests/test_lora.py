"""LoRA: adapters on a shared base are the models that they stand for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mesh_world
import numpy as np
import numpy_llama
import pytest
import runs

from rlcd_jax import sharding, tree
from rlcd_jax.job import setup, trained_form
from rlcd_jax.models import heads, llama, lora, presets, products, table
from rlcd_jax.ppo import learning
from rlcd_jax.training import train_state
from rlcd_jax.weights import config_json, hf

CFG = dataclasses.replace(presets.get_preset("tiny"), dtype="float32")
SIZES = lora.Lora(rank=3, alpha=6.0, targets=("down", "q", "v", "o"))
IDS = np.random.default_rng(5).integers(0, 250, (2, 12), dtype=np.int32)
SECTION = {"lora__rank": 2, "lora__alpha": 8.0}
MODELS = ("policy", "value")  # that PPO trains


@functools.cache
def base():
    drawn = llama.init_params(CFG, jax.random.key(0))
    return jax.tree.map(lambda x: x * (3.0 if x.ndim > 1 else 1.0), drawn)


def drawn(specs, seed=1):
    """Return adapters, and heads, of which no part is zero."""
    leaves, structure = jax.tree.flatten(specs, is_leaf=lambda x: hasattr(x, "axes"))
    rng = np.random.default_rng(seed)
    return structure.unflatten(
        [0.05 * rng.normal(size=spec.shape).astype(np.float32) for spec in leaves]
    )


def adapters(seed=1):
    return drawn(lora.param_specs(CFG, SIZES), seed)


def traced_logits(params, cfg=CFG):
    mask = jnp.ones(IDS.shape, bool)
    positions = heads.positions_of(mask)
    hidden, _ = llama.hidden_states(params, cfg, IDS, positions, mask)
    return llama.logits(params, cfg, hidden)


def logits(params, cfg=CFG):
    return np.asarray(traced_logits(params, cfg))


# --- the model ------------------------------------------------------------------------


def test_adapters_that_are_not_trained_yet_leave_the_base_to_the_last_bit():
    fresh = table.init_from_specs(lora.param_specs(CFG, SIZES), jax.random.key(2))
    assert all(np.any(pair["a"]) for pair in fresh["layers"].values())
    laid = lora.lay(base(), fresh, SIZES.scale)
    np.testing.assert_array_equal(logits(laid), logits(base()))


def test_a_starts_as_peft_starts_it():
    fresh = table.init_from_specs(lora.param_specs(CFG, SIZES), jax.random.key(2))
    for name, pair in fresh["layers"].items():
        bound = 1 / np.sqrt(pair["a"].shape[-1])
        assert 0.9 * bound < np.abs(pair["a"]).max() <= bound, name
        assert not np.any(pair["b"]), name


def test_merged_equals_unmerged_and_both_a_model_in_numpy():
    laid = lora.lay(base(), adapters(), SIZES.scale)
    merged = lora.merge(laid)
    plain = {}
    for name, pair in adapters()["layers"].items():
        a, b = (np.asarray(pair[x], np.float64) for x in "ab")
        sums = [SIZES.alpha / SIZES.rank * y @ x for x, y in zip(a, b, strict=True)]
        plain[name] = np.asarray(base()["layers"][name], np.float64) + np.stack(sums)
    assert set(plain) == set(SIZES.targets)
    for name, wanted in plain.items():
        np.testing.assert_allclose(merged["layers"][name], wanted, atol=1e-6)
    np.testing.assert_allclose(logits(laid), logits(merged), atol=2e-5)
    weights = dict(hf.disassemble(merged, CFG, "policy"))
    config = config_json.to_dict(CFG, "float32")
    said = numpy_llama.logprobs(weights, config, IDS[0])
    ours = jax.nn.log_softmax(logits(laid)[0])
    np.testing.assert_allclose(ours, said, atol=2e-5)
    assert np.abs(logits(laid) - logits(base())).max() > 0.02


def test_decode_form_of_adapted_weights_is_that_of_the_merged():
    laid = lora.lay(base(), adapters(), SIZES.scale)
    one, other = (llama.decode_form(x, CFG) for x in (laid, lora.merge(laid)))
    for name, leaf in tree.flatten_names(one).items():
        np.testing.assert_allclose(leaf, tree.flatten_names(other)[name], atol=1e-6)
    np.testing.assert_allclose(logits(one), logits(laid), atol=2e-5)


@pytest.mark.parametrize("remat", llama.REMAT)
def test_gradients_are_those_of_whole_weights_projected_on_the_adapters(remat):
    cfg = dataclasses.replace(CFG, remat=remat)
    weighs = np.random.default_rng(3).normal(size=(*IDS.shape, CFG.vocab_size))

    def loss(params):
        mask = jnp.ones(IDS.shape, bool)
        hidden, _ = llama.hidden_states(
            params, cfg, IDS, heads.positions_of(mask), mask
        )
        return jnp.mean(llama.logits(params, cfg, hidden) * weighs)

    def on_base(trained):
        return loss(lora.lay(base(), trained, SIZES.scale))

    found = jax.jit(jax.grad(on_base))(adapters())
    merged = lora.merge(lora.lay(base(), adapters(), SIZES.scale))
    dense = jax.jit(jax.grad(loss))(merged)["layers"]
    for name, pair in adapters()["layers"].items():
        whole = np.asarray(dense[name], np.float64)
        a, b = (np.asarray(pair[x], np.float64) for x in "ab")
        wanted = {
            "a": SIZES.scale * np.einsum("lor,loi->lri", b, whole),
            "b": SIZES.scale * np.einsum("loi,lri->lor", whole, a),
        }
        for part, values in wanted.items():
            # Float32 by another order of sums, through two layers.
            got, atol = found["layers"][name][part], 1e-4 * np.abs(values).max()
            np.testing.assert_allclose(got, values, atol=atol, err_msg=name)


def test_no_gradient_of_a_frozen_matrix_is_made():
    cfg = dataclasses.replace(CFG, remat="none", num_layers=1)
    tokens = np.zeros((4, 64), np.int32)

    def loss(trained, frozen):
        params = frozen if trained is None else lora.lay(frozen, trained, 1.0)
        mask = jnp.ones(tokens.shape, bool)
        out = llama.hidden_states(params, cfg, tokens, heads.positions_of(mask), mask)
        return jnp.sum(out[0] ** 2)

    own = lora.Lora(1, 1.0, lora.TARGETS)
    shapes = table.abstract_params(llama.param_specs(cfg))
    small = table.abstract_params(lora.param_specs(cfg, own))

    def flops(function, *args):
        done = jax.jit(function).lower(*args).compile().cost_analysis()
        return done["flops"]

    forward = flops(lambda frozen: loss(None, frozen), shapes)
    whole = flops(jax.grad(lambda frozen: loss(None, frozen)), shapes)
    with_adapters = flops(jax.grad(loss), small, shapes)
    products_of_weights = 2 * 4 * 64 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert forward > products_of_weights
    assert whole - with_adapters > 0.8 * products_of_weights


# --- trained on a shared base ---------------------------------------------------------


def world(shape=(1, 1, 1, 1), model="grouped"):
    """Return a job of `mesh_world` whose base is the world's policy."""
    job = mesh_world.make_job(shape, model, **SECTION)
    whole = mesh_world.make_policy(job)
    return dataclasses.replace(job, load_base=lambda: whole)


def placed(job, params, specs):
    return jax.device_put(params, sharding.param_shardings(specs, job.mesh))


def start(job, *items):
    """Return trained adapters of some models, of which no part is zero."""
    tables = {item: trained_form.specs(job, item) for item in items}
    return {n: placed(job, drawn(own, len(n)), own) for n, own in tables.items()}


def trained(job, updates=2):
    """Return the adapters of PPO's models after some updates, and all its metrics."""
    program, rows = learning.make_trainer(job), []
    state = program.create(start(job, *MODELS))
    for _ in range(updates):
        state, shown = program.update(state, mesh_world.BATCHES["policy"](job))
        rows.append({name: float(value) for name, value in shown.items()})
    return jax.device_get(state.params), rows


def test_models_on_a_shared_base_learn_as_those_on_copies():
    job = world()
    program = learning.make_trainer(job)
    params, batch = start(job, *MODELS), mesh_world.BATCHES["policy"](job)
    own = {item: jax.tree.map(jnp.copy, job.load_base()) for item in MODELS}

    def loss_of_copies(trained, copies, batch):
        whole = {
            name: lora.lay(copies[name], one, job.lora.scale)
            for name, one in trained.items()
        }
        return learning.ppo_loss(job)(whole, batch)

    before = jax.device_get(job.load_base())
    state = program.create(params)
    optimizer = program.optimizer

    @jax.jit
    def update(state, copies, batch):
        return train_state.update(
            state,
            batch,
            optimizer,
            lambda trained, part: loss_of_copies(trained, copies, part),
            num_micro=1,
            weight=program.weight,
        )

    with jax.set_mesh(job.mesh):
        wanted, told = update(state, own, batch)
    found, shown = program.update(state, batch)
    for name, value in told.items():
        np.testing.assert_allclose(shown[name], value, rtol=1e-5, err_msg=name)
    both = (tree.flatten_names(one.params) for one in (found, wanted))
    for (name, one), other in zip(next(both).items(), next(both).values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)
    for name, leaf in tree.flatten_names(jax.device_get(job.load_base())).items():
        np.testing.assert_array_equal(leaf, tree.flatten_names(before)[name])


def test_eight_devices_train_adapters_as_one_does():
    job = world((1, 2, 2, 2))  # three key/value heads on two devices
    own, rows = trained(job)
    alone, told = trained(world())
    for name, leaf in tree.flatten_names(own).items():
        other = tree.flatten_names(alone)[name]
        np.testing.assert_allclose(leaf, other, atol=2e-5, err_msg=name)
    for one, other in zip(rows, told, strict=True):
        assert one["loss/total"] == pytest.approx(other["loss/total"], rel=1e-4)


def test_greedy_replies_of_adapters_are_alike_on_a_mesh_and_merged():
    said = []
    for shape in ((1, 1, 1, 1), (1, 2, 1, 4)):
        job = world(shape)
        pair = start(job, "policy")["policy"]
        laid = lora.lay(job.load_base(), pair, job.lora.scale)
        said.append(mesh_world.greedy(job, laid))
    job = world()
    laid = lora.lay(job.load_base(), start(job, "policy")["policy"], job.lora.scale)
    assert said[0] == said[1] == mesh_world.greedy(job, lora.merge(laid))
    assert said[0] != mesh_world.greedy(job, job.load_base())


def test_moments_and_checkpoints_are_of_what_is_trained():
    job = world()
    program = learning.make_trainer(job)
    count = sum(
        tree.count_params(table.abstract_params(trained_form.specs(job, item)))
        for item in MODELS
    )
    saved = program.saved_bytes
    assert saved["policy"] + saved["value"] == 4 * count
    assert 8 * count <= saved["optimizer"] <= 8 * count + 100
    state = program.create(start(job, *MODELS))
    models = program.models(state)
    weight = models["policy"]["layers"]["q"]
    assert isinstance(weight, products.Adapted)
    assert weight.weight is job.load_base()["layers"]["q"]
    assert models["value"]["trunk"]["layers"]["q"].weight is weight.weight
    assert models["value"]["trunk"]["embed"] is models["policy"]["embed"]


def test_one_base_in_the_dtype_of_products_is_loaded_once():
    with runs.devices_by_mesh():
        config = runs.tiny_config(model__dtype="bfloat16", **SECTION)
        job = setup.load_job(config)
        whole = setup.load_job(runs.tiny_config(model__dtype="bfloat16"))
    held, master = job.load_base(), whole.load_base()
    assert held is job.load_base() and master is not whole.load_base()
    for name, leaf in tree.flatten_names(held).items():
        wanted = jnp.float32 if "norm" in name else jnp.bfloat16
        assert leaf.dtype == wanted, name
        one = tree.flatten_names(master)[name].astype(wanted)
        np.testing.assert_array_equal(leaf, one, err_msg=name)
