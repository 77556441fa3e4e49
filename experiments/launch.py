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
import dataclasses
import os
import shlex
import subprocess
import sys
from types import ModuleType

from absl import flags

import experiments
from experiments import command, reproduce, run
from rlcd_jax import launching
from rlcd_jax.checks import refusals, rules
from rlcd_jax.command_line import config_flag
from rlcd_jax.launching import jobs, site
from rlcd_jax.paper import graph, plans, read_config
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
    for field in dataclasses.fields(target.Site) if target else ():
        told = f"{field.metadata['told']} ({field.default!r})".replace("%", "%%")
        parser.add_argument(f"--{field.name}", help=told)
    return parser


def read_command(
    words: list[str], target: ModuleType, parts: int
) -> tuple[list[jobs.ClusterJob], str]:
    """Return the jobs that a command splits into, and its workdir; it is checked."""
    name, *given = words
    values = flags.FlagValues()
    COMMANDS[name].define_flags(values)
    rest = config_flag.parse([name, *given], values, experiments.CONFIGS)
    if rest != [name]:
        raise ValueError(f"unexpected word {rest[1]!r}; all settings are flags")
    config, workdir = values.config, values.workdir
    if name == "run":
        refusals.check_config(config)
        stages = config.stages if values.stage == "all" else (values.stage,)
        refusals.refuse(rules.problems(config, stages))
        found = jobs.of_run(given, config, stages, parts)
    else:
        setup = read_config.read_setup(
            config,
            workdir,
            make_config=command.method_config,
            cache_dir=str(embedded.default_cache_dir(os.environ)),
            api_key=os.environ.get(read_config.KEY),
        )
        wanted = plans.wanted(plans.choose(setup))
        found = jobs.of_graph(given, graph.needed(workdir, wanted), parts)
    if not target.QUEUES:
        found = [jobs.ClusterJob(name, (name, *given), parts=parts if parts > 1 else 0)]
    return found, workdir


def launch(argv: list[str]) -> None:
    """Print the script of a command, and submit it if that is asked for."""
    place = argv.index("--") if "--" in argv else len(argv)
    own, words = argv[:place], argv[place + 1 :]
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--target")
    name = first.parse_known_args(own)[0].target
    args = make_parser(launching.TARGETS.get(name)).parse_args(own)
    if not words or words[0] not in COMMANDS:
        raise ValueError(
            f"after -- stands {' '.join(words[:1]) or 'nothing'}; accepted: a command "
            f"with its flags, of {', '.join(COMMANDS)}"
        )
    if args.parts < 1:
        raise ValueError(f"--parts={args.parts}; accepted: a whole number from 1")
    target = launching.TARGETS[args.target]
    found, workdir = read_command(words, target, args.parts)
    names = [field.name for field in dataclasses.fields(target.Site)]
    given = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    typed = shlex.join(["python", "-m", "experiments.launch", *argv])
    text = target.script(found, site.read(target.Site, given), workdir, typed)
    print(text, end="", flush=True)
    if args.submit:
        done = subprocess.run(target.SUBMIT, input=text, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{target.SUBMIT[0]} ended with {done.returncode}")


def start() -> None:
    """Start the command; a mistake of the user is one message and status 2."""
    command.for_people(lambda: launch(sys.argv[1:]))


if __name__ == "__main__":
    start()
