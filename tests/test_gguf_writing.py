"""GGUF files of ours: read by us, by the gguf package, and by llama.cpp."""

import dataclasses
import json
import pathlib
import types

import family_models
import gguf as gguf_package
import jax
import numpy as np
import others
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from rlcd_jax import tree
from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer, gguf_fields, tokenizer
from rlcd_jax.weights import exchange, gguf, gguf_writing, read_again, resolve

ABOUT_TEXTS = [*read_again.TEXTS, "Tell me of 2019 and 24,000.", "\u4eba \U0001f642"]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A function from a family's name to its tiny model, read once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = resolve.resolve_model(family_models.write(name, folder), folder)
            made[name] = read_again.Source(
                model.load_params(), model.cfg, model.load_tokenizer(), "policy", name
            )
        return made[name]

    return get


def write(source, path, dtype="float32"):
    lines = exchange.write(source, exchange.Target(path, dtype, 1e9))
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return lines


@pytest.mark.parametrize("name", family_models.FAMILIES)
def test_what_is_written_is_what_is_read(name, family, tmp_path):
    source = family(name)
    lines = write(source, tmp_path / "m.gguf")
    assert lines[0] == f"wrote {tmp_path / 'm.gguf'}: {name}, as a GGUF file"
    model = resolve.resolve_model(f"gguf:{tmp_path / 'm.gguf'}", tmp_path)
    assert model.cfg == source.cfg  # LLaMA 3's rope scaling too, of other numbers
    again, own = model.load_tokenizer(), source.text_tokenizer
    assert [*map(again.encode, ABOUT_TEXTS)] == [*map(own.encode, ABOUT_TEXTS)]
    assert again.end_of_turn == own.end_of_turn if own.chat_template else True
    left, right = map(tree.flatten_names, (model.load_params(), source.params))
    for path in right:
        np.testing.assert_array_equal(left[path], right[path], err_msg=path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_matrices_are_rounded_and_norms_are_not(dtype, family, tmp_path):
    source = family("llama3_chat")
    lines = write(source, tmp_path / "m.gguf", dtype)
    assert f"rounding the weights to {dtype} moved a logit by" in lines[-2]
    assert "most likely next tokens of a text" in lines[-1]
    kinds = {}
    for tensor in gguf_package.GGUFReader(tmp_path / "m.gguf").tensors:
        kinds.setdefault(tensor.tensor_type.name, set()).add(tensor.name)
    short = {"float16": "F16", "bfloat16": "BF16"}[dtype]
    assert kinds.keys() == {short, "F32"} and len(kinds[short]) == 16
    assert {"blk.0.attn_norm.weight", "output_norm.weight"} <= kinds["F32"]
    assert "rope_freqs.weight" in kinds["F32"]


def test_the_package_reads_the_numbers_and_the_rows_in_pairs(family, tmp_path):
    source = family("smollm2")
    write(source, tmp_path / "m.gguf")
    reader = gguf_package.GGUFReader(tmp_path / "m.gguf")
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "llama"
    assert said["tokenizer.ggml.pre"] == "smollm"
    assert said["tokenizer.ggml.add_bos_token"] is False
    assert said["llama.attention.head_count_kv"] == 3
    assert said["tokenizer.chat_template"] == source.text_tokenizer.chat_template
    held = {tensor.name: tensor.data for tensor in reader.tensors}
    rows = source.params["layers"]["k"][1]  # [3 * 4, 36]: two halves of two a head
    np.testing.assert_array_equal(held["blk.1.attn_k.weight"][4:8], rows[[4, 6, 5, 7]])
    assert "output.weight" not in held  # tied
    unknown = said["tokenizer.ggml.token_type"][0]
    assert unknown == gguf_package.TokenType.CONTROL


def test_rows_that_are_no_tokens_are_named_unused(family, tmp_path):
    source = family("tinyllama")
    cfg = dataclasses.replace(source.cfg, vocab_size=source.cfg.vocab_size + 3)
    params = jax.tree.map(np.asarray, llama.init_params(cfg, jax.random.key(0)))
    write(dataclasses.replace(source, cfg=cfg, params=params), tmp_path / "m.gguf")
    model = resolve.resolve_model(f"gguf:{tmp_path / 'm.gguf'}", tmp_path)
    assert model.load_tokenizer().vocab_size == cfg.vocab_size


def test_a_changed_number_is_noticed_and_nothing_is_left(family, tmp_path, monkeypatch):
    source, own = family("llama2"), gguf_writing.tensors

    def spoilt(params, cfg):
        for name, values in own(params, cfg):
            yield name, values + 0.5 * (name == "blk.1.attn_k.weight")

    monkeypatch.setattr(gguf_writing, "tensors", spoilt)
    said = r"self_attn.k_proj.weight, read again, differs from the source in \d+ of"
    with pytest.raises(ValueError, match=said):
        exchange.write(source, exchange.Target(tmp_path / "m.gguf", "float32", 1e9))
    monkeypatch.setattr(gguf_writing, "tensors", own)
    monkeypatch.setattr(gguf, "permute", lambda weight, num_heads: weight)
    with pytest.raises(ValueError, match="q_proj.weight, read again, differs"):
        exchange.write(source, exchange.Target(tmp_path / "m.gguf", "float32", 1e9))
    monkeypatch.undo()
    merges = gguf_fields._merges
    monkeypatch.setattr(gguf_fields, "_merges", lambda model: merges(model)[5:])
    with pytest.raises(ValueError, match="the tokenizer, read again, has other ids of"):
        smol = family("smollm2")
        exchange.write(smol, exchange.Target(tmp_path / "m.gguf", "float32", 1e9))
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_and_a_model_of_scores_are_refused(family, tmp_path):
    (tmp_path / "m.gguf").write_text("")
    with pytest.raises(ValueError, match="is there already; give the name of a new"):
        exchange.Target(tmp_path / "m.gguf", "float32", 1e9)
    source = family("llama2")
    scores = dataclasses.replace(source, role="value")
    with pytest.raises(ValueError, match="a value model gives scores.*without .gguf"):
        exchange.write(scores, exchange.Target(tmp_path / "n.gguf", "float32", 1e9))


def own_tokenizer(**changes):
    """Return a small byte-level tokenizer, some of its rules changed."""
    vocab = {byte: i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    merges = changes.pop("merges", [("a", "b")])
    vocab |= {left + right: len(vocab) for left, right in merges}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = tokenizers.AddedToken("</s>", special=True, normalized=False)
    backend.add_special_tokens([changes.pop("end", end)])
    for name, value in changes.items():
        setattr(backend, name, value)
    return tokenizer.Tokenizer(backend, eos_ids=[backend.token_to_id("</s>")])


def test_what_gguf_has_no_place_for_is_named():
    assert gguf_fields.of_tokenizer(own_tokenizer(), 300)["tokenizer.ggml.pre"] == (
        "gpt-2"
    )
    greedy = tokenizers.AddedToken("</s>", special=True, rstrip=True)
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for changes, said in (
        ({"merges": []}, "joins no bytes to longer pieces"),
        ({"normalizer": normalizers.NFC()}, "changes a text before it is split"),
        ({"pre_tokenizer": whole}, "splits a text by .'ByteLevel'., none of the rules"),
        ({"end": greedy}, "the token '</s>' takes blanks beside it"),
    ):
        with pytest.raises(ValueError, match=said):
            gguf_fields.of_tokenizer(own_tokenizer(**changes), 300)
    one = byte_tokenizer.make(presets.get_preset("tiny").vocab_size)
    with pytest.raises(ValueError, match="write a Hugging Face folder instead"):
        gguf_fields.of_tokenizer(one, one.vocab_size)


def test_merges_that_no_scores_give_are_refused(family):
    one = family("llama2").text_tokenizer
    backend = one.parts().backend
    state = json.loads(backend.to_str())
    merges = state["model"]["merges"]
    made = [left + right for left, right in merges]
    del merges[next(n for n, one in enumerate(made) if made.count(one) > 1)]
    last = tokenizers.Tokenizer.from_str(json.dumps(state))
    again = tokenizer.Tokenizer(last, bos_id=1, eos_ids=[2])
    with pytest.raises(ValueError, match="not those of a SentencePiece vocabulary"):
        gguf_fields.of_tokenizer(again, again.vocab_size)


@pytest.mark.parametrize("name", ["llama2", "tinyllama", "llama3_chat", "smollm2"])
def test_llama_cpp_gives_the_same_ids_logits_and_text(name, family, tmp_path):
    source = family(name)
    write(source, tmp_path / "m.gguf")
    question = {"path": str(tmp_path / "m.gguf"), "texts": ABOUT_TEXTS}
    question |= {"logits": True, "count": 8}
    for answer in others.ask("llama_cpp", "llama_cpp_reads.py", question):
        for text, told in zip(ABOUT_TEXTS, answer["texts"], strict=True):
            ids = source.text_tokenizer.encode(text)
            count = len(ids)
            assert told["ids"][:count] == ids
            if text not in read_again.TEXTS[:2]:
                continue
            found = read_again.outputs(source.params, source, told["ids"])
            np.testing.assert_allclose(told["logits"], found[:count], atol=1e-3)
            # Each token that it went on with is our most likely one there.
            assert found[count - 1 : -1].argmax(-1).tolist() == told["ids"][count:]


@pytest.mark.skipif(not pathlib.Path("/proc").exists(), reason="no /proc")
def test_a_file_that_was_read_takes_no_room(tmp_path):
    def resident():
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        line = next(one for one in lines if one.startswith("RssFile"))
        return 1024 * int(line.split()[1])

    path, size = tmp_path / "tensors", 2**25
    path.write_bytes(bytes(range(256)) * (size // 256))
    reader = types.SimpleNamespace(data=np.memmap(path, mode="r"))
    before = resident()
    total = int(reader.data.sum(dtype=np.int64))
    assert resident() - before > 0.9 * size
    gguf._let_go(reader)
    assert resident() - before < 0.1 * size
    assert int(reader.data.sum(dtype=np.int64)) == total
