"""Tests of experiments.weights: both commands and their check."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import weights as command
from rlcd_jax import checkpoint, tree
from rlcd_jax import tokenizer as tk
from rlcd_jax.models import llama, presets
from rlcd_jax.weights import hf


def same(left, right):
    left, right = tree.flatten_names(left), tree.flatten_names(right)
    return all(np.array_equal(left[name], right[name]) for name in left | right)


@pytest.fixture
def source(tmp_path):
    """A folder with the weights of a random model and a tokenizer."""
    cfg = presets.get_preset("tiny")
    params = llama.init_params(cfg, jax.random.key(0))
    one = tk.byte_tokenizer(cfg.vocab_size)
    hf.export(tmp_path / "source", params, cfg, tokenizer=one)
    return tmp_path / "source"


def test_import_writes_a_folder_and_checks_it(source, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["import", "--model", f"hf:{source}", "--out", str(out)]
    assert command.main(arguments) == 0
    assert "read again, are the same" in capsys.readouterr().out
    cfg = hf.read_config(out)
    assert same(hf.load_params(out, cfg), hf.load_params(source, cfg))
    assert command.main(arguments) == 1
    assert "is not empty; give a new folder" in capsys.readouterr().err


def test_export_writes_the_policy_of_a_run(tmp_path, capsys):
    cfg = presets.get_preset("tiny")
    params = llama.init_params(cfg, jax.random.key(1))
    stage = tmp_path / "run" / "policy"
    with checkpoint.Checkpointer(stage / "checkpoints", max_to_keep=None) as saver:
        saver.save(3, {"policy": jax.tree.map(lambda leaf: leaf + 1, params)}, {})
        saver.save(7, {"policy": params}, {})
    spec = {"model": {"spec": "random:tiny"}}
    (stage / "config.json").write_text(json.dumps(spec))
    for name, step in (("latest", ""), ("third", "3")):
        out = tmp_path / name
        place = str(stage / "checkpoints" / step)
        arguments = ["--checkpoint", place, "--out", str(out), "--dtype", "bfloat16"]
        assert command.main(["export", *arguments]) == 0
        assert "rounding the weights to bfloat16" in capsys.readouterr().out
    latest = hf.load_params(tmp_path / "latest", cfg)
    third = hf.load_params(tmp_path / "third", cfg)
    np.testing.assert_allclose(latest["embed"], params["embed"], rtol=2**-8)
    np.testing.assert_allclose(third["embed"], params["embed"] + 1, rtol=2**-8)


def test_export_errors_name_the_remedy(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert command.main(["export", "--checkpoint", str(tmp_path / "no"), *out]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    with checkpoint.Checkpointer(tmp_path / "c", max_to_keep=None) as saver:
        saver.save(1, {"policy": {"a": np.zeros(2)}}, {})
    assert command.main(["export", "--checkpoint", str(tmp_path / "c"), *out]) == 1
    assert "name the run's model with --model" in capsys.readouterr().err


def test_check_folder_notices_one_changed_number(source, tmp_path):
    cfg = hf.read_config(source)
    whole = command.Source(hf.load_params(source, cfg), cfg, tk.byte_tokenizer(264))
    command.check_folder(source, whole, "float32")
    spoiled = tmp_path / "spoiled"
    shutil.copytree(source, spoiled)
    tensors = safetensors.numpy.load_file(spoiled / "model.safetensors")
    tensors["model.norm.weight"][5] += 0.01
    safetensors.numpy.save_file(tensors, spoiled / "model.safetensors")
    with pytest.raises(ValueError, match="its logits differ from the source's by"):
        command.check_folder(spoiled, whole, "float32")
