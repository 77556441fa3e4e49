r"""Run one method for each combination of some fields' values, or print the commands.

    python -m experiments.sweep "policy.kl_coef=0.01,0.1 seed=0..2" \
        -- --config rlcd:task=cheerful,model=random:tiny,size=smoke --workdir D
    python -m experiments.sweep "seed=0..2" --launch "--target slurm --gpus 8" \
        -- --config rlcd:task=cheerful --workdir D

What stands after `--` are the flags of experiments.run; each run has a folder in its
--workdir, named for its values. All are checked before the first begins; one that fails
keeps no other from running. The same command goes on: what is done is skipped.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

import experiments
from experiments import command, run
from rlcd_jax.launching import launcher_words, sweeps


def main() -> None:
    """Run the command line."""
    own, words = launcher_words.split(sys.argv[1:])
    args = _parser().parse_args(own)
    command.for_people(lambda: sys.exit(sweep(args, words)))


def sweep(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Run all runs of a sweep, or print them; return the exit status."""
    runs = sweeps.commands(sweeps.read(args.fields), words)
    for one in runs:
        sys.argv[1:] = one  # where the flags of single fields are looked for
        sweeps.check(one, run.define_flags, experiments.CONFIGS)
    launch = shlex.split(args.launch) if args.launch else None
    if args.dry_run or launch is not None:
        print("\n".join(sweeps.line(one, launch) for one in runs))
        return 0
    return sweeps.run(runs, start, print)


def start(words: Sequence[str]) -> int:
    """Run one in a process of its own; return its exit status."""
    sys.stdout.flush()
    return subprocess.call([sys.executable, "-m", "experiments.run", *words])


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser("sweep", __doc__)
    parser.add_argument("fields", help='such as "policy.kl_coef=0.01,0.1 seed=0..2"')
    parser.add_argument(
        "--dry_run", action="store_true", help="print the commands, run none"
    )
    parser.add_argument(
        "--launch",
        default="",
        help="flags of experiments.launch: print the lines that launch each run",
    )
    return parser


if __name__ == "__main__":
    main()
