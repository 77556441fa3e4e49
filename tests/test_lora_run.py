"""Runs with LoRA: all stages, resumed, restored by others, merged and for PEFT."""

import json

import numpy as np
import others
import pytest
import runs
import test_stages

from experiments import weights
from rlcd_jax import checkpoint, metrics, tree
from rlcd_jax.job import setup, trained_form, trainer
from rlcd_jax.models import heads, llama, lora, products
from rlcd_jax.preference import model
from rlcd_jax.stages import train_policy
from rlcd_jax.weights import exchange, hf, peft

SECTION = {"lora__rank": 2, "lora__alpha": 8.0, "lora__targets": ("v", "q", "down")}
TEXTS = np.random.default_rng(0).integers(0, 250, (3, 20), dtype=np.int32)


def config(**fields):
    return runs.tiny_config(**SECTION, **fields)


def job_of(config):
    with runs.devices_by_mesh():
        return setup.load_job(config)


@pytest.fixture(scope="module")
def jobs():
    """What the stages of the run have loaded."""
    return []


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, jobs):
    """Return the workdir of a whole run, all five stages; leave it as it is."""
    workdir = tmp_path_factory.mktemp("adapted") / "run"
    load = setup.load_job
    with pytest.MonkeyPatch.context() as patch:

        def noted(*args, **kwargs):
            jobs.append(load(*args, **kwargs))
            return jobs[-1]

        patch.setattr(setup, "load_job", noted)
        runs.run(config(), workdir)
    return workdir


def logits(params, cfg):
    mask = np.ones(TEXTS.shape, bool)
    hidden, _ = llama.hidden_states(params, cfg, TEXTS, heads.positions_of(mask), mask)
    return np.asarray(llama.logits(params, cfg, hidden))


def test_run_with_adapters_comes_to_its_table(adapted):
    table = json.loads((adapted / "evaluate/table.json").read_text())
    names = {row["name"] for row in table["rows"]}
    assert names == {"base", "distill", config().name}
    for stage in ("preference", "distill", "policy"):
        summary = json.loads((adapted / stage / "summary.json").read_text())
        assert 0 < summary["trained_parameters"] < summary["frozen_parameters"] / 5
        assert summary["frozen_parameters"] == tree.count_params(
            job_of(config()).load_base()
        )


def test_checkpoints_hold_what_was_trained_and_it_has_moved(adapted):
    job = job_of(config())
    for stage, items in {
        "preference": ("preference",),
        "distill": ("policy",),
        "policy": ("policy", "value"),
    }.items():
        folder = adapted / stage / "checkpoints"
        for item in items:
            found, sizes = trained_form.trained(job, folder, item)
            assert sizes == job.lora
            named = tree.flatten_names(found)
            assert {name.rpartition("/")[2] for name in named} <= {
                *("a", "b", "weight", "bias")
            }
            moved = [np.any(x) for name, x in named.items() if name.endswith("/b")]
            assert len(moved) == 3 and all(moved), (stage, item)


def test_no_byte_of_the_base_has_changed(adapted, jobs):
    fresh = tree.flatten_names(job_of(config()).load_base())
    assert len(jobs) >= 5
    for job in jobs:
        held = tree.flatten_names(job.load_base())
        for name, leaf in held.items():
            np.testing.assert_array_equal(leaf, fresh[name], err_msg=name)


@pytest.mark.parametrize("stage", ["preference", "policy"])
def test_stage_resumed_equals_uninterrupted(adapted, tmp_path, monkeypatch, stage):
    before = ("pairs",) if stage == "preference" else ("pairs", "preference")
    workdir = runs.copy_run(adapted, tmp_path / "run", *before)
    owner, name = (trainer.Trainer, "update")
    if stage == "policy":
        owner, name = train_policy, "improve"
    calls = 2 if stage == "preference" else 1
    test_stages.stop_and_resume(
        monkeypatch, config(), workdir, stage, owner, name, calls=calls
    )
    step = checkpoint.latest_step(adapted / stage / "checkpoints")
    folders = (one / stage / "checkpoints" for one in (adapted, workdir))
    test_stages.assert_same_checkpoints(*folders, step)
    assert runs.metric_rows(adapted, stage) == runs.metric_rows(workdir, stage)


def test_value_starts_from_the_adapters_of_the_preference_model(adapted):
    job = job_of(config())
    start = train_policy.start_params(job, adapted)
    own = model.restore_trained(job, adapted)
    for name, leaf in tree.flatten_names(start["value"]["trunk"]).items():
        np.testing.assert_array_equal(leaf, tree.flatten_names(own["trunk"])[name])
    assert not np.any(start["value"]["head"]["weight"])
    assert not np.any(start["policy"]["layers"]["q"]["b"])


def test_a_run_without_adapters_reads_models_that_have_them(adapted):
    """As evaluate.checkpoints and evaluate.preference_judge do."""
    whole, own = job_of(runs.tiny_config()), job_of(config())
    folder = adapted / "policy/checkpoints"
    read, wanted = (trained_form.restore(j, folder, "policy") for j in (whole, own))
    assert isinstance(read["layers"]["q"], products.Adapted)
    np.testing.assert_array_equal(logits(read, whole.cfg), logits(wanted, own.cfg))
    judges = [model.restore(j, adapted) for j in (whole, own)]
    mask = np.ones(TEXTS.shape, bool)
    said = [heads.scalar_per_token(one, whole.cfg, TEXTS, mask) for one in judges]
    np.testing.assert_array_equal(*said)


def test_adapters_are_refused_on_another_base(adapted, tmp_path):
    other = job_of(config(seed=43))
    with pytest.raises(ValueError, match="trained on another base model: embed"):
        trained_form.restore(other, adapted / "policy/checkpoints", "policy")
    workdir = runs.copy_run(adapted, tmp_path / "run", "pairs", "preference", "policy")
    with pytest.raises(ValueError, match=r"lora.rank: was 2, now 3"):
        runs.run(runs.tiny_config(**SECTION | {"lora__rank": 3}), workdir, "policy")
    with pytest.raises(ValueError, match=r"lora.rank: was 2, now .?absent"):
        runs.run(runs.tiny_config(), workdir, "policy")


def test_a_policy_on_pairs_has_the_base_as_its_reference(adapted, tmp_path):
    workdir = runs.copy_run(adapted, tmp_path / "run", "pairs")
    own = {"direct__learning_rate": 1e-2, "direct__batch_size": 2}
    told = runs.run(config(direct__epochs=2, **own), workdir, "direct")["direct"]
    rows = metrics.read_metrics(workdir, "direct")
    assert rows[0]["direct/loss"] == pytest.approx(np.log(2.0), rel=1e-4)
    assert rows[-1]["direct/loss"] < rows[0]["direct/loss"]
    assert 0 < told["trained_parameters"] < told["frozen_parameters"] / 5
    job = job_of(config())
    found = trained_form.restore(job, workdir / "direct/checkpoints", "policy")
    assert isinstance(found["layers"]["q"], products.Adapted)


def export(adapted, out, *flags, item="policy"):
    stage = "preference" if item == "preference" else "policy"
    args = ["export", "--checkpoint", str(adapted / stage), "--item", item]
    parsed = weights._parser().parse_args([*args, "--out", str(out), *flags])
    return weights.write(parsed)


def test_merged_export_is_the_model_that_was_trained(adapted, tmp_path):
    told = export(adapted, tmp_path / "out")
    assert "merged in random:tiny" in told[0]
    job = job_of(config())
    trained = trained_form.restore(job, adapted / "policy/checkpoints", "policy")
    read = hf.load_params(tmp_path / "out", job.cfg)
    np.testing.assert_allclose(
        logits(read, job.cfg), logits(trained, job.cfg), atol=1e-5
    )
    sums = lora.merge(trained)["layers"]["down"]
    np.testing.assert_allclose(read["layers"]["down"], sums, atol=1e-7)


@pytest.mark.parametrize("item", ["policy", "preference", "value"])
def test_adapters_are_written_in_the_layout_of_peft(adapted, tmp_path, item):
    flags = ["--adapters"]
    if item == "value":  # PPO moves its bias
        with pytest.raises(ValueError, match="has the bias .* with --drop_bias"):
            export(adapted, tmp_path / "out", *flags, item=item)
        flags.append("--drop_bias")
    told = export(adapted, tmp_path / "out", *flags, item=item)
    assert "for PEFT on random:tiny" in told[0] and "checked" in told[1]
    said = json.loads((tmp_path / "out" / peft.CONFIG).read_text())
    assert said["target_modules"] == ["v_proj", "q_proj", "down_proj"]
    assert (said["r"], said["lora_alpha"]) == (2, 8.0)
    tensors = peft.safetensors.numpy.load_file(tmp_path / "out" / peft.WEIGHTS)
    layer = "base_model.model.model.layers.1"
    assert tensors[f"{layer}.self_attn.q_proj.lora_A.weight"].shape == (2, 64)
    assert tensors[f"{layer}.mlp.down_proj.lora_B.weight"].shape == (64, 2)
    assert ("base_model.model.score.weight" in tensors) == (item != "policy")
    assert len(tensors) == 2 * 3 * 2 + (item != "policy")
    assert "PeftModel" in (tmp_path / "out" / "README.md").read_text()


def test_a_model_trained_whole_has_no_adapters_to_write(finished_run, tmp_path):
    with pytest.raises(ValueError, match="trained whole .* leave out --adapters"):
        export(finished_run, tmp_path / "out", "--adapters")
    with pytest.raises(ValueError, match="adapters are written as a folder"):
        export(finished_run, tmp_path / "out.gguf", "--adapters")
    assert not list(tmp_path.iterdir())


def test_adapters_that_are_damaged_in_a_file_are_told(adapted, tmp_path):
    export(adapted, tmp_path / "out", "--adapters")
    source = exchange.read_checkpoint(
        adapted / "policy", "policy", None, tmp_path, print
    )
    tensors = peft.safetensors.numpy.load_file(tmp_path / "out" / peft.WEIGHTS)
    name = "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"
    tensors[name] = tensors[name] * 2
    peft.safetensors.numpy.save_file(tensors, tmp_path / "out" / peft.WEIGHTS)
    with pytest.raises(ValueError, match="v_proj.lora_A.weight, read again"):
        peft.check_folder(
            tmp_path / "out", source.adapters, source.cfg, "policy", "float32"
        )


@pytest.mark.parametrize("item", ["policy", "preference", "value"])
def test_peft_loads_them_and_says_the_same(adapted, tmp_path, item):
    others.need("peft")
    job = job_of(config())
    hf.export(tmp_path / "base", job.load_base(), job.cfg)
    export(adapted, tmp_path / "out", "--adapters", "--drop_bias", item=item)
    stage = "preference" if item == "preference" else "policy"
    ours = trained_form.restore(job, adapted / stage / "checkpoints", item)
    if item == "policy":
        wanted = logits(ours, job.cfg)
    else:
        mask = np.ones(TEXTS.shape, bool)
        origin = json.loads((tmp_path / "out" / peft.ORIGIN).read_text())
        wanted = heads.scalar_per_token(ours, job.cfg, TEXTS, mask)
        wanted = np.asarray(wanted) - origin["score_bias"]
    question = {
        "base": str(tmp_path / "base"),
        "folder": str(tmp_path / "out"),
        "item": item,
        "ids": TEXTS.tolist(),
    }
    for told in others.ask("peft", "peft_reads.py", question):
        last = wanted if item == "policy" else wanted[:, -1:]
        np.testing.assert_allclose(told["logits"], last, atol=2e-5)
        if item == "value":
            np.testing.assert_allclose(told["values"], wanted, atol=2e-5)
