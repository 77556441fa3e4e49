"""Bring weights in from other programs and hand trained ones back, with a check.

    python -m experiments.weights import --model gguf:PATH --out DIR
    python -m experiments.weights export --checkpoint RUN/policy/checkpoints --out DIR

Both write a Hugging Face folder that transformers loads and that ``model=hf:DIR``
names. Then they read it again and compare its logits with those of the source; the
command fails when they are not the same numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import checkpoint, tokenizer
from rlcd_jax.models import llama, presets, table
from rlcd_jax.stages import inputs, policy_choice
from rlcd_jax.weights import embedded, hf, resolve

CHECK_TOKENS = 64  # tokens of the text whose logits are compared


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights to write, whose model they are and how it spells."""

    params: Any
    cfg: llama.LlamaConfig
    text_tokenizer: tokenizer.Tokenizer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        source = read_model(args) if args.command == "import" else read_run(args)
        hf.export(
            args.out,
            source.params,
            source.cfg,
            tokenizer=source.text_tokenizer,
            dtype=args.dtype,
            max_shard_bytes=int(args.max_shard_gb * 10**9),
        )
        lines = check_folder(args.out, source, args.dtype)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join([f"wrote {args.out}", *lines]))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("import", help="write a model as a HF folder")
    bring.add_argument(
        "--model", required=True, help="smollm2-135m, gguf:PATH or hf:PATH_OR_ID"
    )
    hand = commands.add_parser("export", help="write a checkpoint as a HF folder")
    hand.add_argument(
        "--checkpoint",
        required=True,
        help="RUN/policy/checkpoints for the run's policy, or a step in it",
    )
    hand.add_argument("--item", default="policy", help="which of its items")
    hand.add_argument("--model", help="model of the run; default: its config.json's")
    for one in (bring, hand):
        one.add_argument("--out", required=True, type=pathlib.Path, help="new folder")
        one.add_argument("--dtype", default="float32", choices=sorted(hf.DTYPES))
        one.add_argument("--max-shard-gb", type=float, default=5.0)
        one.add_argument("--cache-dir", help="of fetched models; ~/.cache/rlcd_jax")
    return parser


def read_model(args: argparse.Namespace) -> Source:
    """Return the weights of a model that another program wrote."""
    found = resolve.resolve_model(args.model, _cache_dir(args), print)
    return Source(found.load_params(), found.cfg, found.load_tokenizer())


def read_run(args: argparse.Namespace) -> Source:
    """Return the weights of a run's checkpoint, its policy's if no step is named."""
    folder, step = pathlib.Path(args.checkpoint), None
    if folder.name.isdecimal():
        folder, step = folder.parent, int(folder.name)
    else:
        folder = policy_choice.find_policy(folder)
    step = checkpoint.latest_step(folder) if step is None else step
    if step is None:
        raise ValueError(f"{folder} holds no checkpoint; name RUN/STAGE/checkpoints")
    spec = args.model or _spec_of_run(folder.parent)
    if spec.startswith(inputs.RANDOM):
        cfg = presets.get_preset(spec.removeprefix(inputs.RANDOM))
        text_tokenizer = tokenizer.byte_tokenizer(cfg.vocab_size)
    else:
        found = resolve.resolve_model(spec, _cache_dir(args), print)
        cfg, text_tokenizer = found.cfg, found.load_tokenizer()
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    abstract = checkpoint.abstract_like(
        table.abstract_params(llama.param_specs(cfg)), one_device
    )
    items, _ = checkpoint.restore(folder, step, {args.item: abstract})
    return Source(items[args.item], cfg, text_tokenizer)


def _spec_of_run(folder: pathlib.Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is not there; name the run's model with --model")
    return json.loads(path.read_text("utf-8"))["model"]["spec"]


def _cache_dir(args: argparse.Namespace) -> pathlib.Path:
    if args.cache_dir:
        return pathlib.Path(args.cache_dir)
    return embedded.default_cache_dir(os.environ)


def check_folder(folder: pathlib.Path, source: Source, dtype: str) -> list[str]:
    """Read a written folder again and compare logits with the source's.

    Returns:
      Lines that say what was compared.

    Raises:
      ValueError: the folder's logits are not those of the source in ``dtype``.
    """
    cfg = hf.read_config(folder)
    wanted = source.params
    exact = check_logits(wanted, source.cfg)
    if dtype != "float32":
        wanted = jax.tree.map(
            lambda leaf: np.asarray(leaf).astype(hf.DTYPES[dtype]).astype(np.float32),
            wanted,
        )
    found = check_logits(hf.load_params(folder, cfg), cfg)
    gap = float(np.abs(found - check_logits(wanted, source.cfg)).max())
    if not gap == 0.0:
        raise ValueError(
            f"{folder} was written but its logits differ from the source's by {gap:g}; "
            "do not use it"
        )
    rounding = float(np.abs(found - exact).max())
    return [
        f"checked: the logits of {CHECK_TOKENS} tokens, read again, are the same",
        f"rounding the weights to {dtype} moved a logit by {rounding:.2g} at most",
    ]


def check_logits(params: Any, cfg: llama.LlamaConfig) -> np.ndarray:
    """Return float32 logits [CHECK_TOKENS, V] of a fixed random text."""
    cfg = dataclasses.replace(cfg, dtype="float32", attention="xla")
    ids = np.random.default_rng(0).integers(0, cfg.vocab_size, (1, CHECK_TOKENS))
    tokens = jnp.asarray(ids, jnp.int32)
    positions = jnp.arange(CHECK_TOKENS)[None]
    hidden, _ = llama.hidden_states(
        params, cfg, tokens, positions, jnp.ones(tokens.shape, bool)
    )
    return np.asarray(llama.logits(params, cfg, hidden)[0])


if __name__ == "__main__":
    sys.exit(main())
