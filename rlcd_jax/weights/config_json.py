"""config.json of a Hugging Face folder, and the model numbers that it gives.

A field that changes the computation, a number that no model has, and a rotary scaling
other than LLaMA-3's end in a `ValueError` that names the file and the field.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from rlcd_jax import fetched
from rlcd_jax.models import llama
from rlcd_jax.weights import fields, files, scalar

NAME = "config.json"

# Fields that change the computation, with the values that mean "as in LLaMA".
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "hidden_act": ("silu", "swish", None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "sliding_window": (None,),
}
NEEDED_FIELDS = (
    "vocab_size",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
)
# Fields of LLaMA-3's rope scaling.
LLAMA3 = (
    *("factor", "low_freq_factor", "high_freq_factor"),
    "original_max_position_embeddings",
)


def read(folder: str | pathlib.Path) -> dict[str, Any]:
    """Return the fields of a folder's config.json."""
    path = pathlib.Path(folder) / NAME
    with fetched.reading(path):
        if not path.is_file():
            files.refuse_adapter(path.parent)
            raise ValueError(
                f"{path.parent} has no config.json; a model folder holds config.json, "
                "tokenizer.json and *.safetensors"
            )
    return fetched.read_object(path)


def from_dict(
    raw: Mapping[str, Any], origin: str, role: str = scalar.POLICY
) -> llama.LlamaConfig:
    """Return the model numbers of a Hugging Face config; see `hf.read_config`."""
    _check_kind(raw, origin, role)
    missing = [field for field in NEEDED_FIELDS if raw.get(field) is None]
    if missing:
        raise ValueError(f"{origin}: missing {', '.join(missing)}; restore the file")
    dim = fields.integer(raw, "hidden_size", origin, fields.MOST_WIDTH)
    heads = fields.integer(raw, "num_attention_heads", origin, fields.MOST_HEADS)
    kv_heads = fields.integer(
        raw, "num_key_value_heads", origin, fields.MOST_HEADS, absent=heads
    )
    if raw.get("head_dim") is None and dim % heads:
        raise ValueError(
            f"{origin}: hidden_size={dim} is no multiple of num_attention_heads="
            f"{heads}, and there is no head_dim; restore the file"
        )
    width = fields.integer(
        raw, "head_dim", origin, fields.MOST_HEAD_DIM, absent=dim // heads
    )
    if heads % kv_heads or width % 2:
        raise ValueError(
            f"{origin}: num_attention_heads={heads}, num_key_value_heads={kv_heads}, "
            f"head_dim={width}; accepted: heads that are a multiple of the key/value "
            "heads, and an even head_dim; restore the file"
        )
    theta, scaling = _rope(raw, origin)
    vocab_size = fields.integer(raw, "vocab_size", origin, fields.MOST_IDS)
    _check_unused(raw, origin)
    return llama.LlamaConfig(
        vocab_size=vocab_size,
        num_layers=fields.integer(raw, "num_hidden_layers", origin, fields.MOST_LAYERS),
        embed_dim=dim,
        mlp_dim=fields.integer(raw, "intermediate_size", origin, fields.MOST_MLP),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=fields.number(raw, "rms_norm_eps", origin, 1.0, absent=1e-6),
        tie_embeddings=fields.switch(raw, "tie_word_embeddings", origin, absent=False),
        max_positions=fields.integer(
            raw, "max_position_embeddings", origin, fields.MOST_POSITIONS, absent=2048
        ),
    )


def _check_kind(raw: Mapping[str, Any], origin: str, role: str) -> None:
    """Refuse what is no LLaMA, and a LLaMA with another output."""
    if raw.get("model_type") != "llama":
        raise ValueError(
            f"{origin}: model_type is {fetched.show(raw.get('model_type'))}; accepted: "
            "'llama' (LLaMA 1-3, TinyLlama, SmolLM2)"
        )
    wanted = scalar.ARCHITECTURES[role]
    listed = raw.get("architectures")
    listed = [wanted] if listed is None else listed
    # The first files of LLaMA 1 are of a class "LLaMAForCausalLM".
    if not isinstance(listed, list) or any(
        str(one).lower() != wanted.lower() for one in listed
    ):
        raise ValueError(
            f"{origin}: architectures is {fetched.show(raw['architectures'])} "
            f"({str(listed)[:60]}); accepted: {wanted}"
        )
    for field, accepted in FIXED_FIELDS.items():
        if not _is_one_of(raw.get(field), accepted):
            raise ValueError(
                f"{origin}: {field} is {fetched.show(raw[field])}; accepted: "
                f"{accepted[0]!r}; such a model is not a LLaMA in this sense"
                + " (save a quantised one in bfloat16 first)"
                * field.endswith("config")
            )


def _is_one_of(value: Any, accepted: tuple[Any, ...]) -> bool:
    """Say whether a value is one of some; true is not 1, and 0 not false."""
    return any(
        value == one and isinstance(value, bool) == isinstance(one, bool)
        for one in accepted
    )


def _check_unused(raw: Mapping[str, Any], origin: str) -> None:
    """Refuse wrong values of fields that nothing here is computed from.

    A folder with one is damaged, and others who read it would trip over it.
    """
    most = raw["vocab_size"] - 1
    for field, least in (
        ("bos_token_id", 0),
        ("eos_token_id", 0),
        ("pad_token_id", -1),
    ):
        given = raw.get(field)
        many = given if field == "eos_token_id" and isinstance(given, list) else [given]
        for one in many:
            fields.integer({field: one}, field, origin, most, absent=0, least=least)
    fields.switch(raw, "use_cache", origin, absent=True)
    for field in ("torch_dtype", "dtype", "_name_or_path", "transformers_version"):
        if not isinstance(raw.get(field), str | None):
            raise ValueError(
                f"{origin}: {field} is {fetched.show(raw[field])}; accepted: a text; "
                "restore the file"
            )
    for field in ("attention_dropout", "initializer_range"):
        if raw.get(field) != 0:
            fields.number(raw, field, origin, 1.0, absent=1.0)
        elif isinstance(raw[field], bool):
            fields.number(raw, field, origin, 1.0)
    fields.integer(raw, "pretraining_tp", origin, fields.MOST_HEADS, absent=1)


def _rope(
    raw: Mapping[str, Any], origin: str
) -> tuple[float, llama.RopeScaling | None]:
    """Return theta and scaling from the fields of transformers 4 or 5.

    Both versions take `rope_scaling` where it is, and 5 else `rope_parameters`.
    """
    for field in ("rope_scaling", "rope_parameters"):
        if not isinstance(raw.get(field), dict | None):
            raise ValueError(
                f"{origin}: {field} is {fetched.show(raw[field])}; accepted: an object "
                "or null; restore the file"
            )
    old, new = raw.get("rope_scaling") or {}, raw.get("rope_parameters") or {}
    theta = _theta(old or new, raw, origin)
    if old and new and theta != _theta(new, raw, origin):
        raise ValueError(
            f"{origin}: rope_scaling and rope_parameters are both there, with other "
            "values of rope_theta; remove one of them"
        )
    scaling = old or new
    if not _is_one_of(scaling.get("partial_rotary_factor"), (1, None)):
        raise ValueError(
            f"{origin}: partial_rotary_factor is "
            f"{fetched.show(scaling['partial_rotary_factor'])}; accepted: 1"
        )
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if scaling.get("type") not in (kind, None):
        raise ValueError(
            f"{origin}: rope_type is {fetched.show(kind)} and type "
            f"{fetched.show(scaling['type'])} in the settings of rope; remove one"
        )
    unused = [name for name in LLAMA3 if scaling.get(name) is not None]
    if kind == "default" and unused:
        raise ValueError(
            f"{origin}: {unused[0]} is {fetched.show(scaling[unused[0]])} in a rope "
            "scaling of type 'default', which has none; remove it, or name the type"
        )
    nested = [name for name, value in scaling.items() if isinstance(value, dict)]
    if nested or kind not in ("default", "llama3"):
        what = f"for each kind of layer ({nested[0]})" if nested else ""
        raise ValueError(
            f"{origin}: rope scaling {what or f'of type {fetched.show(kind)}'}; "
            "accepted: 'llama3' or none"
        )
    return theta, None if kind == "default" else _llama3(scaling, origin)


def _theta(rope: Mapping[str, Any], raw: Mapping[str, Any], origin: str) -> float:
    inner, outer = rope.get("rope_theta"), raw.get("rope_theta")
    if inner is not None and outer is not None and inner != outer:
        raise ValueError(
            f"{origin}: other values of rope_theta at two places, "
            f"{fetched.show(outer)} and {fetched.show(inner)} in the settings of rope; "
            "versions 4 and 5 of transformers take different ones: remove the wrong one"
        )
    held = raw if rope.get("rope_theta") is None else rope
    return fields.number(held, "rope_theta", origin, fields.MOST_THETA, absent=10000.0)


def _llama3(scaling: Mapping[str, Any], origin: str) -> llama.RopeScaling:
    *factors, lengths = LLAMA3
    for field in LLAMA3:
        if scaling.get(field) is None:
            raise ValueError(f"{origin}: the llama3 rope scaling lacks {field!r}")
    factor, low, high = (
        fields.number(scaling, field, origin, fields.MOST_POSITIONS)
        for field in factors
    )
    if factor < 1 or high <= low:
        raise ValueError(
            f"{origin}: the llama3 rope scaling has factor={factor:g}, low_freq_factor="
            f"{low:g}, high_freq_factor={high:g}; accepted: a factor of 1 or more, and "
            "a high factor above the low one"
        )
    length = fields.integer(scaling, lengths, origin, fields.MOST_POSITIONS)
    return llama.RopeScaling(factor, low, high, length)


def to_dict(
    cfg: llama.LlamaConfig, dtype: str, role: str = scalar.POLICY
) -> dict[str, Any]:
    """Return config.json for transformers; `from_dict` undoes it."""
    out: dict[str, Any] = {
        "architectures": [scalar.ARCHITECTURES[role]],
        "model_type": "llama",
        "vocab_size": cfg.vocab_size,
        "num_hidden_layers": cfg.num_layers,
        "hidden_size": cfg.embed_dim,
        "intermediate_size": cfg.mlp_dim,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "rope_theta": cfg.rope_theta,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tie_embeddings,
        "max_position_embeddings": cfg.max_positions,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": dtype,
    }
    if cfg.rope_scaling is not None:
        out["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": cfg.rope_scaling.factor,
            "low_freq_factor": cfg.rope_scaling.low_freq_factor,
            "high_freq_factor": cfg.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": cfg.rope_scaling.original_max_positions,
        }
    return out
