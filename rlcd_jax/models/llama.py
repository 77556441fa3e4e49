"""LLaMA as pure functions: one parameter table and one forward for all six roles.

LLaMA 1, 2 and 3, TinyLlama and SmolLM2 are this architecture with other numbers:
RMSNorm, rotary positions (with LLaMA-3 scaling), SwiGLU, grouped queries, and token
embeddings that may be tied to the output.

Letters: B batch, T positions, S key positions, D model, F feed-forward, N query
heads, K key/value heads, G = N/K, H head width, V vocabulary, L layers, M slots.

The weights have two forms. *Training form*: layers stacked on a leading axis, for
scan and rematerialisation, float32 master; matrices may be adapted (`models.lora`).
*Decode form*: one entry a layer in the compute dtype with fused products, made once for
each policy version. Every matrix is [out, in], as in Hugging Face files. Products have
operands in `cfg.dtype`; the residual stream, norms and softmax are float32.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.models import (
    attention,
    cached,
    few_rows,
    head_layout,
    packed,
    products,
    siblings,
    table,
)

Params = Any
DTYPES = ("bfloat16", "float32")
REMAT = ("none", "dots", "full")
ATTENTION = ("xla", "cudnn", "splash")
NARROW_ATTENTION = ("cudnn", "splash")  # whose operands are bfloat16


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """LLaMA-3's stretch of the slow rotary frequencies."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """The numbers of one LLaMA.

    `dtype` is that of the products' operands, `results` that of what a layer's give,
    which is summed up and normed in float32 either way; `remat` says what the backward
    pass recomputes ("full": all of a layer, "dots": all but its products); `unroll`
    compiles every layer of the training form by itself and not one for all, which takes
    longer, and spares the copies to and from the arrays that a loop keeps; `attention`
    is the kernel ("cudnn" needs an NVIDIA GPU, "splash" a TPU, and both bfloat16); with
    "xla" texts of more than twice `attention_block` tokens are read in blocks of so
    many at most, which changes no value (0: never); `reach` is how many tokens a text
    has at most in rows of several (0: as many as a row), so that with "xla" and
    "splash" only so many before each token are looked at; `cut_as_bits` cuts a layer in
    bfloat16 out of the stack as integers: XLA for CPUs cuts no bfloat16 and would bring
    the whole stack to float32; `tensor_ways` is among how many devices heads are split,
    which moves them and changes no value; `split_decode` says that fsdp splits the
    decode form's weights: then activations go to them, which are small beside them, and
    partial sums come back.
    """

    vocab_size: int
    num_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    max_positions: int = 2048
    dtype: str = "bfloat16"
    results: str = "float32"
    remat: str = "full"
    unroll: bool = False
    attention: str = "xla"
    attention_block: int = 256
    reach: int = 0
    cut_as_bits: bool = False
    tensor_ways: int = 1
    split_decode: bool = False

    @property
    def products(self) -> str:
        """How the products of a layer compute, as `models.products` names it."""
        return products.NARROW if self.results == "bfloat16" else self.dtype

    @property
    def stream(self) -> tuple[str, str, str]:
        """Logical axes of the residual stream [B, T, D]."""
        return ("rows" if self.split_decode else "batch", "length", self.depth_axis)

    @property
    def depth_axis(self) -> str:
        """Logical axis of D where activations meet weights."""
        return "embed" if self.split_decode else "activation"

    @property
    def layout(self) -> head_layout.HeadLayout:
        """How the heads are computed on `tensor_ways` devices."""
        return head_layout.find(self.num_heads, self.num_kv_heads, self.tensor_ways)

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} must be a multiple of "
                f"num_kv_heads={self.num_kv_heads}"
            )
        for name, accepted in (
            ("dtype", DTYPES),
            ("results", DTYPES),
            ("remat", REMAT),
            ("attention", ATTENTION),
        ):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"LlamaConfig.{name}={getattr(self, name)!r}; "
                    f"accepted: {', '.join(accepted)}"
                )
        if self.attention_block < 0:
            raise ValueError(
                f"LlamaConfig.attention_block={self.attention_block}; accepted: 0 or "
                "more tokens, 0 for whole texts"
            )
        if self.reach < 0:
            raise ValueError(
                f"LlamaConfig.reach={self.reach}; accepted: 0 or more tokens, 0 for "
                "texts as long as a row"
            )
        for line in only_narrow(self.dtype, self.attention, self.results):
            raise ValueError(f"LlamaConfig.{line}")


def only_narrow(dtype: str, attention: str, results: str) -> Iterator[str]:
    """Yield which choice needs operands in bfloat16, where they are not."""
    if dtype == "bfloat16":
        return
    for name, value, narrow, instead in (
        ("attention", attention, NARROW_ATTENTION, "xla"),
        ("results", results, ("bfloat16",), "float32"),
    ):
        if value in narrow:
            yield (
                f"{name}={value!r} needs dtype='bfloat16', got {dtype!r}; set {name}="
                f"{instead!r} for {dtype}"
            )


def param_specs(cfg: LlamaConfig) -> Params:
    """Return the table of all parameters in training form.

    Returns:
      Nested dict of `ParamSpec`. Initialisation, sharding, checkpoint restore and
      the import of weights all derive from it.
    """
    vocab, dim, mlp, depth = cfg.vocab_size, cfg.embed_dim, cfg.mlp_dim, cfg.num_layers
    query_rows = cfg.num_heads * cfg.head_dim
    kv_rows = cfg.num_kv_heads * cfg.head_dim

    def matrix(out: int, into: int, *axes: str) -> table.ParamSpec:
        return table.ParamSpec((depth, out, into), ("layers", *axes), "normal")

    norm = table.ParamSpec((depth, dim), ("layers", "norm"), "ones")
    specs = {
        "embed": table.ParamSpec((vocab, dim), ("vocab", "embed"), "normal"),
        "layers": {
            "attn_norm": norm,
            "q": matrix(query_rows, dim, "heads", "embed"),
            "k": matrix(kv_rows, dim, "kv_heads", "embed"),
            "v": matrix(kv_rows, dim, "kv_heads", "embed"),
            "o": matrix(dim, query_rows, "embed", "heads"),
            "mlp_norm": norm,
            "gate": matrix(mlp, dim, "mlp", "embed"),
            "up": matrix(mlp, dim, "mlp", "embed"),
            "down": matrix(dim, mlp, "embed", "mlp"),
        },
        "final_norm": table.ParamSpec((dim,), ("norm",), "ones"),
    }
    if not cfg.tie_embeddings:
        specs["unembed"] = table.ParamSpec((vocab, dim), ("vocab", "embed"), "normal")
    return specs


def init_params(cfg: LlamaConfig, key: jax.Array) -> Params:
    """Return random float32 parameters in training form."""
    return table.init_from_specs(param_specs(cfg), key)


def decode_form(params: Params, cfg: LlamaConfig) -> Params:
    """Return the weights as decoding reads them, from training form.

    Returns:
      "embed" [V, D], "final_norm" [D], "unembed" [V, D] if untied, and "layers", a
      tuple of L dicts: "attn_norm" [D], "qkv" [K, G+2, H, D] (each key/value head
      with its query heads, so that a tensor axis splits whole groups), "o" [D, N*H],
      "mlp_norm" [D], "gate_up" [2, F, D], "down" [D, F]. Matrices are in
      `cfg.dtype`, norms in float32. K, G and N = K*G are those of `cfg.layout`.
    """

    def one(index: int) -> Params:
        layer = jax.tree.map(lambda leaf: leaf[index], params["layers"])
        layer = {name: products.whole(weight) for name, weight in layer.items()}
        layer = head_layout.spread(layer, cfg.layout, cfg.head_dim)
        shape = (cfg.layout.kv_heads, -1, cfg.head_dim, cfg.embed_dim)
        qkv = jnp.concatenate([layer[x].reshape(shape) for x in "qkv"], axis=1)
        return {
            "attn_norm": layer["attn_norm"].astype(jnp.float32),
            "qkv": qkv.astype(cfg.dtype),
            "o": layer["o"].astype(cfg.dtype),
            "mlp_norm": layer["mlp_norm"].astype(jnp.float32),
            "gate_up": jnp.stack([layer["gate"], layer["up"]]).astype(cfg.dtype),
            "down": layer["down"].astype(cfg.dtype),
        }

    out = {
        "embed": params["embed"].astype(cfg.dtype),
        "layers": tuple(one(index) for index in range(cfg.num_layers)),
        "final_norm": params["final_norm"].astype(jnp.float32),
    }
    if not cfg.tie_embeddings:
        out["unembed"] = params["unembed"].astype(cfg.dtype)
    return out


def decode_axes(cfg: LlamaConfig) -> dict[str, tuple[str | None, ...]]:
    """Return the logical axes of each weight of `decode_form`, by its own name.

    They are those of `param_specs`, of one layer; fused weights have one axis more.
    """
    specs = param_specs(cfg)
    layer = {name: spec.axes[1:] for name, spec in specs.pop("layers").items()}
    heads, into = layer["k"]
    fused = {"qkv": (heads, None, None, into), "gate_up": (None, *layer["gate"])}
    return {name: spec.axes for name, spec in specs.items()} | layer | fused


def init_cache(cfg: LlamaConfig, num_slots: int, length: int) -> cached.Cache:
    """Return an empty cache of `num_slots` slots of `length` positions."""
    shape = (num_slots, cfg.layout.kv_heads, length, cfg.head_dim)
    return cached.init_cache(
        cfg.num_layers, shape, kernel=cfg.attention, dtype=cfg.dtype
    )


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Return `scale * x / sqrt(mean(x^2) + eps)` over the last axis, float32."""
    x = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + eps) * scale.astype(jnp.float32)


def _frequencies(cfg: LlamaConfig):
    scaling = cfg.rope_scaling and dataclasses.astuple(cfg.rope_scaling)
    return attention.rope_frequencies(cfg.head_dim, cfg.rope_theta, scaling)


def _project_heads(
    layer: Params, cfg: LlamaConfig, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return queries [B, T, N, H], keys and values [B, T, K, H] of either form.

    N and K are those of `cfg.layout`.
    """
    batch, length, _ = x.shape
    width = cfg.head_dim
    if "qkv" in layer:
        heads = _product(layer, cfg, x, "qkv")
        heads = heads.reshape(batch, length, cfg.layout.kv_heads, -1, width)
        if cfg.split_decode:
            axes = ("batch", "length", "kv_heads", None, None)
            heads = sharding.constrain(heads, axes)
        q = heads[..., :-2, :].reshape(batch, length, -1, width)
        return q, heads[..., -2, :], heads[..., -1, :]
    q, k, v = (_product(layer, cfg, x, name) for name in "qkv")
    q = sharding.constrain(q, ("batch", "length", "heads"))
    return tuple(y.reshape(batch, length, -1, width) for y in (q, k, v))


def _mlp(layer: Params, cfg: LlamaConfig, x: jax.Array) -> jax.Array:
    """Return `down(silu(gate(x)) * up(x))`, [B, T, D] float32."""
    pair = [layer.get(name) for name in ("gate_up", "down")]
    plain = all(isinstance(weight, jax.Array) for weight in pair)
    if plain and cfg.tensor_ways == 1 and products.are_few(x):
        gate_up, down = (weight.reshape(-1, weight.shape[-1]) for weight in pair)
        return jax.lax.platform_dependent(
            x,
            cpu=lambda x: products.gated(x, gate_up, down, cfg.products),
            default=functools.partial(_mlp_by_rows, layer, cfg),
        )
    return _mlp_by_rows(layer, cfg, x)


def _mlp_by_rows(layer: Params, cfg: LlamaConfig, x: jax.Array) -> jax.Array:
    if "gate_up" in layer and cfg.tensor_ways > 1:
        # Not as one matrix: its halves are split over tensor each for itself, and a
        # compiler would send the weights round to lay one after the other.
        both = products.contract("bti,xoi->btxo", x, layer["gate_up"], cfg.products)
        gate, up = both[:, :, 0], both[:, :, 1]
    elif "gate_up" in layer:
        # As one matrix: a product with two output axes costs CPUs a transpose.
        both = _product(layer, cfg, x, "gate_up")
        gate, up = jnp.split(both, 2, axis=-1)
    else:
        gate, up = (_product(layer, cfg, x, name) for name in ("gate", "up"))
    inner = jax.nn.silu(gate.astype(jnp.float32)) * up
    inner = sharding.constrain(inner, (*cfg.stream[:2], "mlp"))
    return _product(layer, cfg, inner, "down")


def _product(layer: Params, cfg: LlamaConfig, x: jax.Array, name: str) -> jax.Array:
    """Return `x @ weight.T` of a layer's matrix, of either form, a fused one as one."""
    weight = layer[name]
    if "qkv" not in layer:
        return products.product(x, weight, cfg.products)
    weight = weight.reshape(-1, weight.shape[-1])
    kernels = cfg.attention == "cudnn" and cfg.products == products.NARROW
    if kernels and cfg.tensor_ways == 1 and not cfg.split_decode:
        if few_rows.fits(x.shape, weight.shape):
            return few_rows.product(x, weight)
    return products.product(x, weight, cfg.products)


def _cast_once(layer: Params, cfg: LlamaConfig) -> Params:
    """Return a layer whose matrices are cast, and gathered over fsdp, for all to read.

    Where a backward pass makes the layer again, a compiler would otherwise gather each
    matrix once for that and once more for the gradient. (Where it keeps all instead,
    it would keep these too, gathered.)
    """

    def cast(weight: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        return sharding.constrain(weight.astype(cfg.dtype), axes)

    def trained(weight: jax.Array, axes: tuple[str, ...]) -> products.CastOnce:
        return products.CastOnce(jax.lax.stop_gradient(cast(weight, axes)), weight)

    def gathered(weight: jax.Array | products.Quantized, axes: tuple[str, ...]) -> Any:
        if not isinstance(weight, products.Quantized):
            return cast(weight, axes)
        values = sharding.constrain(weight.values, axes)
        return products.Quantized(
            values, sharding.constrain(weight.scale, (axes[0], None))
        )

    def one(name: str, weight: jax.Array | products.Quantized | products.Adapted):
        axes = specs[name].axes[1:]
        if len(axes) < 2:
            return weight
        axes = tuple("activation" if axis == "embed" else axis for axis in axes)
        if isinstance(weight, products.Quantized):
            return gathered(weight, axes)
        if not isinstance(weight, products.Adapted):
            return trained(weight, axes)
        return weight.replace(
            weight=gathered(weight.weight, axes),
            a=trained(weight.a, ("rank", axes[1])),
            b=trained(weight.b, (axes[0], "rank")),
        )

    specs = param_specs(cfg)["layers"]
    return {name: one(name, weight) for name, weight in layer.items()}


def _block(layer, cfg, x, angles, attend) -> jax.Array:
    """Return the residual stream after one layer; `attend(q, k, v)` mixes tokens."""
    if "q" in layer:
        layer = head_layout.spread(layer, cfg.layout, cfg.head_dim)
    if "q" in layer and cfg.remat != "none":
        layer = _cast_once(layer, cfg)
    q, k, v = _project_heads(layer, cfg, rms_norm(x, layer["attn_norm"], cfg.norm_eps))
    mixed = attend(attention.rotate(q, angles), attention.rotate(k, angles), v)
    if cfg.split_decode:
        mixed = sharding.constrain(mixed, (*cfg.stream[:2], "heads"))
    x = x + _product(layer, cfg, mixed, "o")
    x = sharding.constrain(x, cfg.stream) if cfg.split_decode else x
    x = x + _mlp(layer, cfg, rms_norm(x, layer["mlp_norm"], cfg.norm_eps))
    return sharding.constrain(x, cfg.stream)


def hidden_states(
    params: Params,
    cfg: LlamaConfig,
    tokens: jax.Array,
    positions: jax.Array,
    mask: jax.Array | siblings.Siblings,
    cache: cached.Cache | cached.Draft | cached.Fresh | None = None,
) -> tuple[jax.Array, cached.Cache | cached.Draft | None]:
    """Run the trunk: the one forward of generator, scorer, policy and all others.

    Args:
      params: training or decode form; decode form when a cache is given.
      cfg: model numbers.
      tokens: [B, T] int32.
      positions: [B, T] int32, position of each token in its own text, from 0.
      mask: [B, T] bool, True where a token counts; others neither are attended to
        nor are written to the cache. Without a cache also int32: rows of several
        texts, whose tokens have the number of their text, and 0 where none is; a
        negative number sees the text of the positive one and is not seen. The first
        text begins where its row does. Or texts that begin alike, each token once.
      cache: keys and values of the texts so far (see `models.cached`); None for
        whole texts.

    Returns:
      [B, T, D] float32 after the final norm, and the cache with the new tokens (None
      if none was given).
    """
    # Gathered over fsdp first, like every weight: rows are then looked up locally.
    embed = sharding.constrain(params["embed"], ("vocab", cfg.depth_axis))
    x = embed[tokens].astype(cfg.dtype).astype(jnp.float32)  # alike in both forms
    x = sharding.constrain(x, cfg.stream)
    if cache is None:
        angles = attention.rope_angles(positions, _frequencies(cfg))
        x = _run_layers(params["layers"], cfg, x, angles, mask)
    else:
        angles = attention.stored_angles(positions, _frequencies(cfg))
        where = (positions, mask)
        x, cache = _run_cached(params["layers"], cfg, x, angles, where, cache)
    return rms_norm(x, params["final_norm"], cfg.norm_eps), cache


def _run_layers(layers, cfg, x, angles, mask) -> jax.Array:
    alike = mask if isinstance(mask, siblings.Siblings) else None
    mask = attention.prepared(alike.texts if alike else mask, cfg.attention)

    def step(x: jax.Array, layer: Params) -> tuple[jax.Array, None]:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            if alike:
                q, k, v = map(alike.laid_out, (q, k, v))
            mixed = attention.causal_attention(
                q,
                k,
                v,
                mask,
                kernel=cfg.attention,
                block=cfg.attention_block,
                reach=cfg.reach,
                dtype=cfg.dtype,
            )
            return alike.by_token(mixed) if alike else mixed

        return _block(layer, cfg, x, angles, attend), None

    stacked = isinstance(layers, dict)
    if stacked and cfg.cut_as_bits:
        # Within what remat makes again: outside it would be kept.
        step, layers = _cut_as_bits(step, layers)
    # Passes of a loop are loops of their own, so nothing undoes the checkpoint; the
    # barriers that it has elsewhere would make a compiler gather float32 weights.
    loop = stacked and not cfg.unroll
    remat = functools.partial(jax.checkpoint, prevent_cse=not loop)
    if cfg.remat == "full":
        step = remat(step)
    elif cfg.remat == "dots":
        step = remat(step, policy=_is_kept)
    if stacked:
        return jax.lax.scan(step, x, layers, unroll=cfg.unroll)[0]
    for layer in layers:
        x, _ = step(x, layer)
    return x


def _cut_as_bits(step: Callable, layers: Params) -> tuple[Callable, Params]:
    """Return a scan's step, and what it scans, so that bfloat16 is cut as integers.

    The stacks stay outside of the scan, and each is seen as integers within its step,
    where that is no copy of it.
    """
    leaves, structure = jax.tree.flatten(layers)
    stacks = {i: leaf for i, leaf in enumerate(leaves) if leaf.dtype == jnp.bfloat16}
    rest = [None if i in stacks else leaf for i, leaf in enumerate(leaves)]

    def cut(stack: jax.Array, index: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(stack, jnp.uint16)
        own = jax.lax.dynamic_index_in_dim(bits, index, keepdims=False)
        return jax.lax.bitcast_convert_type(own, stack.dtype)

    def one(x: jax.Array, given: Any) -> tuple[jax.Array, None]:
        index, layer = given
        # Or XLA would take the integers of the whole stack out of the loop.
        held, index = jax.lax.optimization_barrier((stacks, index))
        own = [
            cut(held[i], index) if i in held else leaf for i, leaf in enumerate(layer)
        ]
        return step(x, jax.tree.unflatten(structure, own))

    return one, (jnp.arange(len(leaves[0])), rest)


def _is_kept(primitive: Any, *arrays: Any, **numbers: Any) -> bool:
    """Return whether `remat="dots"` keeps what an operation gives.

    Products, and what a kernel of attention leaves for its way back: to make that again
    takes as long as the way there.
    """
    named = jax.checkpoint_policies.save_only_these_names(products.NAME)
    return primitive.name == packed.KERNEL or named(primitive, *arrays, **numbers)


def _run_cached(layers, cfg, x, angles, where, cache):
    if isinstance(layers, dict):
        raise ValueError(
            "hidden_states with a cache needs the weights in decode form; "
            "got stacked layers: call llama.decode_form(params, cfg) first"
        )
    new = []
    for index, layer in enumerate(layers):

        def attend(q, k, v, index=index):
            mixed, buffers = cached.attend(
                cache,
                index,
                (q, k, v),
                *where,
                kernel=cfg.attention,
                block=cfg.attention_block,
                dtype=cfg.dtype,
            )
            new.append(buffers)
            return mixed

        x = _block(layer, cfg, x, angles, attend)
    return x, cached.collect(cache, new, x.shape[1])


def logits(params: Params, cfg: LlamaConfig, hidden: jax.Array) -> jax.Array:
    """Return next-token logits [..., V] float32 from hidden states [..., D]."""
    return products.product(hidden, output_table(params, cfg), cfg.dtype)


def output_table(params: Params, cfg: LlamaConfig) -> jax.Array:
    """Return the matrix [V, D] that logits are made with."""
    return params["embed"] if cfg.tie_embeddings else params["unembed"]
