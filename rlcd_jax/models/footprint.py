"""How much memory and work the forward and backward passes of a LLaMA take.

Estimates: nothing is traced, and sizes of parameters are those of their table. Arrays
between products are float32 (see `models.products`), and that is what is counted; a
compiler that fuses well keeps fewer of them. The compiler's own figure is printed
beside these by `experiments.plan --compile`.

Letters: B rows on a device, T positions, D model, F feed-forward, N query heads,
K key/value heads, H head width, V vocabulary, L layers.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from rlcd_jax.models import blocked, head_layout, heads, llama, splash

FLOAT = 4  # bytes of a float32
TPU_LANES = 128  # of a tile: the last axis of an array is a multiple of it
TPU_SHARE = 0.7  # of a layer's arrays that exist at once in a backward pass on TPUs


@dataclasses.dataclass(frozen=True)
class Pass:
    """What one pass over texts is, on one device.

    Attributes:
      rows: texts at once.
      length: positions of a text.
      models: of which gradients are taken together; 0: of none.
      logits: bytes of the logits that exist at once; 0: none are made.
      fsdp_ways: devices among which parameters are split.
      tensor_ways: devices among which heads, feed-forward and vocabulary are.
      cast: whether parameters are float32, and not cast once for all.
      before: models that have read the same texts, whose last states are held.
      platform: "cpu", "gpu" or "tpu": XLA fuses more of a backward pass on TPUs, and
        casts weights there when they are used.
      adapted: whether adapters are trained and the weights beside them are not.
      quantized: whether the matrices of layers are in eight bits, and are brought to
        the compute dtype when they are used.
    """

    rows: int
    length: int
    models: int
    logits: int
    fsdp_ways: int
    tensor_ways: int
    cast: bool = True
    before: int = 0
    platform: str = "gpu"
    adapted: bool = False
    quantized: bool = False


def working_bytes(cfg: llama.LlamaConfig, one: Pass) -> dict[str, int]:
    """Return what a pass makes on its way, at the worst moment.

    Forward only: the residual stream and one layer's arrays. With a backward pass, in
    addition what `cfg.remat` keeps of each layer: its input ("full"), its products
    too ("dots"), or all ("none"). A layer's weights are cast, and gathered over fsdp
    where that splits them, one layer ahead. Logits exist when no layer is at work; then
    their table is cast or gathered, and in a backward pass it has a gradient.

    Returns:
      Bytes on a device: "activations", "logits" and "other", which is weights.
    """
    stream = FLOAT * one.rows * one.length * cfg.embed_dim
    layer = layer_bytes(cfg, one)
    each = {
        "full": stream,
        "dots": stream + _product_bytes(cfg, one),
        "none": stream + _all_bytes(cfg, one, layer),
    }
    kept = one.models * cfg.num_layers * each[cfg.remat]
    kept += one.before * stream // FLOAT * jnp.dtype(cfg.dtype).itemsize
    if one.models and one.platform == "tpu":
        layer = int(TPU_SHARE * layer)
    if cfg.remat == "dots":  # kept already
        layer = max(0, layer - _product_bytes(cfg, one))
    moment = kept + layer + (3 if one.models else 2) * stream
    if _reads_on_tpu(one):  # the normed stream is in the compute dtype there
        moment -= stream // 2
    weights = _layer_weights(cfg, one)
    table = _table_weights(cfg, one) * bool(one.logits)
    if one.cast and one.fsdp_ways > 1 and not one.models and one.platform == "gpu":
        weights += table  # brought to the compute dtype and gathered before the layers
    if moment + weights >= kept + stream + one.logits + table:
        return {"activations": moment, "logits": 0, "other": weights}
    return {"activations": kept + stream, "logits": one.logits, "other": table}


def _layer_weights(cfg: llama.LlamaConfig, one: Pass) -> int:
    """Return the bytes of weights that are held for a moment only.

    In units of a layer in the compute dtype, or of the embeddings if those are larger:
    as many as compilers for GPUs and TPUs were seen to hold (experiments/README.md).
    """
    itemsize = jnp.dtype(cfg.dtype).itemsize
    layer = _layer_params(cfg) / one.tensor_ways * itemsize
    if not head_layout.find(cfg.num_heads, cfg.num_kv_heads, one.tensor_ways).is_own:
        # Heads that are laid out anew are gathered over tensor first.
        heads_of = 2 * (cfg.num_heads + cfg.num_kv_heads)
        layer += heads_of * cfg.head_dim * cfg.embed_dim * itemsize
    table = _table_params(cfg) / one.tensor_ways * itemsize
    largest = cfg.mlp_dim * cfg.embed_dim / one.tensor_ways * itemsize
    if one.models and one.platform == "tpu":
        return int(2 * layer)
    if _reads_on_tpu(one):
        # The matrix in use and the next, gathered; all are cast before the first layer.
        cast = cfg.num_layers * layer / one.fsdp_ways * one.cast
        return int(2 * largest * (one.fsdp_ways > 1 or one.quantized) + cast)
    # On GPUs the feed-forward of all layers is cast at once, a device its own part.
    stack = cfg.num_layers * 3 * cfg.mlp_dim * cfg.embed_dim * itemsize * one.cast
    stack *= max(one.models, 1) / (one.fsdp_ways * one.tensor_ways)
    if one.fsdp_ways == 1:
        return int(2 * layer * one.cast + largest * one.quantized + stack)
    if one.models:  # gathered, and the gradient of a layer before it is scattered
        return int((4 if cfg.remat == "full" else 3) * max(layer, table) + stack)
    return int(max(2.25 * layer, 1.25 * table) + stack)


def _reads_on_tpu(one: Pass) -> bool:
    """Say whether a pass has no backward pass and is for a TPU.

    XLA there keeps what only products read in the compute dtype.
    """
    return not one.models and one.platform == "tpu"


def _table_params(cfg: llama.LlamaConfig) -> int:
    return math.prod(llama.param_specs(cfg)["embed"].shape)


def _table_weights(cfg: llama.LlamaConfig, one: Pass) -> int:
    """Return the bytes of the output table that are held for a moment only."""
    table = _table_params(cfg) / one.tensor_ways
    half = table * jnp.dtype(cfg.dtype).itemsize * (one.cast or one.fsdp_ways > 1)
    return int(half + FLOAT * table * bool(one.models and not one.adapted))


def _heads(cfg: llama.LlamaConfig, tensor_ways: int) -> tuple[float, float, float]:
    """Return the widths of queries, of keys and of the feed-forward on a device."""
    layout = head_layout.find(cfg.num_heads, cfg.num_kv_heads, tensor_ways)
    key = layout.kv_heads * cfg.head_dim / tensor_ways
    return layout.group * key, key, cfg.mlp_dim / tensor_ways


def _product_bytes(cfg: llama.LlamaConfig, one: Pass) -> int:
    """Return the bytes of one layer's product results: q, k, v, o, gate, up, down."""
    query, key, mlp = _heads(cfg, one.tensor_ways)
    token = one.rows * one.length * jnp.dtype(cfg.results).itemsize
    return int(token * (query + 2 * key + 2 * mlp + 2 * cfg.embed_dim))


def _all_bytes(cfg: llama.LlamaConfig, one: Pass, layer: int) -> int:
    """Return what a backward pass reads of a layer of which nothing is made again.

    A loop over layers keeps each array as the backward pass is written, on GPUs in
    float32 and before and after each step. Layers that are compiled one by one keep
    what kernels give, products and half a dozen arrays beside them.
    """
    if one.platform != "gpu" or cfg.attention != "cudnn":
        return layer
    *_, mlp = _heads(cfg, one.tensor_ways)
    token = one.rows * one.length
    if not cfg.unroll:
        return int(FLOAT * token * (6 * mlp + 12 * cfg.embed_dim))
    beside = token * (mlp + 4 * cfg.embed_dim) * jnp.dtype(cfg.results).itemsize
    return int(_product_bytes(cfg, one) + beside)


def layer_bytes(cfg: llama.LlamaConfig, one: Pass) -> int:
    """Return the bytes of one layer's arrays at its worst moment.

    Scores [B, N, T, T] exist where the kernel is "xla" and a text is one block, or
    those of the keys within reach of a short one in a wide row: of a longer one there
    are those of a block of queries and one of keys, and no more is kept for the
    backward pass than its sums. The other kernels never store any; splash reads and
    writes arrays of its own.
    """
    query, key, mlp = _heads(cfg, one.tensor_ways)
    token = FLOAT * one.rows * one.length
    if _in_blocks(cfg, one.length):
        return _layer_in_blocks(cfg, one, query, key, mlp)
    kept = token * (3 * cfg.embed_dim + 2 * query + 3 * key + 3 * mlp)
    if cfg.attention == "splash":
        most = max(_splash_bytes(cfg, one, query, key), 2 * token * mlp)
        return int(most + kept * bool(one.models))
    scores = 0.0
    if cfg.attention == "xla":
        keys = keys_computed(cfg, one.length)
        scores = FLOAT * one.rows * query / cfg.head_dim * one.length * keys
        kept += _window_bytes(cfg, one, key)
    if _reads_on_tpu(one):  # softmax is in place; rows of scores fill whole tiles
        scores *= -(-one.length // TPU_LANES) * TPU_LANES / one.length
        heads_of = token / 2 * (query + 2 * key)
        return int(max(scores + heads_of, 2 * token * mlp))
    if not one.models:
        # Heads before and after they are turned; gate and up, or in the compute dtype
        # what is made of them too.
        narrow = cfg.results == "bfloat16"
        heads_of = token * (query + 2 * key) * (1.5 if narrow else 1)
        wide = token * mlp * (1.5 if narrow else 2)
        return int(max(1.4 * scores + heads_of, wide))
    return int(kept + scores + max(2 * scores + token * query, 2 * token * mlp))


def _window_bytes(cfg: llama.LlamaConfig, one: Pass, key: float) -> float:
    """Return the bytes of keys and values as they stand beside blocks of queries."""
    found = blocked.windows(one.length, cfg.attention_block, cfg.reach)
    if found is None:
        return 0.0
    copies = one.rows * one.length * (found.before + 1)
    return copies * 2 * key * jnp.dtype(cfg.dtype).itemsize


def _splash_bytes(cfg: llama.LlamaConfig, one: Pass, query: float, key: float) -> float:
    """Return the bytes of what splash attention reads and writes; widths as `_heads`'.

    Rows are filled up to whole blocks and heads to whole tiles. Forwards these are
    queries, keys, values and results in the compute dtype; where a backward pass
    follows, each query's sum too, in float32, which takes a whole tile. Backwards, in
    place of that, the gradients of the four.
    """
    tokens = one.rows * splash.padded(one.length)
    width = -(-cfg.head_dim // TPU_LANES) * TPU_LANES
    operands = 2 * tokens * (query + key) / cfg.head_dim * width
    operands *= jnp.dtype(cfg.dtype).itemsize
    if not one.models:
        return operands
    sums = FLOAT * tokens * query / cfg.head_dim * TPU_LANES
    return operands + max(sums, operands)


def _in_blocks(cfg: llama.LlamaConfig, length: int) -> bool:
    if blocked.windows(length, cfg.attention_block, cfg.reach) is not None:
        return False
    blocks = blocked.num_blocks(length, cfg.attention_block)
    return cfg.attention == "xla" and blocks > 1


def _layer_in_blocks(
    cfg: llama.LlamaConfig, one: Pass, query: float, key: float, mlp: float
) -> int:
    """Return `layer_bytes` where attention goes over blocks; widths as of `_heads`.

    Scores of a block stand beside what is made of them, and queries, keys, values and
    what is seen lie in blocks, a second time.
    """
    token = FLOAT * one.rows * one.length
    size = blocked.block_tokens(one.length, cfg.attention_block)
    scores = FLOAT * one.rows * query / cfg.head_dim * size**2
    if not one.models:
        heads_of = token * (3 * query + 4 * key)
        return int(max(2 * scores + heads_of, 2 * token * mlp))
    kept = token * (3 * cfg.embed_dim + 3 * query + 4 * key + 3 * mlp)
    return int(kept + max(3 * scores + token * (3 * query + 2 * key), 2 * token * mlp))


def keys_computed(cfg: llama.LlamaConfig, length: int) -> float:
    """Return the keys that each token of whole texts is multiplied with, in the mean.

    All T, masked ones too, but in blocks, of which those above the diagonal are left
    out, and in rows of several texts what is farther away than `cfg.reach`.
    """
    if cfg.attention == "splash":
        return splash.keys_computed(length, cfg.reach)
    if cfg.attention == "xla":
        return blocked.keys_computed(length, cfg.attention_block, cfg.reach)
    return length


def logits_bytes(
    cfg: llama.LlamaConfig,
    batch: int,
    length: int,
    *,
    chunk_tokens: int,
    batch_ways: int,
    tensor_ways: int,
    arrays: int,
) -> int:
    """Return the bytes of the logits that exist at once.

    Args:
      cfg: model numbers.
      batch: texts on all devices at once.
      length: positions whose logits are wanted.
      chunk_tokens: as in `heads.chunked`.
      batch_ways: devices among which the batch is split.
      tensor_ways: devices among which the vocabulary is split.
      arrays: float32 arrays of that size: 2 in a backward pass (scores and their
        cotangent), 1 without.
    """
    width = heads.chunk_width(batch, length, chunk_tokens)
    tokens = -(-batch // batch_ways) * width
    return arrays * FLOAT * tokens * cfg.vocab_size // tensor_ways


def _layer_params(cfg: llama.LlamaConfig) -> int:
    """Return the scalars in the matrices of one layer."""
    specs = jax.tree.leaves(
        llama.param_specs(cfg)["layers"], is_leaf=lambda leaf: hasattr(leaf, "axes")
    )
    return sum(math.prod(spec.shape[1:]) for spec in specs if len(spec.shape) > 2)


def forward_flops(
    cfg: llama.LlamaConfig, tokens: float, length: float, *, logit_tokens: float
) -> float:
    """Return the floating-point operations of products in one forward pass.

    `2 L (4-matrix attention + 3-matrix feed-forward)` a token, `4 L N H S` for
    attention over S keys, and `2 V D` a token whose logits are made.

    Args:
      cfg: model numbers.
      tokens: of all texts.
      length: keys that each token attends to; of whole texts, `keys_computed`.
      logit_tokens: tokens whose logits are made.
    """
    layer = 2 * _layer_params(cfg) + 4 * cfg.num_heads * cfg.head_dim * length
    logits = 2 * _table_params(cfg) * logit_tokens
    return float(cfg.num_layers * layer * tokens + logits)


def training_flops(
    cfg: llama.LlamaConfig, forward: float, *, adapted: bool = False
) -> tuple[float, float]:
    """Return the model's operations of an update, and those that remat repeats.

    Three times a forward pass; "full" repeats one of it, the others nothing of note.
    Where only adapters are trained, no gradient of a weight is made, and it is twice;
    their own products, a percent or so, are left out.
    """
    return (2 if adapted else 3) * forward, forward * (cfg.remat == "full")
