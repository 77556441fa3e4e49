r"""Make a table of the paper, with intervals, from prompts to the last figure.

  python -m experiments.reproduce --config configs/paper.py:table=3,scale=smollm2-135m \
      --workdir D --dry_run
  python -m experiments.reproduce --config configs/paper.py:table=3,scale=smollm2-135m \
      --workdir D [--config.tasks=harmless,helpful] [--config.run.prompts.limit=96]

The first says what would be made and what it may cost. The second makes it: a graph of
runs in D/nodes, shared by all tables, each made once; killed and started again it goes
on. Tables are printed, the paper's figure beside ours, and written to D/tables as
markdown and JSON, and all of them as one page, D/tables/tables.html; beside methods
stand the curves of PPO as SVG. What cannot be made is marked as missing, with the
reason. --node=NAME makes one node alone, whose parents are made, so that the nodes of a
graph can be jobs of a cluster: see experiments.launch.

  2 people     3 a judge     5 preference models on human pairs     6 Rescore
  16 few-shot RLAIF     23 people and judge     28, 29 held-out reward
  36 label accuracy     40 human pairs mixed in     perplexity, diversity, length
  theory (Appendix N)     methods (against the base model)     all
  quirks (each switch between the method and its released code; not in all)

The fields of the config are explained in configs/paper.py: the grid, seeds, tasks and
methods, shots of Table 16, studies of people, and a judge behind an OpenAI-compatible
interface, whose key is read from the environment variable OPENAI_API_KEY. Without it a
local model judges.
"""

from __future__ import annotations

import contextlib
import functools
import os

from absl import flags
from ml_collections import ConfigDict

from configs import common
from configs import paper as paper_config
from experiments import command
from rlcd_jax.command_line import config_flag, job_flags
from rlcd_jax.weights import embedded


def run(
    config: ConfigDict,
    workdir: str,
    *,
    dry_run: bool,
    node: str = "",
    part: str = "",
    typed: job_flags.JobFlags = job_flags.ALONE,
) -> None:
    """Say what is to be made, make it, and print and write the tables."""
    from experiments import process
    from rlcd_jax.judging import settings as api_settings
    from rlcd_jax.paper import plans, read_config

    asked = plans.Asked(dry_run, node, part)
    setup = read_config.read_setup(
        config,
        workdir,
        make_config=command.method_config,
        cache_dir=str(embedded.default_cache_dir(os.environ)),
        api_key=os.environ.get(api_settings.KEY),
        dry=dry_run,
    )
    chosen = plans.choose(setup)
    together = process.job(config, workdir, typed, node=node, part=part)
    with together if asked.makes(chosen) else contextlib.nullcontext():
        say = functools.partial(print, flush=True)
        plans.carry_out(setup, chosen, asked, say=say)


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of the command."""
    command.define_config(values)
    command.define_workdir(values)
    job_flags.define(values)
    flags.DEFINE_bool("dry_run", False, "List, make nothing.", flag_values=values)
    told = "Make this node of the graph alone, and no table; --dry_run lists names."
    flags.DEFINE_string("node", "", told, flag_values=values)
    told = "K/N: draw part K of N of a --node of pairs; empty: all of it."
    flags.DEFINE_string("part", "", told, flag_values=values)


def describe_fields() -> str:
    """Return what `--help` says of the config's fields."""
    from rlcd_jax.command_line import field_help

    return field_help.of_tables(
        paper_config.get_config(),
        paper_config.__file__,
        run_file=common.__file__,
        arguments=paper_config.ARGUMENTS,
        set_by_tables=paper_config.SET_BY_TABLES,
    )


def main() -> None:
    """Start the command; a mistake of the user is one message and status 2."""

    def action(config: ConfigDict) -> None:
        config_flag.refuse_overrides(flags.FLAGS, ("table", "scale"))
        values = flags.FLAGS
        run(
            config,
            values.workdir,
            dry_run=values.dry_run,
            node=values.node,
            part=values.part,
            typed=job_flags.read(values),
        )

    command.start(action, define_flags, __doc__, describe_fields)


if __name__ == "__main__":
    main()
