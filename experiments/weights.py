r"""Bring weights in from other programs and hand trained ones back, with a check.

    python -m experiments.weights import --model gguf:PATH --out DIR
    python -m experiments.weights export --checkpoint RUN/policy --out DIR
    python -m experiments.weights export --checkpoint RUN/policy --out policy.gguf \
        --dtype bfloat16
    python -m experiments.weights export --checkpoint RUN/preference \
        --item preference --out DIR

A name that ends in .gguf gets a GGUF file, its tokenizer in it, which llama.cpp runs;
any other name a Hugging Face folder that transformers 4 and 5 load: a policy as
LlamaForCausalLM, which `model=hf:DIR` names here too, a preference or value model as
LlamaForSequenceClassification with one label (a value is that of the last token; the
model card shows how all are read), and a model card. Adapters of a run (lora.rank) are
merged in its model; with --adapters they are written alone, as PEFT loads them. What is
written is read again and compared with its source before it gets its name: config,
weights, ids of texts, logits, the most likely text. When one of them is not the same,
there is none.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence

from experiments import command
from rlcd_jax.command_line import flag_help
from rlcd_jax.weights import embedded, exchange, hf, scalar


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = _parser().parse_args(argv)
    command.for_people(lambda: print("\n".join(write(args))))


def write(args: argparse.Namespace) -> list[str]:
    """Write what the flags ask for; return what was written and checked."""
    cache_dir = args.cache_dir or embedded.default_cache_dir(os.environ)
    size, drops = args.max_shard_gb * 10**9, getattr(args, "drop_bias", False)
    target = exchange.Target(args.out, args.dtype, size, drops)
    if args.command == "import":
        return exchange.import_model(args.model, target, cache_dir, print)
    export = exchange.export_checkpoint
    if args.adapters:
        export = exchange.export_adapters
    return export(args.checkpoint, args.item, args.model, target, cache_dir, print)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("weights", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser(
        "import",
        help="write a model as a HF folder or GGUF file",
        formatter_class=flag_help.Help,
    )
    bring.add_argument(
        "--model", required=True, help="smollm2-135m, gguf:PATH or hf:PATH_OR_ID"
    )
    hand = commands.add_parser(
        "export",
        help="write a checkpoint as a HF folder or GGUF file",
        formatter_class=flag_help.Help,
    )
    hand.add_argument(
        "--checkpoint",
        required=True,
        type=pathlib.Path,
        help="RUN/policy for the run's policy, another stage, or a step of either",
    )
    hand.add_argument(
        "--item", default=scalar.POLICY, help=", ".join(scalar.ARCHITECTURES)
    )
    hand.add_argument(
        "--adapters",
        action="store_true",
        help="what was trained alone, for PEFT, where the run has lora.rank above 0",
    )
    hand.add_argument("--model", help="model of the run; default: its config.json's")
    hand.add_argument(
        "--drop_bias",
        action="store_true",
        help="of a score or value: leave out the bias that transformers cannot hold",
    )
    for one in (bring, hand):
        one.add_argument(
            "--out",
            required=True,
            type=pathlib.Path,
            help="new folder, or a new file that ends in .gguf",
        )
        one.add_argument(
            "--dtype", default="float32", choices=sorted(hf.DTYPES), help="of weights"
        )
        one.add_argument(
            "--max_shard_gb", type=float, default=5.0, help="of a file, at most"
        )
        one.add_argument(
            "--cache_dir",
            type=pathlib.Path,
            help="of fetched models; default: ~/.cache/rlcd_jax",
        )
    return parser


if __name__ == "__main__":
    main()
