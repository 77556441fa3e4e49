"""Loaders of what others wrote: models, judges, launchers; see `fuzz_records`."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import struct
import tempfile
from collections.abc import Callable
from typing import Any

import damage
import gguf
import jax
import numpy as np
import strictly as s
import tokenizer_families
import tokenizers
import transformers
from fuzz_records import Case, json_damage
from hypothesis import strategies as st
from judged import completion
from test_weights import write_gguf

from rlcd_jax.job import hosts, tpu_metadata
from rlcd_jax.judging import chat_api, completions, wire
from rlcd_jax.models import llama, presets
from rlcd_jax.text import tokenizer as tk
from rlcd_jax.weights import config_json, files, hf, resolve

CFG = presets.get_preset("tiny")


@functools.cache
def _params() -> Any:
    return jax.tree.map(np.asarray, llama.init_params(CFG, jax.random.key(0)))


def _size(high: int, low: int = 1) -> s.Spec:
    return s.count(low, high)


def _above_0(high: float) -> s.Spec:
    def spec(given: Any) -> float:
        s.need(s.number(0, high)(given) > 0)
        return float(given)

    return spec


# Fields that are not asked for may be anything, as of other versions of transformers.
_WIDE = 2**31 - 1
CONFIG: dict[str, s.Spec] = {
    "num_hidden_layers": _size(1024),
    "hidden_size": _size(2**18),
    "intermediate_size": _size(2**20),
    "num_attention_heads": _size(4096),
    "num_key_value_heads": _size(4096),
    "head_dim": _size(4096),
    "vocab_size": _size(2**22),
    "max_position_embeddings": _size(_WIDE),
    "rms_norm_eps": _above_0(1.0),
    "rope_theta": _above_0(1e15),
    "tie_word_embeddings": s.switch,
}
DEFAULTS = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
}
NEEDED = (
    *("num_hidden_layers", "hidden_size", "intermediate_size"),
    *("num_attention_heads", "vocab_size"),
)
FIXED = {
    "model_type": ("llama",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish", None),
    "partial_rotary_factor": (1, 1.0, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "sliding_window": (None,),
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
_FREE = ("use_cache", "torch_dtype", "dtype", "transformers_version", "_name_or_path")


def config(folder: pathlib.Path) -> Case:
    path = folder / "config.json"
    raw = config_json.to_dict(CFG, "float32") | {
        "rope_scaling": LLAMA3,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": None,
        "use_cache": True,
    }

    def oracle(data: bytes) -> dict:
        found = s.value(s.decoded(data, bom=False))
        s.need(isinstance(found, dict))
        given = {name: one for name, one in found.items() if one is not None}
        for name, accepted in FIXED.items():
            s.one_of(*accepted)(found.get(name))
        s.need(set(NEEDED) <= given.keys())
        kinds = given.get("architectures", [])
        s.need(isinstance(kinds, list))
        s.need({str(one).lower() for one in kinds} <= {"llamaforcausallm"})
        whole = {n: spec(given[n]) for n, spec in CONFIG.items() if n in given}
        whole = DEFAULTS | whole
        whole.setdefault("num_key_value_heads", whole["num_attention_heads"])
        if "head_dim" not in whole:
            s.need(whole["hidden_size"] % whole["num_attention_heads"] == 0)
            whole["head_dim"] = whole["hidden_size"] // whole["num_attention_heads"]
        s.need(whole["num_attention_heads"] % whole["num_key_value_heads"] == 0)
        s.need(whole["head_dim"] % 2 == 0)
        ids = (found.get("bos_token_id"), found.get("eos_token_id"))
        for one in (ids[0], *(ids[1] if isinstance(ids[1], list) else [ids[1]])):
            s.maybe(s.count(0, whole["vocab_size"] - 1))(one)
        s.maybe(s.count(-1, whole["vocab_size"] - 1))(found.get("pad_token_id"))
        s.maybe(s.switch)(found.get("use_cache"))
        s.maybe(s.text)(found.get("torch_dtype"))
        return whole | {"rope_scaling": _rope(given.get("rope_scaling", {}), whole)}

    def read() -> dict:
        cfg = dataclasses.asdict(hf.read_config(folder))
        scaling = cfg.pop("rope_scaling")
        names = {
            "num_hidden_layers": "num_layers",
            "hidden_size": "embed_dim",
            "intermediate_size": "mlp_dim",
            "num_attention_heads": "num_heads",
            "num_key_value_heads": "num_kv_heads",
            "rms_norm_eps": "norm_eps",
            "tie_word_embeddings": "tie_embeddings",
            "max_position_embeddings": "max_positions",
        }
        whole = {name: cfg[names.get(name, name)] for name in CONFIG}
        return whole | {"rope_scaling": scaling and list(scaling.values())}

    return Case(path, json_damage(raw), read, oracle)


def _rope(given: Any, whole: dict) -> list | None:
    s.need(isinstance(given, dict))
    given = {name: one for name, one in given.items() if one is not None}
    s.need(not any(isinstance(one, dict) for one in given.values()))
    if given.get("rope_theta") is not None:
        s.need(given["rope_theta"] == whole["rope_theta"])
    kind = given.get("rope_type") or given.get("type") or "default"
    s.one_of("default", "llama3")(kind)
    s.need(given.get("type", kind) == kind)
    fields = [name for name in LLAMA3 if name != "rope_type"]
    if kind == "default":
        s.need(not given.keys() & set(fields))
        return None
    numbers = [_above_0(_WIDE)(given.get(name)) for name in fields[:3]]
    s.need(numbers[0] >= 1 and numbers[2] > numbers[1])
    return [*numbers, s.count(1)(given.get(fields[3]))]


@functools.cache
def _shards() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        hf.export(pathlib.Path(place, "m"), _params(), CFG, max_shard_bytes=60_000)
        return {p.name: p.read_bytes() for p in pathlib.Path(place, "m").iterdir()}


def _model(folder: pathlib.Path) -> pathlib.Path:
    model = folder / "model"
    model.mkdir()
    for name, content in _shards().items():
        (model / name).write_bytes(content)
    return model


def _heads(folder: pathlib.Path) -> dict[str, str]:
    """Return the file of each tensor, by the heads of all files in a folder."""
    where = {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        where |= {name: path.name for name in json.loads(content[8 : 8 + size])}
    where.pop("__metadata__", None)
    return where


def index(folder: pathlib.Path) -> Case:
    model = _model(folder)
    path = model / hf.INDEX
    where = _heads(model)

    def oracle(data: bytes) -> dict:
        found = s.value(s.decoded(data, bom=False))
        s.need(isinstance(found, dict) and found.keys() <= {"metadata", "weight_map"})
        facts = found.get("metadata", {})
        s.need(isinstance(facts, dict))
        size = s.number(0)(facts.get("total_size", 0))
        s.need(size == int(size))
        listed = found.get("weight_map")
        s.need(isinstance(listed, dict) and listed == where)
        return where

    def read() -> dict:
        cfg = hf.read_config(model)
        hf.check_weights(model, cfg)
        return {n: p.name for n, p in files.weight_map(model).items()}

    return Case(
        path, json_damage(json.loads(path.read_text())), read, oracle, said="model"
    )


def safetensors(folder: pathlib.Path) -> Case:
    model = _model(folder)
    path = sorted(model.glob("model-00001-of-*.safetensors"))[0]
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]

    def head(data: bytes) -> Any:
        """Return the head, its tensors in any order, and how many bytes follow."""
        s.need(len(data) >= 8)
        size = struct.unpack("<Q", data[:8])[0]
        s.need(size <= len(data) - 8)
        try:
            read = json.loads(data[8 : 8 + size])
        except (ValueError, RecursionError) as error:
            raise s.Refuse(str(error)) from error
        s.need(isinstance(read, dict))
        read.pop("__metadata__", None)
        return read, len(data) - 8 - size

    right = head(content)

    def oracle(data: bytes) -> int:
        s.need(head(data) == right, "another head")
        return right[1]

    def read() -> int:
        cfg = hf.read_config(model)
        hf.load_params(model, cfg)
        return right[1]

    return Case(
        path, damage.contents(content, end), read, oracle, exact=False, said="/model"
    )


# --- tokenizers -----------------------------------------------------------------------

TEXTS = ("Human: I have 12 cats!\n\nAssistant:", "  é 漢 ", "<s>x</s>")


def _tokenizer(folder: pathlib.Path, family: str, name: str, empty: Any = None) -> Case:
    place = tokenizer_families.write(family, folder / family)
    path = place / name
    if not path.exists():
        path.write_text(json.dumps(empty))
    value = json.loads(path.read_text())
    beside = json.loads((place / "tokenizer_config.json").read_text())
    named = {
        text
        for key, text in beside.items()
        if key.endswith("_token") and isinstance(text, str)
    }

    def oracle(data: bytes) -> list:
        """Return the ids that the library makes: tokenizers, or transformers."""
        if name == "tokenizer.json":
            plain = json.loads(data.decode()) | {"truncation": None, "padding": None}
            own = tokenizers.Tokenizer.from_str(json.dumps(plain))
            # What the settings beside it name, and it has, is told apart in a text.
            added = {one.content for one in own.get_added_tokens_decoder().values()}
            own.add_special_tokens(sorted(named & {*own.get_vocab()} - added))
        else:
            s.need(isinstance(s.value(s.decoded(data, bom=False)), dict))
            own = transformers.PreTrainedTokenizerFast.from_pretrained(
                str(place), local_files_only=True
            ).backend_tokenizer
        own.encode_special_tokens = False
        ids = sorted(own.get_vocab(with_added_tokens=True).values())
        s.need(ids == list(range(len(ids))))
        return [own.encode(text, add_special_tokens=False).ids for text in TEXTS]

    def guarded(data: bytes) -> list:
        try:
            return oracle(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in tokenizers is no Exception
            raise s.Refuse(str(error)) from error

    def read() -> list:
        loaded = tk.load_tokenizer(place)
        return [loaded.encode(text, bos=False) for text in TEXTS]

    return Case(path, json_damage(value), read, guarded, exact=False, said=family)


def tokenizer_json(folder: pathlib.Path) -> Case:
    return _tokenizer(folder, "tinyllama", "tokenizer.json")


def tokenizer_config(folder: pathlib.Path) -> Case:
    return _tokenizer(folder, "llama2", "tokenizer_config.json")


def special_tokens(folder: pathlib.Path) -> Case:
    said = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    return _tokenizer(folder, "llama2", "special_tokens_map.json", said)


def generation_config(folder: pathlib.Path) -> Case:
    said = {"eos_token_id": [2], "bos_token_id": 1, "do_sample": True}
    return _tokenizer(folder, "llama2", "generation_config.json", said)


def gguf_tokens(folder: pathlib.Path) -> Case:
    path = tokenizer_families.write("tinyllama_gguf", folder)
    content = path.read_bytes()
    loaded = tk.load_tokenizer(path)

    def read() -> Any:
        return tk.load_tokenizer(path).vocab_size <= loaded.vocab_size

    def oracle(data: bytes) -> bool:
        s.need(data[:4] == b"GGUF")
        return True

    return Case(
        path,
        damage.contents(content, 6000),
        read,
        oracle,
        exact=False,
        said="tinyllama.gguf",
    )


def gguf_weights(folder: pathlib.Path) -> Case:
    path = write_gguf(folder / "model.gguf", CFG, _params())
    content = path.read_bytes()
    end = content.index(b"output_norm.weight") + 60

    def oracle(data: bytes) -> dict:
        """Return numbers as the gguf package itself reads them."""
        path.write_bytes(data)
        try:
            held = gguf.GGUFReader(path).fields
            read = {name: held[f"llama.{name}"].contents() for name in NUMBERS}
        except Exception as error:
            raise s.Refuse(str(error)) from error
        return {NUMBERS[name]: one for name, one in read.items()}

    def read() -> dict:
        model = resolve.resolve_model(f"gguf:{path}", folder)
        model.load_params()
        return {name: getattr(model.cfg, name) for name in NUMBERS.values()}

    return Case(path, damage.contents(content, end), read, oracle, exact=False)


NUMBERS = {
    "block_count": "num_layers",
    "context_length": "max_positions",
    "embedding_length": "embed_dim",
    "feed_forward_length": "mlp_dim",
    "attention.head_count": "num_heads",
    "attention.head_count_kv": "num_kv_heads",
}


# --- judges ---------------------------------------------------------------------------

REPLY = {
    "id": "c-1",
    "model": "judge-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "(A)", "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 1},
}
SETTINGS = {
    "base_url": "http://127.0.0.1:9/v1",
    "model": "judge-1",
    "price_input": 10.0,
    "price_output": 30.0,
    "max_cost": 1.0,
}


def _api(folder: pathlib.Path) -> chat_api.ChatApi:
    where = chat_api.ApiSettings(cache=str(folder / "cache"), **SETTINGS)
    return chat_api.ChatApi(where, "secret-key")


def judge_reply(folder: pathlib.Path) -> Case:
    assert completions.read_completion(json.loads(completion("(A)"))).text == "(A)"
    path, api = folder / "reply", _api(folder)

    def oracle(data: bytes) -> str:
        def pairs(found: list) -> dict:
            s.need(len({name for name, _ in found}) == len(found))
            return dict(found)

        try:
            found = json.loads(data, object_pairs_hook=pairs)
        except (ValueError, RecursionError) as error:
            raise s.Refuse(str(error)) from error
        s.need(isinstance(found, dict) and isinstance(found.get("choices"), list))
        s.need(len(found["choices"]) == 1 and isinstance(found["choices"][0], dict))
        choice = found["choices"][0]
        message = choice.get("message")
        s.need(isinstance(message, dict))
        s.need(message.get("role") in ("assistant", None))
        finish = s.maybe(s.text)(choice.get("finish_reason"))
        content = message.get("content")
        if isinstance(content, list):
            s.need(all(isinstance(one, dict) for one in content))
            parts = [p for p in content if p.get("type") in ("text", "output_text")]
            content = "".join(s.text(p.get("text")) for p in parts)
        content = "" if content is None else s.text(content)
        if content.strip():
            return content
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            return f"[refused] {refusal.strip()}"
        s.need(not (message.get("tool_calls") or message.get("function_call")))
        if finish in ("content_filter", "refusal"):
            return "[refused] by a filter of the interface"
        return ""

    def read() -> str:
        try:
            found, cost = api._understand({"messages": []}, path.read_bytes(), 50)
        except wire.TryAgain as error:
            raise ValueError(f"reply: {error}") from error
        assert 0 <= cost <= 1e4
        return found.text

    return Case(path, json_damage(REPLY), read, oracle)


def judge_cache(folder: pathlib.Path) -> Case:
    api = _api(folder)
    body = {"model": "judge-1", "messages": [{"role": "user", "content": "hello"}]}
    kept = api._keep(api._key(body), body, completions.Completion("(A)", False, 1, 1))
    assert kept == "(A)"
    path = next((folder / "cache").rglob("*.json"))
    whole = json.loads(path.read_text())

    def oracle(data: bytes) -> str | None:
        found = s.value(s.decoded(data))
        s.need(isinstance(found, dict))
        s.need(found.get("base_url") == whole["base_url"])
        same = json.dumps(found.get("request"), sort_keys=True)
        s.need(same == json.dumps(body, sort_keys=True))
        return s.text(found.get("answer")) or None

    return Case(path, json_damage(whole), lambda: api._read(path.stem, body), oracle)


# --- launchers ------------------------------------------------------------------------

SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_NODELIST": "gpu[007-008],login",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_GPUS_ON_NODE": "8",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
}
TPU = {
    "TPU_WORKER_HOSTNAMES": "w-0.svc,w-1.svc",
    "TPU_WORKER_ID": "1",
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "job-0-0.svc:8080",
}
BY_HAND = {hosts.COORDINATOR: "a:8476", hosts.COUNT: "2", hosts.INDEX: "1"}
BY_HAND |= {hosts.DEVICES: "0,1"}
WORDS = (
    *("", " ", "0", "1", "2", "7", "-1", "1e3", "99999999999999999999", "x", "٣", "²"),
    *("a[1-999999999]", "a[3-1]", "a[", "a[1-2]b[3-4]", "1(x999999999)", "9" * 5000),
    *("\0", "a,,b", "a b", "a:b:c", "[::1]:80", "a:99999", "gpu[007-008]", "2(x3)"),
    *("NaN", "true", "None", "<html>", "a," * 9999),
)


def launcher(folder: pathlib.Path) -> Case:
    path = folder / "variables"
    whole = [SLURM, TPU, BY_HAND]

    @st.composite
    def damaged(draw: Any) -> bytes:
        one = dict(draw(st.sampled_from(whole)))
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.sampled_from(sorted(one)))
            if draw(st.booleans()):
                one[name] = draw(st.sampled_from(WORDS))
            elif len(one) > 1:
                del one[name]
        return json.dumps(one).encode()

    def oracle(data: bytes) -> bool:
        del data
        return True

    def read() -> bool:
        environ = json.loads(path.read_bytes())
        members = hosts.find(tpu_metadata.beside(environ, devices=()))
        if members is None:
            return True
        assert 0 <= members.index < members.count <= hosts.MOST
        assert re.fullmatch(r"\S+:\d{1,5}", members.coordinator)
        assert len(members.names) in (0, members.count)
        assert len(set(members.devices or ())) == len(members.devices or ())
        return True

    return Case(path, damaged(), read, oracle, exact=False, said=" ")


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    one.__name__: one
    for one in (
        *(config, index, safetensors, tokenizer_json, tokenizer_config),
        *(special_tokens, generation_config, gguf_tokens, gguf_weights),
        *(judge_reply, judge_cache, launcher),
    )
}
