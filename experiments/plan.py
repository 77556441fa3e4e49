"""Does a config fit on some chips, how long will it take, what would have to change.

  python -m experiments.plan --config configs/rlcd.py:task=harmless,model=llama-7b \
      --topology v5p:8x8x4|v5e:16x16|h100:8|cpu:256 [--stage policy] [--compile] \
      [--price 2.5] [--efficiency 0.4] [--json] [--workdir RUN]

Needs neither weights nor accelerator. `--compile` also compiles the updates for that
topology: on `cpu:N` with N fake devices, on TPUs with the extra `tpu` installed, on
GPUs with the extra `cuda`. `--price` of one chip for one hour adds what each stage
costs. `--json` prints JSON only; `--workdir` leaves it as plan.json, which the
report shows. The exit status is 1 if a stage is refused or does not fit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import jax
from absl import app, flags
from ml_collections import config_flags

from experiments import command
from rlcd_jax.checks import refusals
from rlcd_jax.planning import advice, chips, compiled, plan, tables

FILE_NAME = "plan.json"

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file with its argument: configs/NAME.py[:name=value,…]."
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", None, f"CHIP:N or CHIP:NxN…; chips: {', '.join(chips.CHIPS)}."
)
_STAGE = flags.DEFINE_list(
    "stage", [], "Stages, by comma; those of the config if empty."
)
_COMPILE = flags.DEFINE_bool("compile", False, "Compile the updates for the topology.")
_PRICE = flags.DEFINE_float("price", 0.0, "Of one chip for one hour; 0: no costs.")
_EFFICIENCY = flags.DEFINE_float(
    "efficiency", chips.PRODUCT_SHARE, "Share of the peak rate to reckon with."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of tables.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Run in whose folder plan.json is left.")
_MEASURE = flags.DEFINE_string(
    "measure_to", "", "For the process that compiles: the file for its figures."
)


def main(argv: list[str], problems: Sequence[str] = ()) -> int:
    """Plan what the flags ask for; return the exit status.

    Args:
      argv: what is left of the command line beside flags.
      problems: what the run's own first checks refuse in the config.
    """
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; all settings are flags")
    jax.config.update("jax_platforms", "cpu")
    config, topology = _CONFIG.value, chips.parse_topology(_TOPOLOGY.value)
    stages = _STAGE.value or config.stages
    if _MEASURE.value:
        figures = compiled.measure_all(config, topology, stages)
        as_data = {name: dataclasses.asdict(one) for name, one in figures.items()}
        pathlib.Path(_MEASURE.value).write_text(json.dumps(as_data))
        return 0
    if _COMPILE.value:
        compiled.check_compilable(topology)
    made = plan.make_plan(config, topology, stages, efficiency=_EFFICIENCY.value)
    report = tables.Report(
        made,
        change=None if made.works else advice.advise(config, topology, stages),
        measured=compile_apart(topology) if _COMPILE.value else {},
        problems=problems,
        price=_PRICE.value,
    )
    as_json = json.dumps(tables.as_json(report), indent=2)
    print(as_json if _JSON.value else tables.as_text(report))
    if _WORKDIR.value:
        path = pathlib.Path(_WORKDIR.value, FILE_NAME)
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
        command = [sys.executable, "-m", "experiments.plan", *sys.argv[1:]]
        done = subprocess.run(
            [*command, f"--measure_to={path}"],
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
    flags.mark_flags_as_required(["config", "topology"])
    command.for_people(
        lambda: app.run(lambda argv: command.for_people(lambda: _run(argv)))
    )


def _run(argv: list[str]) -> None:
    devices = chips.parse_topology(_TOPOLOGY.value).num_devices
    sys.exit(main(argv, refusals.verdict(_CONFIG.value, num_devices=devices)))


if __name__ == "__main__":
    start()
