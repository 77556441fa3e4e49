"""A base in eight bits: what is rounded, who reads it, what is trained on it."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
import runs
import test_lora
import test_lora_run
import test_plan
import test_stages

from rlcd_jax import checkpoint, tree
from rlcd_jax.checks import rules
from rlcd_jax.job import roles, setup, trained_form, trainer, workspace
from rlcd_jax.models import frozen, lora, products, quantized
from rlcd_jax.planning import chips, compiled, plan
from rlcd_jax.weights import hf

CFG = test_lora.CFG
SECTION = test_lora_run.SECTION | {"lora__base": "int8"}


def by_qwix(weight):
    """Return a matrix after qwix has rounded it and brought it back."""
    told = qwix.quantize(weight, "int8", channelwise_axes=range(weight.ndim - 1))
    return qwix.dequantize(told)


def rounded(params):
    """Return a base in eight bits, and one of plain arrays of the same values."""
    eight = quantized.form(
        {**params, "layers": dict(params["layers"])},
        lambda _, weight: quantized.quantize(weight),
    )
    plain = {
        name: by_qwix(leaf) if leaf.ndim > 2 else leaf
        for name, leaf in params["layers"].items()
    }
    return eight, {**params, "layers": plain}


# --- the form -------------------------------------------------------------------------


def test_rows_are_rounded_to_their_largest():
    weight = np.array([[1.0, -2.55, 0.013], [0.0, 0.0, 0.0], [1e-3, 5e-4, 0.0]], "f")
    found = quantized.quantize(jnp.asarray(weight))
    assert found.values.dtype == jnp.int8 and found.scale.shape == (3, 1)
    assert found.scale[0, 0] == pytest.approx(2.55 / 127.5)
    values = np.abs(np.asarray(found.values, int))
    assert np.isin(values.max(axis=1), (127, 128, 0)).all()  # 127.5 is a tie
    np.testing.assert_array_equal(np.sort(values)[:, :2], [[1, 50], [0, 0], [0, 64]])
    back = products.matrix(found, "float32")
    assert np.all(np.abs(back - weight) <= np.asarray(found.scale) / 2 + 1e-9)


def test_it_is_what_qwix_has():
    weight = jax.random.normal(jax.random.key(3), (2, 8, 16))
    found = products.matrix(quantized.quantize(weight), "float32")
    np.testing.assert_array_equal(found, by_qwix(weight))


def test_specs_and_shapes_are_those_of_the_form():
    eight, _ = rounded(test_lora.base())
    told = tree.flatten_names(quantized.shapes(test_lora.base()))
    specs = tree.flatten_names(quantized.specs(CFG))
    for name, leaf in tree.flatten_names(eight).items():
        assert (told[name].shape, told[name].dtype) == (leaf.shape, leaf.dtype), name
        assert specs[name].shape == leaf.shape and len(specs[name].axes) == leaf.ndim
    assert set(told) == set(specs) == set(tree.flatten_names(eight))
    matrices = [
        n for n, leaf in tree.flatten_names(eight).items() if leaf.dtype == "i1"
    ]
    assert sorted(matrices) == sorted(f"layers/{n}/values" for n in lora.TARGETS)


def test_it_is_a_form_of_what_is_only_read():
    eight, _ = rounded(frozen.form(test_lora.base(), "bfloat16"))
    assert frozen.is_form(eight, "bfloat16")
    again = tree.flatten_names(frozen.form(eight, "bfloat16"))
    for name, leaf in tree.flatten_names(eight).items():
        assert again[name].dtype == leaf.dtype, name


# --- the model ------------------------------------------------------------------------


@pytest.mark.parametrize("remat", ["full", "dots", "none"])
def test_model_and_adapters_on_it_are_those_on_its_values(remat):
    cfg = dataclasses.replace(CFG, remat=remat)
    eight, plain = rounded(test_lora.base())
    np.testing.assert_allclose(
        test_lora.logits(eight, cfg), test_lora.logits(plain, cfg), atol=1e-5
    )
    assert np.any(test_lora.logits(plain) != test_lora.logits(test_lora.base()))

    def loss(pair, base):
        laid = lora.lay(base, pair, test_lora.SIZES.scale)
        return jnp.sum(jnp.sin(test_lora.traced_logits(laid, cfg)))

    own = test_lora.adapters()
    found, wanted = (jax.grad(loss)(own, base) for base in (eight, plain))
    for name, leaf in tree.flatten_names(found).items():
        other = tree.flatten_names(wanted)[name]
        np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_backward_pass_keeps_eight_bits():
    eight = quantized.quantize(jax.random.normal(jax.random.key(0), (32, 16)))
    x = jnp.ones((40, 16))
    _, back = jax.vjp(lambda x: products.product(x, eight, "bfloat16"), x)
    kept = [leaf.dtype for leaf in jax.tree.leaves(back) if leaf.shape == (32, 16)]
    assert kept == [jnp.int8]
    given = jax.random.normal(jax.random.key(1), (40, 32))
    (found,) = back(given)
    wanted = given @ products.matrix(eight, "float32")
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.05)


def test_decode_form_and_merged_are_of_its_values():
    eight, plain = (
        lora.lay(one, test_lora.adapters(), test_lora.SIZES.scale)
        for one in rounded(test_lora.base())
    )
    for found, wanted in (
        (lora.merge(eight), lora.merge(plain)),
        (
            test_lora.llama.decode_form(eight, CFG),
            test_lora.llama.decode_form(plain, CFG),
        ),
    ):
        for one, other in zip(
            jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-6)


# --- runs -----------------------------------------------------------------------------


def config(**fields):
    return runs.tiny_config(**SECTION, **fields)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Return the workdir of a whole run, all five stages; leave it as it is."""
    workdir = tmp_path_factory.mktemp("eight") / "run"
    runs.run(config(), workdir)
    return workdir


def test_a_run_comes_to_its_table(adapted):
    table = json.loads((adapted / "evaluate/table.json").read_text())
    assert {row["name"] for row in table["rows"]} == {"base", "distill", config().name}
    assert (
        test_lora_run.job_of(config()).load_base()["layers"]["q"].values.dtype
        == jnp.int8
    )


def test_pairs_are_drawn_from_the_model_as_it_is(adapted, tmp_path):
    runs.run(runs.tiny_config(), tmp_path, "simulate")
    pairs = (folder / "pairs/pairs.jsonl" for folder in (adapted, tmp_path))
    assert next(pairs).read_bytes() == next(pairs).read_bytes()


def test_who_draws_pairs_keeps_no_base_and_reads_it_as_it_is():
    with runs.devices_by_mesh():
        drawing = setup.load_job(config(), role=roles.GENERATOR)
        learning = setup.load_job(config(), role=roles.PREFERENCE)
    assert drawing.load_base() is not drawing.load_base()
    assert isinstance(drawing.load_base()["layers"]["q"], jax.Array)
    assert learning.load_base() is learning.load_base()
    assert drawing.base_hashes() == learning.base_hashes()


def test_resumed_equals_uninterrupted(adapted, tmp_path, monkeypatch):
    workdir = runs.copy_run(adapted, tmp_path / "run", "pairs")
    test_stages.stop_and_resume(
        monkeypatch,
        config(),
        workdir,
        "preference",
        trainer.Trainer,
        "update",
        calls=2,
    )
    step = checkpoint.latest_step(adapted / "preference/checkpoints")
    folders = (one / "preference/checkpoints" for one in (adapted, workdir))
    test_stages.assert_same_checkpoints(*folders, step)


def test_others_read_it_as_it_was_trained(adapted):
    whole, own = (
        test_lora_run.job_of(runs.tiny_config()),
        test_lora_run.job_of(config()),
    )
    folder = adapted / "policy/checkpoints"
    read, wanted = (trained_form.restore(j, folder, "policy") for j in (whole, own))
    np.testing.assert_array_equal(
        test_lora_run.logits(read, whole.cfg), test_lora_run.logits(wanted, own.cfg)
    )
    wide = test_lora_run.job_of(runs.tiny_config(**SECTION | {"lora__base": "compute"}))
    for read in (trained_form.restore, trained_form.trained):
        with pytest.raises(ValueError, match=r"set --config.lora.base=int8"):
            read(wide, folder, "policy")


def test_merged_export_is_the_model_that_was_trained(adapted, tmp_path):
    told = test_lora_run.export(adapted, tmp_path / "out")
    assert "merged in random:tiny" in told[0]
    job = test_lora_run.job_of(config())
    trained = trained_form.restore(job, adapted / "policy/checkpoints", "policy")
    read = hf.load_params(tmp_path / "out", job.cfg)
    sums = lora.merge(trained)["layers"]
    for name in lora.TARGETS:
        np.testing.assert_allclose(read["layers"][name], sums[name], atol=1e-7)


def test_eight_devices_read_it_as_one_does():
    fields = {
        "lora__rank": 2,
        "lora__base": "int8",
        "lora__targets": ("q", "o", "down"),
    }
    shapes = ({}, {"mesh__fsdp": 2, "mesh__tensor": 4})  # heads are spread on four
    found = []
    for shape in shapes:
        job = test_lora_run.job_of(runs.tiny_config(**fields, **shape))
        with jax.set_mesh(job.mesh):
            logits = jax.jit(lambda p, cfg=job.cfg: test_lora.traced_logits(p, cfg))
            found.append(np.asarray(logits(job.load_base())))
    np.testing.assert_allclose(*found, atol=2e-5)


def test_a_run_that_was_begun_before_there_was_a_choice_goes_on():
    before = test_lora_run.SECTION
    wide, eight = (
        workspace.stage_config(one, "policy")["lora"]
        for one in (runs.tiny_config(**before), config())
    )
    assert set(wide) == {"rank", "alpha", "targets"}
    assert eight == {**wide, "base": "int8"}


def test_it_is_refused_where_nothing_is_frozen_or_the_package_is_missing(monkeypatch):
    alone = runs.tiny_config(lora__base="int8")
    told = "\n".join(rules.problems(alone, alone.stages))
    assert "lora.base='int8' is of the base of adapters" in told
    own = config()
    assert not rules.problems(own, own.stages)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = "\n".join(rules.problems(own, own.stages))
    assert 'pip install "rlcd_jax[int8]"' in told


# --- plans ----------------------------------------------------------------------------


def test_llama_7b_by_hand():
    """Seven matrices of each of 32 layers: a byte a number, four a row."""
    fields = {"lora__rank": 16, "policy__micro_batch": 32}
    topology = chips.parse_topology("h100:1")
    wide, eight = (
        plan.make_plan(test_plan.paper("llama-7b", **fields, lora__base=base), topology)
        for base in ("compute", "int8")
    )
    numbers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    rows = 32 * (4 * 4096 + 2 * 11008 + 4096)
    for stage, name in (("preference", "update"), ("policy", "update policy")):
        before, after = (
            test_plan.program(one, stage, name).sizes["frozen"] for one in (wide, eight)
        )
        assert before - after == numbers - 4 * rows
    for stage in eight.stages:
        assert not stage.problem and eight.verdict(stage) == plan.FITS
    made = test_plan.program(eight, "preference", "quantize")
    assert made.total > 2 * numbers


@pytest.mark.parametrize("stage", ["preference", "policy"])
def test_update_arguments_are_the_compilers(stage):
    own = {"lora__rank": 2, "model__dtype": "bfloat16", "lora__base": "int8"}
    setting = test_plan.on_mesh(runs.tiny_config(**test_plan.MESH, **own))
    for planned in test_plan.updates(plan.plan_stage(setting, stage)):
        measured = compiled.measure(planned, setting.job.mesh)
        assert not measured.problem
        assert planned.arguments == measured.arguments
