r"""Does a config fit on some chips, how long will it take, what would have to change.

  python -m experiments.plan --topology h100:8 \
      --config configs/rlcd.py:task=harmless,model=llama-7b,hardware=8xh100 \
      --config.prompts.hh_dir=/data/hh-rlhf [--workdir RUN] [--stage policy] \
      [--slices 2] [--search] [--compile] [--only decode,update] [--price 2.5] \
      [--efficiency 0.4] [--margin 0.05] [--format tsv]

Other topologies are written v5p:8x8x4, v5e:16x16, cpu:256; `--slices` is how many of
them there are, and sets `mesh.slices`. Needs neither weights nor accelerator, so a
shape such as llama-7b is a model here. `--search` ranks meshes, parts of batches,
rematerialisation and slots by time among those that fit. `--compile` also compiles
every program for that topology: on `cpu:N` with N fake devices, on TPUs with the extra
`tpu` installed, on GPUs with the extra `cuda`. `--format` is text, tsv or json;
`--workdir` leaves the plan there, and the run's report shows it. The exit status is 1
if a stage is refused or does not fit.
"""

from __future__ import annotations

import functools
import os
import sys

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import common
from experiments import command
from rlcd_jax.command_line import field_help
from rlcd_jax.planning import apart, chips, compiled, plan, reporting, tables


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of the command."""
    command.define_config(values)
    own = {"flag_values": values}
    known = ", ".join(chips.CHIPS)
    flags.DEFINE_string("topology", None, f"CHIP:N or CHIP:NxN…; {known}.", **own)
    flags.DEFINE_list(
        "stage", [], "Stages, by comma; those of the config if empty.", **own
    )
    flags.DEFINE_integer(
        "slices", 0, "How many of the topology; 0: as the config's mesh has.", **own
    )
    flags.DEFINE_bool("search", False, "Rank all settings that fit by time.", **own)
    flags.DEFINE_bool("compile", False, "Compile all programs for it.", **own)
    flags.DEFINE_list(
        "only", [], "Compile the programs whose names begin so; empty: all.", **own
    )
    flags.DEFINE_float(
        "price", None, "Of a chip for an hour; 0: no costs; else a list price.", **own
    )
    flags.DEFINE_float(
        "efficiency", chips.PRODUCT_SHARE, "Share of the peak rate reached.", **own
    )
    flags.DEFINE_float(
        "bandwidth_share", chips.BANDWIDTH_SHARE, "Of the memory's, reached.", **own
    )
    flags.DEFINE_float(
        "margin", chips.MARGIN, "Share of the usable memory left free.", **own
    )
    flags.DEFINE_float(
        "memory_share",
        None,
        "Of a GPU's memory, as XLA_PYTHON_CLIENT_MEM_FRACTION will be in the run.",
        **own,
    )
    flags.DEFINE_enum("format", "text", tables.FORMATS, "What is printed.", **own)
    flags.DEFINE_string("workdir", "", "Run in whose folder plan.json is left.", **own)
    flags.DEFINE_string(
        apart.FLAG,
        "",
        "Set by --compile itself, for the process that it starts.",
        **own,
    )
    flags.mark_flag_as_required("topology", values)


def run(config: ConfigDict) -> int:
    """Plan what the flags ask for; return the exit status."""
    asked = flags.FLAGS
    jax.config.update("jax_platforms", "cpu")
    config, topology = reporting.name_chips(
        config, asked.topology, slices=asked.slices, memory_share=asked.memory_share
    )
    if asked[apart.FLAG].value:
        figures = compiled.measure_all(config, topology, asked.stage, asked.only)
        apart.write(figures, asked[apart.FLAG].value)
        return 0
    rates = plan.Rates.on(
        topology.chip,
        price=asked.price,
        efficiency=asked.efficiency,
        bandwidth_share=asked.bandwidth_share,
        margin=asked.margin,
    )
    again = [sys.executable, "-m", "experiments.plan", *sys.argv[1:]]
    measure = functools.partial(apart.measure, topology, again, os.environ)
    report = reporting.make_report(
        config,
        topology,
        asked.stage,
        rates,
        searches=asked.search,
        measure=measure if asked.compile else None,
    )
    print(tables.render(report, asked.format))
    if asked.workdir:
        reporting.leave(report, asked.workdir)
    return 0 if report.works else 1


def main() -> None:
    """Start the command; a mistake in the config is one message too."""
    describe_fields = functools.partial(field_help.of_runs, common.__file__)
    command.start(
        lambda config: sys.exit(run(config)), define_flags, __doc__, describe_fields
    )


if __name__ == "__main__":
    main()
