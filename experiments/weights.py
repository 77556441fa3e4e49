r"""Bring weights in from other programs and hand trained ones back, with a check.

    python -m experiments.weights import --model gguf:PATH --out DIR
    python -m experiments.weights export --checkpoint RUN/policy --out DIR
    python -m experiments.weights export --checkpoint RUN/preference \
        --item preference --out DIR

Both write a Hugging Face folder that transformers loads: a policy as
LlamaForCausalLM, which `model=hf:DIR` names here too, a preference model as
LlamaForSequenceClassification and a value model as LlamaForTokenClassification, each
with one label. The folder is read again and compared with its source before it gets
its name; when a weight, the config or the tokenizer is not the same, there is none.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from rlcd_jax.weights import embedded, exchange, hf, scalar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    cache_dir = args.cache_dir or embedded.default_cache_dir(os.environ)
    try:
        target = exchange.Target(args.out, args.dtype, args.max_shard_gb * 10**9)
        if args.command == "import":
            lines = exchange.import_model(args.model, target, cache_dir, print)
        else:
            lines = exchange.export_checkpoint(
                args.checkpoint, args.item, args.model, target, cache_dir, print
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
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
        type=pathlib.Path,
        help="RUN/policy for the run's policy, another stage, or a step of either",
    )
    hand.add_argument(
        "--item", default=scalar.POLICY, help=" or ".join(scalar.ARCHITECTURES)
    )
    hand.add_argument("--model", help="model of the run; default: its config.json's")
    for one in (bring, hand):
        one.add_argument("--out", required=True, type=pathlib.Path, help="new folder")
        one.add_argument("--dtype", default="float32", choices=sorted(hf.DTYPES))
        one.add_argument("--max-shard-gb", type=float, default=5.0)
        one.add_argument(
            "--cache-dir",
            type=pathlib.Path,
            help="of fetched models; ~/.cache/rlcd_jax",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
