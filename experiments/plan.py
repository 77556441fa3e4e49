r"""Does a config fit on some chips, how long will it take, what would have to change.

  python -m experiments.plan --topology h100:8 \
      --config configs/rlcd.py:task=harmless,model=llama-7b \
      --config.prompts.hh_dir=/data/hh-rlhf --config.mesh.fsdp=8 \
      --config.policy.micro_batch=32 [--workdir RUN] \
      [--stage policy] [--compile] [--price 2.5] [--efficiency 0.4] [--json]

Other topologies are written v5p:8x8x4, v5e:16x16, cpu:256. Needs neither weights nor
accelerator, so a shape such as llama-7b is a model here. `--compile` also compiles the
updates for that topology: on `cpu:N` with N fake devices, on TPUs with the extra `tpu`
installed, on GPUs with the extra `cuda`. `--price` of one chip for one hour adds what
each stage costs. `--json` prints JSON only; `--workdir` leaves it as plan.json, which
the report shows. The exit status is 1 if a stage is refused or does not fit.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import common
from experiments import command
from rlcd_jax.checks import refusals
from rlcd_jax.command_line import field_help
from rlcd_jax.planning import advice, chips, compiled, plan, tables

FILE_NAME = "plan.json"


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of the command."""
    command.define_config(values)
    own = {"flag_values": values}
    known = ", ".join(chips.CHIPS)
    flags.DEFINE_string("topology", None, f"CHIP:N or CHIP:NxN…; {known}.", **own)
    flags.DEFINE_list(
        "stage", [], "Stages, by comma; those of the config if empty.", **own
    )
    flags.DEFINE_bool("compile", False, "Compile the updates for the topology.", **own)
    flags.DEFINE_float("price", 0.0, "Of one chip for one hour; 0: no costs.", **own)
    flags.DEFINE_float(
        "efficiency",
        chips.PRODUCT_SHARE,
        "Share of the peak rate to reckon with.",
        **own,
    )
    flags.DEFINE_bool("json", False, "Print JSON instead of tables.", **own)
    flags.DEFINE_string("workdir", "", "Run in whose folder plan.json is left.", **own)
    flags.DEFINE_string(
        "measure_to",
        "",
        "Set by --compile itself, for the process that it starts.",
        **own,
    )
    flags.mark_flag_as_required("topology", values)


def run(config: ConfigDict, problems: Sequence[str] = ()) -> int:
    """Plan what the flags ask for; return the exit status.

    Args:
      config: of the run.
      problems: what the run's own first checks refuse in the config.
    """
    asked = flags.FLAGS
    jax.config.update("jax_platforms", "cpu")
    topology = chips.parse_topology(asked.topology)
    stages = asked.stage or config.stages
    if asked.measure_to:
        figures = compiled.measure_all(config, topology, stages)
        as_data = {name: dataclasses.asdict(one) for name, one in figures.items()}
        pathlib.Path(asked.measure_to).write_text(json.dumps(as_data))
        return 0
    if asked.compile:
        compiled.check_compilable(topology)
    made = plan.make_plan(config, topology, stages, efficiency=asked.efficiency)
    report = tables.Report(
        made,
        change=None if made.works else advice.advise(config, topology, stages),
        measured=compile_apart(topology) if asked.compile else {},
        problems=problems,
        price=asked.price,
    )
    as_json = json.dumps(tables.as_json(report), indent=2)
    print(as_json if asked.json else tables.as_text(report))
    if asked.workdir:
        path = pathlib.Path(asked.workdir, FILE_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json + "\n")
    return 0 if report.works else 1


def compile_apart(topology: chips.Topology) -> dict[str, compiled.Measured]:
    """Compile in a process of its own, whose devices are fake or absent."""
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    own = (environ.get("XLA_FLAGS", ""), compiled.xla_flags(topology))
    environ["XLA_FLAGS"] = " ".join(filter(None, own))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "measured.json")
        again = [sys.executable, "-m", "experiments.plan", *sys.argv[1:]]
        done = subprocess.run(
            [*again, f"--measure_to={path}"],
            env=environ,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise ValueError(f"compiling failed; its last words: {said[-1]}")
        figures = json.loads(path.read_text())
    return {name: compiled.Measured(**one) for name, one in figures.items()}


def start() -> None:
    """Start the command; a mistake in the config is one message too."""

    def action(config: ConfigDict) -> None:
        devices = chips.parse_topology(flags.FLAGS.topology).num_devices
        names = tuple(flags.FLAGS.stage) or config.stages
        told = refusals.verdict(config, names=names, num_devices=devices)
        sys.exit(run(config, told))

    describe_fields = functools.partial(field_help.of_runs, common.__file__)
    command.start(action, define_flags, __doc__, describe_fields)


if __name__ == "__main__":
    start()
