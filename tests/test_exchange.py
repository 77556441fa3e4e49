"""Tests of weights.exchange: models brought in and handed out, read again each time."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from rlcd_jax import checkpoint, tree
from rlcd_jax.models import heads, llama, presets
from rlcd_jax.text import byte_tokenizer
from rlcd_jax.weights import exchange, files, hf, read_again, resolve

CFG = presets.get_preset("tiny")
SCALARS = {
    "preference": "LlamaForSequenceClassification",
    "value": "LlamaForSequenceClassification",
}


def numbers(seed, role="policy", bias=0.25):
    key = jax.random.key(seed)
    params = llama.init_params(CFG, key)
    if role != "policy":
        params = heads.scalar_from_trunk(CFG, params, key)
        params["head"]["bias"] = params["head"]["bias"] + bias
    return jax.tree.map(np.asarray, params)


def source_of(role="policy", **changes):
    one = byte_tokenizer.make(CFG.vocab_size)
    source = read_again.Source(numbers(0, role), CFG, one, role, "a test")
    return dataclasses.replace(source, **changes)


def target_of(path, dtype="float32", **options):
    return exchange.Target(path, dtype, 10**9, **options)


def assert_same(left, right):
    left, right = tree.flatten_names(left), tree.flatten_names(right)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture
def folder(tmp_path):
    """A folder with the weights of a random model and a tokenizer."""
    exchange.write(source_of(), target_of(tmp_path / "source"))
    return tmp_path / "source"


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of both stages."""
    saved = {
        "preference": {"preference": numbers(1, "preference")},
        "policy": {"policy": numbers(2), "value": numbers(3, "value")},
    }
    for stage, items in saved.items():
        place = tmp_path / "run" / stage
        with checkpoint.Checkpointer(place / "checkpoints", max_to_keep=None) as saver:
            saver.save(3, jax.tree.map(lambda leaf: np.asarray(leaf + 1), items), {})
            saver.save(7, items, {})
        config = {"model": {"spec": "random:tiny"}, "policy": {"choose": "last"}}
        (place / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def export(run, stage, item, target):
    return exchange.export_checkpoint(
        run / stage, item, None, target, run / "cache", print
    )


def test_import_writes_the_model_that_was_named(folder, tmp_path):
    out = tmp_path / "deep" / "out"
    spec = f"hf:{folder}"
    lines = exchange.import_model(spec, target_of(out), tmp_path, print)
    assert lines[0] == f"wrote {out}: {spec}, as LlamaForCausalLM"
    assert "read again, are the same" in lines[1]
    assert_same(hf.load_params(out, CFG), hf.load_params(folder, CFG))
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_import_of_spoiled_weights_writes_nothing(folder, tmp_path):
    path = folder / files.WEIGHTS
    held = safetensors.numpy.load_file(path)
    held["model.layers.1.mlp.up_proj.weight"][3, :2] = np.nan, np.inf
    safetensors.numpy.save_file(held, path)
    said = r"layers.1.mlp.up_proj.weight: 2 of \d+ values are not finite"
    with pytest.raises(ValueError, match=said):
        exchange.import_model(
            f"hf:{folder}", target_of(tmp_path / "o"), tmp_path, print
        )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_export_takes_the_latest_step_or_the_one_named(run, tmp_path):
    for name, place in (("latest", "policy"), ("third", "policy/checkpoints/3")):
        target = target_of(tmp_path / name, "bfloat16")
        lines = export(run, place, "policy", target)
        assert "rounding the weights to bfloat16 moved a logit by" in lines[-2]
    wanted = numbers(2)["embed"]
    for name, more in (("latest", 0), ("third", 1)):
        found = hf.load_params(tmp_path / name, CFG)["embed"]
        np.testing.assert_allclose(found, wanted + more, rtol=2**-8)


@pytest.mark.parametrize(("item", "kind"), SCALARS.items())
def test_export_of_a_scalar_model_is_transformers_class(item, kind, run, tmp_path):
    out = tmp_path / "out"
    stage = "preference" if item == "preference" else "policy"
    with pytest.raises(ValueError, match="has the bias 0.25.*with --drop_bias"):
        export(run, stage, item, target_of(out))
    assert not out.exists()
    lines = export(run, stage, item, target_of(out, drop_bias=True))
    assert lines[0].endswith(f"as {kind}")
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [kind] and len(config["id2label"]) == 1
    held = safetensors.numpy.load_file(out / files.WEIGHTS)
    wanted = numbers({"preference": 1, "value": 3}[item], item)
    np.testing.assert_array_equal(held["score.weight"][0], wanted["head"]["weight"])
    assert "lm_head.weight" not in held
    # The class has no bias, so it is said and kept beside.
    assert "score.bias" not in held and config["score_bias"] == 0.25
    assert "its numbers are less by that" in lines[-1]
    assert_same(hf.load_scalar_params(out, CFG, item), wanted)
    with pytest.raises(ValueError, match=f"{kind}.*accepted: LlamaForCausalLM"):
        resolve.resolve_model(f"hf:{out}", tmp_path)


@pytest.mark.parametrize("item", ["optimizer", "policies", ""])
def test_export_of_what_is_no_model_says_what_is(item, run, tmp_path):
    with pytest.raises(ValueError, match="accepted: policy, preference, value"):
        export(run, "policy", item, target_of(tmp_path / "out"))
    with pytest.raises(ValueError, match="has no item 'value'; it has preference"):
        export(run, "preference", "value", target_of(tmp_path / "out"))


def test_export_errors_name_the_remedy(run, tmp_path):
    target = target_of(tmp_path / "out")
    with pytest.raises(ValueError, match="holds no checkpoint; name RUN/STAGE"):
        export(run, "absent", "policy", target)
    config = run / "policy" / "config.json"
    config.write_text("{}")
    with pytest.raises(ValueError, match="names no model .* with --model"):
        export(run, "policy", "policy", target)
    config.unlink()
    with pytest.raises(ValueError, match="name the run's model with --model"):
        export(run, "policy", "policy", target)
    assert not target.path.exists()


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_write_refuses_what_is_not_finite(value, tmp_path):
    params = numbers(0)
    gate = params["layers"]["gate"] = params["layers"]["gate"].copy()
    gate[1, 0, :3] = value
    said = r"model.layers.1.mlp.gate_proj.weight: 3 of \d+ values are not finite"
    with pytest.raises(ValueError, match=said):
        exchange.write(source_of(params=params), target_of(tmp_path / "out"))
    for role in SCALARS:
        params = numbers(0, role)
        params["head"]["bias"] = np.asarray(value)
        with pytest.raises(ValueError, match="score.bias: 1 of 1 values"):
            exchange.write(source_of(role, params=params), target_of(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_write_refuses_what_the_dtype_cannot_hold(tmp_path):
    params = numbers(0)
    params["final_norm"] = params["final_norm"] * 1e5
    source = source_of(params=params)
    with pytest.raises(
        ValueError, match="norm.weight: 64 of 64 values are too large for fl"
    ):
        exchange.write(source, target_of(tmp_path / "out", "float16"))
    assert not list(tmp_path.iterdir())
    exchange.write(source, target_of(tmp_path / "out", "bfloat16"))


def test_target_refuses_a_place_that_cannot_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match="m.bin is the name of a file.*ends in .gguf"):
        target_of(tmp_path / "m.bin")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is a file; give a new folder"):
        target_of(tmp_path / "file")
    with pytest.raises(ValueError, match="is not empty; give a new folder"):
        target_of(tmp_path)
    with pytest.raises(ValueError, match="dtype='int8'; accepted"):
        target_of(tmp_path / "out", "int8")
    for size in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_shard_bytes"):
            exchange.Target(tmp_path / "out", "float32", size)
    with pytest.raises(ValueError, match="could not be written.*nothing of it is left"):
        exchange.write(source_of(), target_of(tmp_path / "file" / "out"))


def test_check_folder_notices_one_changed_number(folder, tmp_path):
    read_again.check_folder(folder, source_of(), "float32")
    spoiled = tmp_path / "spoiled"
    shutil.copytree(folder, spoiled)
    tensors = safetensors.numpy.load_file(spoiled / files.WEIGHTS)
    tensors["model.norm.weight"][5] += 0.01
    safetensors.numpy.save_file(tensors, spoiled / files.WEIGHTS)
    said = "model.norm.weight, read again, differs from the source in 1 of 64"
    with pytest.raises(ValueError, match=said):
        read_again.check_folder(spoiled, source_of(), "float32")


def test_check_folder_notices_another_config_and_tokenizer(folder):
    other = source_of(cfg=dataclasses.replace(CFG, rope_theta=20000.0))
    with pytest.raises(ValueError, match="the config of .*read again, is"):
        read_again.check_folder(folder, other, "float32")
    other = source_of(text_tokenizer=byte_tokenizer.make(259))
    with pytest.raises(ValueError, match="the tokenizer, read again, has other"):
        read_again.check_folder(folder, other, "float32")


def test_written_tokenizers_name_a_class_of_transformers_4_and_5(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
