r"""Print the scripts that start a command on a cluster; submit nothing unless asked.

  python -m experiments.launch --target slurm --parts 8 --partition gpu \
      -- run --config configs/rlcd.py:task=cheerful,model=hf:DIR --workdir D \
      --config.pairs.part_prompts=16
  python -m experiments.launch --target slurm \
      -- reproduce --config configs/paper.py:table=3,scale=smollm2-135m --workdir D

  slurm    a script of bash; each job is one sbatch, after those that it needs
  gke      one JobSet for kubectl
  tpu-vm   gcloud lines for all hosts of one TPU slice

A run is its pairs, in parts if --parts says so, then its other stages. Tables are one
job for each node of their graph that is still to be made, then one for the tables.
Everything can be started again: what is done is skipped, a job that was killed goes
on. --submit gives the script to bash or kubectl.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from types import ModuleType

import experiments
from experiments import command, reproduce, run
from rlcd_jax import launching
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.launching import launcher_words, site, submission
from rlcd_jax.weights import embedded

COMMANDS = {"run": run, "reproduce": reproduce}


def make_parser(target: ModuleType | None) -> argparse.ArgumentParser:
    """Return the parser of the command's own flags, with a target's values."""
    parser = command.make_parser("launch", __doc__)
    parser.add_argument("--target", required=True, choices=tuple(launching.TARGETS))
    parser.add_argument(
        "--parts", type=int, default=1, help="jobs that draw the pairs (1)"
    )
    parser.add_argument("--submit", action="store_true", help="start it too")
    for flag, told in site.flags(target.Site).items() if target else ():
        parser.add_argument(flag, help=told)
    return parser


def launch(argv: list[str]) -> None:
    """Print the script of a command, and submit it if that is asked for."""
    own, words = launcher_words.split(argv)
    args = make_parser(launcher_words.find_target(own)).parse_args(own)
    launcher_words.check(words, args.parts, COMMANDS)
    target = launching.TARGETS[args.target]
    around = launcher_words.Around(
        configs=experiments.CONFIGS,
        make_config=command.method_config,
        cache_dir=str(embedded.default_cache_dir(os.environ)),
        api_key=os.environ.get(api_settings.KEY),
    )
    define = COMMANDS[words[0]].define_flags
    split_jobs, workdir = launcher_words.read_command(
        words, define, target, args.parts, around
    )
    typed = shlex.join(["python", "-m", "experiments.launch", *argv])
    text = target.script(split_jobs, site.read(target.Site, vars(args)), workdir, typed)
    print(text, end="", flush=True)
    if args.submit:
        submission.submit(text, target.SUBMIT)


def main() -> None:
    """Start the command; a mistake of the user is one message and status 2."""
    command.for_people(lambda: launch(sys.argv[1:]))


if __name__ == "__main__":
    main()
