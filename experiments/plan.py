"""Does a config fit on some chips, how long will it take, what would have to change.

  python -m experiments.plan --config configs/rlcd.py:task=harmless,model=llama-7b \
      --topology v5p:8x8x4|v5e:16x16|h100:8|cpu:256 [--stage policy] [--compile] \
      [--json] [--workdir RUN]

Needs neither weights nor accelerator. ``--compile`` also compiles the updates for that
topology: on ``cpu:N`` with N fake devices, on TPUs with the extra ``tpu`` installed.
``--json`` prints JSON only; ``--workdir`` leaves it as plan.json, which the report
shows. The exit status is 1 if a stage is refused or does not fit.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import jax
from absl import app, flags
from jax.experimental import mesh_utils, topologies
from ml_collections import ConfigDict, config_flags
from rich import box, console, table

from experiments import command
from rlcd_jax import chips, sharding
from rlcd_jax.stages import plan, plan_advice, plan_compile, plan_passes

FILE_NAME = "plan.json"
WIDTH = 132  # columns of the table where there is no terminal

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
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of tables.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Run in whose folder plan.json is left.")
_MEASURE = flags.DEFINE_string(
    "measure_to", "", "For the process that compiles: the file for its figures."
)


def main(argv: list[str]) -> int:
    """Plan what the flags ask for; return the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; all settings are flags")
    jax.config.update("jax_platforms", "cpu")
    config, topology = _CONFIG.value, chips.parse_topology(_TOPOLOGY.value)
    if _MEASURE.value:
        figures = measure(config, topology, _STAGE.value or config.stages)
        pathlib.Path(_MEASURE.value).write_text(json.dumps(figures))
        return 0
    if _COMPILE.value:
        check_compilable(topology)
    made = plan.make_plan(config, topology, _STAGE.value)
    advice = None
    if not made.works:
        names = [stage.name for stage in made.stages]
        advice = plan_advice.advise(config, topology, names)
    measured = compile_apart(topology) if _COMPILE.value else {}
    report = as_json(made, advice, measured)
    if _JSON.value:
        print(json.dumps(report, indent=2))
    else:
        show(made, advice, measured)
    if _WORKDIR.value:
        path = pathlib.Path(_WORKDIR.value, FILE_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if made.works else 1


def compile_apart(topology: chips.Topology) -> dict[str, dict[str, Any]]:
    """Compile in a process of its own, whose devices are fake or absent.

    Returns:
      The fields of ``plan_compile.Measured`` by stage.
    """
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1"}
    if topology.chip.platform == "cpu":
        count = f"--xla_force_host_platform_device_count={topology.num_devices}"
        environ["XLA_FLAGS"] = f"{environ.get('XLA_FLAGS', '')} {count}".strip()
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
        return json.loads(path.read_text())


def check_compilable(topology: chips.Topology) -> None:
    """Refuse to compile for chips that have no compiler without them."""
    if topology.chip.platform == "gpu":
        raise ValueError(
            f"--compile for {topology.text} needs these chips: only TPUs can be "
            "compiled for from afar; without --compile the plan is an estimate, and "
            f"cpu:{topology.num_devices} checks that every sharding compiles"
        )


def measure(
    config: ConfigDict, topology: chips.Topology, stages: list[str]
) -> dict[str, dict[str, Any]]:
    """Return the compiler's figures of each stage that has an update."""
    shape = sharding.mesh_shape(
        config.mesh.data, config.mesh.fsdp, config.mesh.tensor, topology.num_devices
    )
    mesh = jax.sharding.Mesh(
        mesh_utils.create_device_mesh(
            shape, devices=find_devices(topology), allow_split_physical_axes=True
        ),
        sharding.MESH_AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )
    figures = {}
    for stage in stages:
        if stage in plan_compile.TRAINERS:
            try:
                found = plan_compile.measure(config, mesh, stage)
            except ValueError as error:
                found = plan_compile.Measured(problem=str(error))
            figures[stage] = vars(found)
    return figures


def find_devices(topology: chips.Topology) -> list[Any]:
    """Return the devices to compile for: fake CPUs, or TPUs that are not there."""
    if topology.chip.platform == "cpu":
        return jax.devices()
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.text
        )
    except (RuntimeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise ValueError(
            f"no compiler for {topology.text}: {str(error).partition(chr(10))[0]}; "
            "install the extra that has one, pip install -e '.[tpu]', in an "
            "environment of its own, and give the topology as Google does (v5e:16x16)"
        ) from error
    return described.devices


def as_json(
    made: plan.Plan,
    advice: plan_advice.Advice | None,
    measured: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return a plan as plain data; memory in GiB a device, times in hours."""
    chip = made.topology.chip
    return {
        "topology": made.topology.text,
        "model": made.model,
        "parameters": made.num_params,
        "mesh": made.mesh,
        "usable_gib": chip.usable_gib,
        "source": chip.source,
        "product_share": chips.PRODUCT_SHARE,
        "bandwidth_share": chips.BANDWIDTH_SHARE,
        "train_prompts": made.train_prompts,
        "test_prompts": made.test_prompts,
        "works": made.works,
        "change": advice.as_flags() if advice else "",
        "stages": {
            stage.name: _stage_json(made, stage)
            | ({"compiled": measured[stage.name]} if stage.name in measured else {})
            for stage in made.stages
        },
    }


def _stage_json(made: plan.Plan, stage: plan.StagePlan) -> dict[str, Any]:
    if stage.problem:
        return {"verdict": plan.REFUSED, "problem": stage.problem}
    hours = {p.name: _hours(made, p) for p in stage.programs}
    return {
        "verdict": made.verdict(stage),
        "largest_program": stage.largest.name,
        "needs_gib": _gib(stage.largest.total),
        "programs": {
            one.name: {name: _gib(size) for name, size in one.sizes.items() if size}
            | {"total": _gib(one.total), "model_flops": one.flops}
            | ({} if hours[one.name] is None else {"hours": hours[one.name]})
            for one in stage.programs
        },
    }


def _gib(size: float) -> float:
    return round(size / chips.GIB, 3)


def _hours(made: plan.Plan, program: plan_passes.Program) -> float | None:
    seconds = made.seconds(program)
    return None if seconds is None else round(seconds / 3600, 3)


def show(
    made: plan.Plan,
    advice: plan_advice.Advice | None,
    measured: dict[str, dict[str, Any]],
) -> None:
    """Print a plan for people."""
    out = console.Console(highlight=False)
    if not out.is_terminal:
        out = console.Console(highlight=False, width=WIDTH)
    usable, chip = made.topology.chip.usable_gib, made.topology.chip
    mesh = ", ".join(f"{name}={size}" for name, size in made.mesh.items())
    room = "unknown memory" if usable is None else f"{usable:g} GiB usable each"
    out.print(
        f"{made.model} ({made.num_params / 1e9:.3g}B parameters) on "
        f"{made.topology.text}: {made.topology.num_devices} x {chip.name}, {room}; "
        f"mesh {mesh}\nchip: {chip.source}\n"
        f"prompts: {made.train_prompts} to train, {made.test_prompts} held out"
    )
    out.print(_programs_table(made))
    for stage in made.stages:
        out.print(f"{stage.name}: {_verdict_text(made, stage)}", soft_wrap=True)
        if stage.name in measured:
            out.print(_measured_text(stage, measured[stage.name]), soft_wrap=True)
    if advice:
        out.print(f"all stages fit with  {advice.as_flags()}", soft_wrap=True)
    elif not made.works:
        out.print("no mesh, batch or number of slots fits: use chips with more memory")


def _programs_table(made: plan.Plan) -> table.Table:
    rates = (
        f"times: replies as long as allowed, {chips.PRODUCT_SHARE:.0%} of the peak "
        f"rate, {chips.BANDWIDTH_SHARE:.0%} of the bandwidth in decoding; host time "
        "and communication left out"
    )
    title = "GiB a device, at the worst moment of each program"
    grid = table.Table(title=title, caption=rates, box=box.SIMPLE_HEAD)
    grid.add_column("program", no_wrap=True)
    for name in (*plan_passes.SIZES, "total"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("PFLOP", justify="right")
    grid.add_column("hours", justify="right")
    for stage in made.stages:
        for one in stage.programs:
            sizes = [one.sizes.get(name, 0) for name in plan_passes.SIZES]
            cells = [f"{size / chips.GIB:.2f}" if size else "" for size in sizes]
            hours = _hours(made, one)
            grid.add_row(
                f"{stage.name} {one.name}",
                *cells,
                f"{one.total / chips.GIB:.2f}",
                f"{one.flops / 1e15:,.0f}" if one.flops else "",
                "" if hours is None or not one.flops else f"{hours:.2f}",
            )
        grid.add_section()
    return grid


def _verdict_text(made: plan.Plan, stage: plan.StagePlan) -> str:
    found, usable = made.verdict(stage), made.topology.chip.usable_gib
    if found == plan.REFUSED:
        return f"{found}: {stage.problem}"
    need = f"{stage.largest.total / chips.GIB:.2f} GiB for {stage.largest.name}"
    return f"{found}: {need}" + ("" if usable is None else f", of {usable:g} GiB")


def _measured_text(stage: plan.StagePlan, found: dict[str, Any]) -> str:
    if found["problem"]:
        return f"  the compiler refuses: {found['problem']}"
    update = next((one for one in stage.programs if one.name == "update"), None)
    beside = ""
    if update:
        own = [n for n in plan_passes.SIZES if n not in ("frozen", "decode", "cache")]
        estimate = sum(update.sizes.get(name, 0) for name in own)
        beside = (
            f"; estimates: peak {estimate / chips.GIB:.3f}, "
            f"arguments {update.arguments / chips.GIB:.3f}"
        )
    return (
        f"  compiled in {found['seconds']:.0f} s: peak "
        f"{found['peak'] / chips.GIB:.3f} GiB, arguments "
        f"{found['arguments'] / chips.GIB:.3f}, temporary "
        f"{found['temporary'] / chips.GIB:.3f}{beside}"
    )


def start() -> None:
    """Start the command; a mistake in the config is one message too."""
    flags.mark_flags_as_required(["config", "topology"])
    command.for_people(
        lambda: app.run(lambda argv: command.for_people(lambda: _run(argv)))
    )


def _run(argv: list[str]) -> None:
    sys.exit(main(argv))


if __name__ == "__main__":
    start()
