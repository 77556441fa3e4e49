r"""Run one method of one config, from prompts to a table.

  python -m experiments.run --workdir runs/rlcd \
      --config configs/rlcd.py:task=harmless,model=hf:/models/llama-7b \
      --config.prompts.hh_dir=/data/hh-rlhf [--stage preference] \
      [--config.policy.steps=40]

A bare name, `--config rlcd:task=harmless`, is the config of that name in the installed
package.

The same command starts and resumes: what is done is skipped. With --stage=simulate,
--part=K/N draws one part of the pairs; parts may run at once, each a command of its own
on a machine of its own, and the last puts the pairs together. The key of a judge behind
an interface is read from the environment variable OPENAI_API_KEY.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs import common
from experiments import command
from rlcd_jax import stages
from rlcd_jax.command_line import job_flags
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.weights import embedded


def describe_fields() -> str:
    """Return what `--help` says of the config's fields."""
    from rlcd_jax.command_line import field_help

    return field_help.of_runs(common.__file__)


def define_flags(values: flags.FlagValues) -> None:
    """Define the flags of the command."""
    command.define_config(values)
    command.define_workdir(values, default="runs/METHOD-TASK-SIZE")
    job_flags.define(values)
    flags.DEFINE_string(
        "stage",
        stages.ALL,
        f"{', '.join(stages.STAGES)}, or {stages.ALL}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "part",
        "",
        "K/N: draw part K of N of the pairs, with --stage=simulate; empty: all.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "profile",
        "",
        "STAGE[:FIRST[-LAST]]: leave a trace of these steps of a stage (of one that "
        "draws: dispatches of the engine) in WORKDIR/profile; empty: none.",
        flag_values=values,
    )


def run(config: ConfigDict) -> None:
    """Run the stages that the flags ask for."""
    from experiments import process
    from rlcd_jax import pipeline, processes
    from rlcd_jax.checks import refusals
    from rlcd_jax.command_line import last_words, workdir_name
    from rlcd_jax.job import profiling

    source = flags.FLAGS["config"].config_filename
    fresh = flags.FLAGS["config"].parser.parse(source)
    refusals.check_labels(config, fresh, source)
    asked, part = flags.FLAGS.stage, flags.FLAGS.part
    names = stages.named(asked, config)
    profile = profiling.read(flags.FLAGS.profile, names)
    own = workdir_name.of(config.name, config.task, config.size)
    workdir = flags.FLAGS.workdir or own
    with process.job(
        config, workdir, job_flags.read(flags.FLAGS), stage=asked, part=part
    ):
        pipeline.run_stages(
            config,
            workdir,
            names,
            cache_dir=str(embedded.default_cache_dir(os.environ)),
            preset=fresh.to_dict(),
            part=part,
            profile=profile,
            api_key=os.environ.get(api_settings.KEY),
        )
        if processes.is_writer():
            room = shutil.get_terminal_size((last_words.MOST, 24)).columns
            print(last_words.of(workdir, room))


def run_all(values: Mapping[str, Any], workdir: str) -> None:
    """Run all stages of a config, given as a dict, in a process that does no more."""
    from experiments import process
    from rlcd_jax import pipeline

    config = ConfigDict(values)

    def work() -> None:
        with process.job(config, workdir, job_flags.ALONE, stage=stages.ALL, part=""):
            pipeline.run_stages(
                config,
                workdir,
                stages.named(stages.ALL, config),
                cache_dir=str(embedded.default_cache_dir(os.environ)),
                preset=None,
                api_key=os.environ.get(api_settings.KEY),
            )

    command.for_people(work)


def main() -> None:
    """Start the command."""
    command.start(run, define_flags, __doc__, describe_fields)


if __name__ == "__main__":
    main()
