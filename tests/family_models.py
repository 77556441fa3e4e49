"""Tiny models of each family, in the files that the family's own models come in.

``write`` makes a folder or a GGUF file: the family's tokenizer, its kind of config.json
and weights of a seed. It needs NumPy and no framework, so that the numbers of
``tests/golden/make_families.py`` are of the very same models.
"""

from __future__ import annotations

import pathlib
import zlib
from typing import Any

import numpy as np
import tokenizer_families
from safetensors import numpy as safetensors

# The family and the format of the task in which its replies stand.
FORMATS = {
    "llama1": "dialogue",
    "llama2": "chat",
    "tinyllama": "chat",
    "llama3_chat": "chat",
    "smollm2": "chat",
    "tinyllama_gguf": "dialogue",
    "smollm2_gguf": "chat",
}
FAMILIES = tuple(FORMATS)
# The token with which the template of a family in the chat format closes a reply.
ENDS = {
    "llama2": "</s>",
    "tinyllama": "</s>",
    "llama3_chat": "<|eot_id|>",
    "smollm2": "<|im_end|>",
    "smollm2_gguf": "<|im_end|>",
}
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # headers of the dialogue format

# Questions and answers, the last one a question; and two replies to each, the first
# of which is the better. They hold what tokenizers treat in ways of their own.
DIALOGUES: tuple[tuple[str, ...], ...] = (
    ("What is the weather like?",),
    ("Thank you!", "Of course.", "What should we do in the afternoon?"),
    ("Tell me of 2019 and 24,000.",),
    ("Is it (A) or (B)?",),
    ("Could you walk   along the river?",),
    ("Hello", "Hi, friend", "How's the caf\u00e9 by the sea?"),
    ("Dear friend,\nwe're glad.",),
    ("A: one; B: two",),
    ("Where is Lisbon?",),
    ("Is the reply warm?",),
    ("\u4eba and \U0001f642 are here.",),
    ("What then?",),
    ("So it's sunny there", "It is!", "And today?"),
    ("Tell me the happier one.",),
)
REPLIES: tuple[tuple[str, str], ...] = (
    ("It is warm and sunny!", "It rains."),
    ("You could walk along the river.", "Nothing"),
    ("1 2 34, then 5678.", "- a\n- b"),
    ("(A) The happier one", "(B)"),
    ("Two  spaces   and more", "...no"),
    ("The caf\u00e9's lovely \U0001f642", "na\u00efve \u4eba"),
    ("Glad you've come;\nit's been a while.", "We're not"),
    ("two: B", ":"),
    ("In the sun, by the sea.", "'t is far"),
    ("Assistant's reply is.", "Human"),
    ("\U0001f642\U0001f642", "\u4eba"),
    ("Eat something", "1"),
    ("Today it is about 24 degrees.", "<s> is a text"),
    ("That one!", "[INST] no"),
)

TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
# What the family's config.json says in its own way.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama1": {"bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-6},
    "llama2": {
        "num_key_value_heads": 4,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "tinyllama": {
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama3_chat": {
        "num_key_value_heads": 1,
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA3_ROPE,
    },
    "smollm2": {
        "hidden_size": 36,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
        "rope_interleaved": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    },
}
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def folder_family(name: str) -> str:
    """Return the family whose folder holds the same model: a GGUF file has a twin."""
    return name.removesuffix("_gguf")


def num_ids(name: str) -> int:
    """Return the rows of the family's embedding table, one for each id."""
    if folder_family(name) == "llama3_chat":
        pieces, _ = tokenizer_families.byte_level_model(digits=False, count=330)
        return len(pieces) + len(tokenizer_families.LLAMA3_SPECIALS)
    if folder_family(name) == "smollm2":
        pieces, _ = tokenizer_families.byte_level_model(digits=True, count=330)
        return len(pieces) + len(tokenizer_families.SMOLLM2_SPECIALS)
    return len(tokenizer_families.sentence_pieces())


def config_json(name: str) -> dict[str, Any]:
    """Return the config.json of the family's tiny model."""
    sizes = {"vocab_size": num_ids(name), "torch_dtype": "float32"}
    return {**TINY, **sizes, **CONFIGS[folder_family(name)]}


def weights(name: str) -> dict[str, np.ndarray]:
    """Return the weights by the names of Hugging Face's files, float32 [out, in].

    Both files of a family have the same ones. Products have about the size of their
    inputs, so that every part of the model shows in its logits.
    """
    raw, family = config_json(name), folder_family(name)
    generator = np.random.default_rng(zlib.crc32(family.encode()))
    dim, hidden, heads = (
        raw[field]
        for field in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    kv_rows = raw.get("num_key_value_heads", heads) * dim // heads
    shapes = {
        "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (kv_rows, dim),
        "self_attn.v_proj": (kv_rows, dim),
        "self_attn.o_proj": (dim, dim),
        "mlp.gate_proj": (hidden, dim),
        "mlp.up_proj": (hidden, dim),
        "mlp.down_proj": (dim, hidden),
        "input_layernorm": (dim,),
        "post_attention_layernorm": (dim,),
    }
    wanted = {"model.embed_tokens": (raw["vocab_size"], dim), "model.norm": (dim,)}
    for layer in range(raw["num_hidden_layers"]):
        wanted |= {f"model.layers.{layer}.{key}": one for key, one in shapes.items()}
    if not raw["tie_word_embeddings"]:
        wanted["lm_head"] = (raw["vocab_size"], dim)
    return {
        f"{key}.weight": _draw(generator, key, shape) for key, shape in wanted.items()
    }


def _draw(
    generator: np.random.Generator, key: str, shape: tuple[int, ...]
) -> np.ndarray:
    if len(shape) == 1:  # of a norm
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    deviation = 0.5 if "embed" in key or key == "lm_head" else shape[1] ** -0.5
    return (deviation * generator.standard_normal(shape)).astype(np.float32)


def write(name: str, folder: str | pathlib.Path) -> str:
    """Write the family's tiny model; return it as a config's ``model.spec``."""
    folder = pathlib.Path(folder)
    path = tokenizer_families.write(name, folder)
    if name.endswith("_gguf"):
        fields = _gguf_fields(name)
        tokenizer_families.write_gguf(path, fields, _gguf_tensors(name))
        return f"gguf:{path}"
    tokenizer_families.write_json(folder / "config.json", config_json(name))
    safetensors.save_file(weights(name), folder / "model.safetensors", {"format": "pt"})
    return f"hf:{folder}"


def _gguf_fields(name: str) -> dict[str, Any]:
    raw = config_json(name)
    numbers = {
        "block_count": raw["num_hidden_layers"],
        "context_length": raw["max_position_embeddings"],
        "embedding_length": raw["hidden_size"],
        "feed_forward_length": raw["intermediate_size"],
        "attention.head_count": raw["num_attention_heads"],
        "attention.head_count_kv": raw["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": raw["rms_norm_eps"],
        "rope.freq_base": float(raw["rope_theta"]),
        "rope.dimension_count": raw["hidden_size"] // raw["num_attention_heads"],
        "vocab_size": raw["vocab_size"],
    }
    vocabulary = {
        "tinyllama_gguf": tokenizer_families.tinyllama_fields,
        "smollm2_gguf": tokenizer_families.smollm2_fields,
    }[name]()
    return {f"llama.{key}": value for key, value in numbers.items()} | vocabulary


def _gguf_tensors(name: str) -> dict[str, np.ndarray]:
    """Return the weights under llama.cpp's names, rows of Q and K in rotary pairs."""
    raw, tensors = config_json(name), {}
    rows_of = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    for key, values in weights(name).items():
        key = key.removesuffix(".weight").replace("model.layers.", "blk.")
        for hugging_face, llama_cpp in GGUF_NAMES.items():
            key = key.replace(hugging_face, llama_cpp)
        heads = rows_of.get(key.rpartition(".")[2])
        if heads:
            halves = values.reshape(raw[heads], 2, -1, values.shape[1])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        tensors[f"{key}.weight"] = values
    return tensors
