"""Tests of experiments.weights: its words and its exit status."""

import jax
import pytest

from experiments import weights as command
from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer
from rlcd_jax.weights import hf


def refused(arguments):
    """Run a command line that ends in a message for people."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2


def test_import_says_what_was_checked_and_refuses_to_write_again(tmp_path, capsys):
    cfg = presets.get_preset("tiny")
    params = llama.init_params(cfg, jax.random.key(0))
    one = byte_tokenizer.make(cfg.vocab_size)
    hf.export(tmp_path / "source", params, cfg, tokenizer=one)
    out = str(tmp_path / "out")
    arguments = ["import", "--model", f"hf:{tmp_path / 'source'}", "--out", out]
    command.main(arguments)
    assert "read again, are the same" in capsys.readouterr().out
    refused(arguments)
    assert "is not empty; give a new folder" in capsys.readouterr().err


def test_errors_are_one_line_of_words(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out.safetensors")]
    for arguments in (
        ["import", "--model", "smollm2-135m", *out],
        ["export", "--checkpoint", str(tmp_path / "no"), *out],
    ):
        refused(arguments)
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        assert "give the name of a folder" in said
