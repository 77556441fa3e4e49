"""Damaged model files: each is read as what it says, or refused with a ValueError."""

import datetime
import json
import struct

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from test_weights import write_gguf

from rlcd_jax import tree
from rlcd_jax.models import llama, presets
from rlcd_jax.weights import fields, hf, resolve

CFG = presets.get_preset("tiny")
WIDE = st.integers(-(2**70), 2**70)
JSON = st.recursive(
    st.none() | st.booleans() | WIDE | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
# A place as a share of the bytes, and what is put there.
BYTES = st.sampled_from([b"", b"\0", b"\xff", b"\x80", b"{", b'"', b"9", b"\xff" * 8])
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), BYTES | st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)

fuzzed = hypothesis.settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=datetime.timedelta(seconds=20),  # none hangs
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(np.asarray, llama.init_params(CFG, jax.random.key(0)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, params):
    """A model in shards; each example writes one of its files anew."""
    out = tmp_path_factory.mktemp("fuzz") / "model"
    hf.export(out, params, CFG, max_shard_bytes=60_000)
    return out


@pytest.fixture
def rewritten(request, folder):
    """Return the path and the content of a file; it is put back afterwards."""
    path = sorted(folder.glob(request.param))[0]
    kept = path.read_bytes()
    yield path, kept
    path.write_bytes(kept)


def file_named(name):
    return pytest.mark.parametrize("rewritten", [name], indirect=True)


def edited(data, edits, end):
    """Return the bytes with pieces of their beginning, up to ``end``, overwritten."""
    for share, piece in edits:
        at = int(share * end)
        cut = piece == b""
        data = data[:at] if cut else data[:at] + piece + data[at + len(piece) :]
    return data


def read(spec, folder):
    """Return config and weights, or None when they are refused as they should be."""
    try:
        model = resolve.resolve_model(spec, folder)
        found = model.load_params()
    except ValueError as error:
        assert "/model" in str(error), error  # it names the file
        return None
    for name, leaf in tree.flatten_names(found).items():
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all(), name
    return model.cfg, found


@file_named("config.json")
@fuzzed
@hypothesis.given(data=st.data())
def test_read_config_of_any_fields(rewritten, data):
    path, kept = rewritten
    raw = json.loads(kept)
    optional = ["rope_parameters", "rope_scaling", "sliding_window", "architectures"]
    known = st.sampled_from([*raw, *optional])
    changes = data.draw(st.dictionaries(known, JSON, min_size=1, max_size=3))
    path.write_text(json.dumps(raw | changes))
    try:
        cfg = hf.read_config(path.parent)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert 1 <= cfg.num_layers <= fields.MOST_LAYERS
    assert 1 <= cfg.vocab_size <= fields.MOST_IDS
    assert cfg.num_heads % cfg.num_kv_heads == 0 and cfg.head_dim % 2 == 0
    assert 0 < cfg.norm_eps <= 1 and 0 < cfg.rope_theta <= fields.MOST_THETA
    numbers = (cfg.num_layers, cfg.embed_dim, cfg.mlp_dim, cfg.max_positions)
    assert all(type(number) is int for number in numbers)


@pytest.mark.parametrize("rewritten", ["config.json", hf.INDEX], indirect=True)
@fuzzed
@hypothesis.given(edits=EDITS)
def test_json_files_with_other_bytes(rewritten, params, edits):
    path, kept = rewritten
    path.write_bytes(edited(kept, edits, len(kept)))
    found = read(f"hf:{path.parent}", path.parent)
    if found is not None:
        assert jax.tree.all(jax.tree.map(np.array_equal, found[1], params))


@file_named(hf.INDEX)
@fuzzed
@hypothesis.given(data=st.data())
def test_an_index_that_says_anything(rewritten, params, data):
    path, kept = rewritten
    raw = json.loads(kept)
    listed = sorted(raw["weight_map"])
    files = st.sampled_from(sorted(set(raw["weight_map"].values()))) | JSON
    names = st.sampled_from(listed) | st.text(max_size=8)
    raw["weight_map"] |= data.draw(st.dictionaries(names, files, max_size=3))
    path.write_text(json.dumps(raw))
    found = read(f"hf:{path.parent}", path.parent)
    if found is not None:
        assert jax.tree.all(jax.tree.map(np.array_equal, found[1], params))


@file_named("model-00001-of-*.safetensors")
@fuzzed
@hypothesis.given(edits=EDITS)
def test_safetensors_with_another_head(rewritten, edits):
    path, kept = rewritten
    end = 8 + struct.unpack("<Q", kept[:8])[0]
    path.write_bytes(edited(kept, edits, end))
    found = read(f"hf:{path.parent}", path.parent)
    assert found is None or found[0] == hf.read_config(path.parent)


def test_gguf_with_other_bytes(tmp_path, params):
    path = write_gguf(tmp_path / "model.gguf", CFG, params)
    kept = path.read_bytes()
    end = kept.index(b"output_norm.weight") + 60  # of the list of tensors

    @fuzzed
    @hypothesis.given(edits=EDITS)
    def check(edits):
        path.write_bytes(edited(kept, edits, end))
        found = read(f"gguf:{path}", tmp_path)
        if found is not None:
            assert 1 <= found[0].num_layers <= fields.MOST_LAYERS

    check()
