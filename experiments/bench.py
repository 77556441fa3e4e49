"""Measure on this machine, against a roofline and against peers, in one run.

    python -m experiments.bench --what decode --model smollm2-135m --slots 8,32
    python -m experiments.bench --what decode --model llama-7b --slots 64 --peer hf
    python -m experiments.bench --what simulate --model smollm2-135m --hh_dir DIR
    python -m experiments.bench --what train --model smollm2-135m --peer torch \
        --config.distill.batch_size=8
    python -m experiments.bench --what ppo --model tinyllama-1.1b --peer trl \
        --config.policy.rollouts=64 --config.policy.update_batch=64
    python -m experiments.bench --what quickstart --cold

Prints one JSON object. `decode`: tokens a second, milliseconds a step, the
milliseconds in which the weights and the live cache go through memory once at the
copy bandwidth measured in the same run, and the fraction of that reached.
`simulate`: whole pairs against the released procedure, static batches of 16 whose
every sample has 300 tokens. `train`, `preference`: an update of the stages distill
and preference on texts as long as real ones, its model FLOP/s and the fraction of the
rate of one large product measured beside it. `ppo`: a whole step, from prompts to the
last update. These three take their sizes from the config of rlcd, size=paper, whose
fields are set as in a run, and the mesh from there too. `quickstart`: the job as its
user starts it, with minutes by stage; `--cold`: with no compiled program.

Peers run in turns with ours, so that a busy machine slows both: `hf` is Hugging Face
transformers' `generate` and `torch` a training step (extra `bench`), `trl` PPO of
TRL 1.12, the last that has it, and `llama.cpp` reads the GGUF file of --model.

Absolute times hold on one machine only; the ratios are what is worth quoting.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import jax  # noqa: E402

from experiments import command  # noqa: E402
from rlcd_jax.bench import measuring  # noqa: E402
from rlcd_jax.command_line import config_flag  # noqa: E402
from rlcd_jax.models import llama  # noqa: E402
from rlcd_jax.weights import embedded  # noqa: E402


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args, fields = _parser().parse_known_args(argv)
    command.for_people(lambda: measure(args, fields))


def measure(args: argparse.Namespace, fields: Sequence[str]) -> None:
    """Measure what the flags ask for, and print it."""
    cache_dir = embedded.default_cache_dir(os.environ)
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "jax"))
    config = command.method_config("rlcd", "task=cheerful,size=paper")
    config = config_flag.with_fields(config, fields)
    with contextlib.redirect_stdout(sys.stderr):  # some peers print
        result = measuring.measure(
            vars(args),
            cache_dir,
            importlib.import_module,
            config,
            (sys.executable, "-m", "experiments.quickstart"),
            os.environ,
        )
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        pathlib.Path(args.out).write_text(text + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("bench", __doc__)
    add = parser.add_argument
    whats, peers = measuring.WHAT, measuring.PEERS
    add("--what", choices=whats, default="decode", help="what is measured")
    add(
        "--model",
        default="smollm2-135m",
        help="shape, with random weights: a preset, hf:PATH_OR_ID or gguf:PATH",
    )
    add("--slots", default="8,32", help="decode: slots to measure, with commas")
    add("--prompt", type=int, default=64, help="prompt tokens")
    add("--new", type=int, default=64, help="decode: tokens of each reply")
    add("--dtype", choices=llama.DTYPES, default="bfloat16", help="of products")
    add(
        "--attention",
        choices=("auto", *llama.ATTENTION),
        default="auto",
        help="kernel; auto: cudnn on NVIDIA GPUs, splash on TPUs, else xla",
    )
    add("--steps", type=int, help="tokens a slot between looks by the host")
    add("--repeats", type=int, default=3, help="turns; the median is reported")
    add("--peer", choices=peers, default="none", help="measured in turns")
    add("--peer_batch", type=int, default=0, help="peer's batch; 0: that of --slots")
    add("--pairs", type=int, default=96, help="simulate: number of pairs")
    add(
        "--tail_tokens",
        type=int,
        default=0,
        help="simulate: engine.tail_tokens; 0: all slots to the end",
    )
    add("--hh_dir", default="", help="simulate: hh-rlhf folder to take lengths from")
    add(
        "--top_k", type=int, default=0, help="0: all tokens; the released script had 50"
    )
    add("--cold", action="store_true", help="quickstart: with no compiled program")
    add(
        "--config.FIELD",
        metavar="VALUE",
        help="train, preference, ppo: a field of the config, as in experiments.run",
    )
    add("--out", default="", help="also write the JSON here")
    return parser


if __name__ == "__main__":
    main()
