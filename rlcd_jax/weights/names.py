"""One table of parameter names, read in both directions.

Import reads foreign tensors into our training form, export writes them back; both walk
the same rows, so one undoes the other by construction. Every tensor is read when it is
needed and not before, and only the part that a device asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from rlcd_jax import tree
from rlcd_jax.models import llama, table
from rlcd_jax.weights import finite

Style = Literal["hf", "gguf"]
Index = tuple[slice, ...]
Read = Callable[[str, Index], np.ndarray]  # (foreign name, part) -> values
Put = Callable[[str, table.ParamSpec, Callable[[Index], np.ndarray]], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """The names of one parameter; {} is the layer."""

    ours: str
    hf: str
    gguf: str


TABLE = (
    Row("embed", "model.embed_tokens.weight", "token_embd.weight"),
    Row(
        "layers/attn_norm",
        "model.layers.{}.input_layernorm.weight",
        "blk.{}.attn_norm.weight",
    ),
    Row("layers/q", "model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"),
    Row("layers/k", "model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"),
    Row("layers/v", "model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"),
    Row(
        "layers/o",
        "model.layers.{}.self_attn.o_proj.weight",
        "blk.{}.attn_output.weight",
    ),
    Row(
        "layers/mlp_norm",
        "model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight",
    ),
    Row(
        "layers/gate", "model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"
    ),
    Row("layers/up", "model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    Row(
        "layers/down", "model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"
    ),
    Row("final_norm", "model.norm.weight", "output_norm.weight"),
    Row("unembed", "lm_head.weight", "output.weight"),
)
EMBED = TABLE[0]
UNEMBED = TABLE[-1]
ROWS_COMPARED = 4096  # of two tables, at once

# Tensors that hold no parameter: rotary tables, which follow from the config.
DERIVED_ENDINGS = ("rotary_emb.inv_freq", "rope_freqs.weight")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a foreign tensor lies in our parameters."""

    path: str
    layer: int | None  # index on the leading axis of the stacked parameter
    shape: tuple[int, ...]  # shape of the foreign tensor


def entries(cfg: llama.LlamaConfig, style: Style) -> dict[str, Entry]:
    """Return the foreign tensors of a model by name, in the order of the table."""
    specs = _specs(cfg)
    by_name = {}
    for row in TABLE:
        if row.ours not in specs:
            continue
        name, shape = getattr(row, style), specs[row.ours].shape
        if "{}" not in name:
            by_name[name] = Entry(row.ours, None, shape)
            continue
        for layer in range(cfg.num_layers):
            by_name[name.format(layer)] = Entry(row.ours, layer, shape[1:])
    return by_name


def _specs(cfg: llama.LlamaConfig) -> dict[str, table.ParamSpec]:
    return tree.flatten_names(llama.param_specs(cfg))


def check(
    cfg: llama.LlamaConfig,
    style: Style,
    shapes: Mapping[str, tuple[int, ...]],
    origin: str,
) -> None:
    """Refuse a set of tensors that is not this model's.

    Args:
      cfg: the model.
      style: whose names they are.
      shapes: shape of every tensor by foreign name.
      origin: where they are from, for the message.

    Raises:
      ValueError: it names each missing, unknown and wrongly shaped tensor.
    """
    wanted = entries(cfg, style)
    lines = [f"missing: {name}" for name in wanted if name not in shapes]
    for name, shape in shapes.items():
        if name in wanted and tuple(shape) != wanted[name].shape:
            lines.append(
                f"wrong shape: {name} is {tuple(shape)}, the config says "
                f"{wanted[name].shape}"
            )
        if name not in wanted and not _is_spare(cfg, style, name):
            lines.append(f"unknown: {name}")
    if lines:
        shown = lines[:20] + [f"and {len(lines) - 20} more"] * (len(lines) > 20)
        raise ValueError(
            f"the weights in {origin} are not those of its config:\n  "
            + "\n  ".join(shown)
            + "\nCheck that config and weights are of one model (num_layers="
            f"{cfg.num_layers}, tie_embeddings={cfg.tie_embeddings})."
        )


def _is_spare(cfg: llama.LlamaConfig, style: Style, name: str) -> bool:
    """Return whether a tensor needs no place: derived, or a tied output matrix."""
    is_tied_copy = cfg.tie_embeddings and name == getattr(UNEMBED, style)
    return is_tied_copy or name.endswith(DERIVED_ENDINGS)


def assemble(
    cfg: llama.LlamaConfig,
    style: Style,
    shapes: Mapping[str, tuple[int, ...]],
    read: Read,
    *,
    origin: str,
    put: Put | None = None,
) -> table.Params:
    """Return our parameters, float32 in training form, from foreign tensors.

    Args:
      cfg: the model.
      style: whose names the tensors have.
      shapes: shape of every tensor that is there.
      read: returns a part of a tensor, of any floating dtype.
      origin: where the tensors are from, for messages.
      put: places one parameter: called with its path, its `ParamSpec` and a function
        from an index (a slice for each axis) to float32 values. `put_sharded` gives
        one for a mesh; None keeps NumPy arrays.

    Raises:
      ValueError: the tensors are not the model's, or a value is not finite in float32;
        each tensor is checked as it is read, whole or in parts.
    """
    check(cfg, style, shapes, origin)
    read = _finite(read, origin)
    _check_tied(cfg, style, shapes, read, origin)
    by_path: dict[str, list[str]] = {}
    for name, entry in entries(cfg, style).items():
        by_path.setdefault(entry.path, []).append(name)
    put = put or _put_numpy
    leaves = {
        path: put(path, spec, _reader(spec, by_path[path], read))
        for path, spec in _specs(cfg).items()
    }
    specs = llama.param_specs(cfg)
    paths = jax.tree_util.tree_map_with_path(
        lambda path, _: tree.path_name(path), specs
    )
    return jax.tree.map(leaves.__getitem__, paths)


def _finite(read: Read, origin: str) -> Read:
    """Return `read` in float32, refusing what is not finite there."""

    def checked(name: str, index: Index) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # said by the check
            values = np.asarray(read(name, index), np.float32)
        advice = "download or convert the model again, or train it with a lower rate"
        finite.check(values, f"{origin}: {name}", advice)
        return values

    return checked


def _reader(
    spec: table.ParamSpec, foreign: list[str], read: Read
) -> Callable[[Index], np.ndarray]:
    """Return a function from an index into our parameter to its values."""

    def values(index: Index) -> np.ndarray:
        if spec.axes[0] != "layers":
            return read(foreign[0], index)
        chosen = foreign[index[0]]
        sizes = [len(range(n)[part]) for n, part in zip(spec.shape, index, strict=True)]
        out = np.empty(sizes, np.float32)
        for place, name in enumerate(chosen):
            out[place] = read(name, index[1:])
        return out

    return values


def _put_numpy(
    path: str, spec: table.ParamSpec, values: Callable[[Index], np.ndarray]
) -> np.ndarray:
    return values((slice(None),) * len(spec.shape))


def put_sharded(shardings: Any) -> Put:
    """Return a `put` that fills each device of this process with its part and no more.

    What was read of one part is let go before the next is read, so that beside the
    arrays a host holds no more than one device's part of one parameter. Replicas
    share what was read once.

    Args:
      shardings: tree of shardings with the paths of the parameters, such as
        `sharding.param_shardings` gives.
    """
    by_path = tree.flatten_names(shardings)

    def put(
        path: str, spec: table.ParamSpec, values: Callable[[Index], np.ndarray]
    ) -> jax.Array:
        where = by_path[path]
        holders: dict[tuple, list[Any]] = {}
        for device, index in where.addressable_devices_indices_map(spec.shape).items():
            place = tuple((axis.start, axis.stop) for axis in index)
            holders.setdefault(place, []).append(device)
        arrays = []
        for place, devices in holders.items():
            part = values(tuple(slice(start, stop) for start, stop in place))
            copies = [jax.device_put(part, device) for device in devices]
            jax.block_until_ready(copies)  # the part is read until then
            arrays += copies
        return jax.make_array_from_single_device_arrays(spec.shape, where, arrays)

    return put


def _check_tied(
    cfg: llama.LlamaConfig,
    style: Style,
    shapes: Mapping[str, tuple[int, ...]],
    read: Read,
    origin: str,
) -> None:
    """Refuse an output matrix that the config calls tied but that is another one."""
    name = getattr(UNEMBED, style)
    if not cfg.tie_embeddings or name not in shapes:
        return
    for start in range(0, cfg.vocab_size, ROWS_COMPARED):
        stop = min(start + ROWS_COMPARED, cfg.vocab_size)
        rows = (slice(start, stop), slice(None))
        if not np.array_equal(read(name, rows), read(getattr(EMBED, style), rows)):
            raise ValueError(
                f"{origin} says that the embeddings are tied, but {name} differs from "
                f"{getattr(EMBED, style)}; set tie_word_embeddings to false in its "
                "config, or remove that tensor"
            )


def disassemble(
    params: table.Params, cfg: llama.LlamaConfig, style: Style
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the foreign tensors of our parameters, one at a time, in our dtype.

    Raises:
      ValueError: the parameters are not those of the config; each one is named.
    """
    lines = tree.difference(table.abstract_params(llama.param_specs(cfg)), params)
    if lines:
        raise ValueError(
            "the parameters are not those of the config:\n  "
            + "\n  ".join(lines)
            + "\nGive training-form parameters and the config they were made with."
        )
    leaves = tree.flatten_names(params)
    for name, entry in entries(cfg, style).items():
        leaf = leaves[entry.path]
        yield name, np.asarray(leaf if entry.layer is None else leaf[entry.layer])
