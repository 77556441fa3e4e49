"""The launcher's words: its own flags, then a command, and the jobs it splits into."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Collection, Sequence
from types import ModuleType

from absl import flags

from rlcd_jax import launching, stages
from rlcd_jax.checks import refusals, rules
from rlcd_jax.command_line import config_flag
from rlcd_jax.launching import jobs
from rlcd_jax.paper import graph, plans, read_config


@dataclasses.dataclass(frozen=True)
class Around:
    """What a command reads beside its words.

    Attributes:
      configs: folder of the project's own configs.
      make_config: from a method's name and an argument string to its config.
      cache_dir: of fetched models.
      api_key: of the API judge; None: there is none.
    """

    configs: pathlib.Path
    make_config: read_config.MakeConfig
    cache_dir: str
    api_key: str | None


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the launcher's own words, and those of the command after `--`."""
    words = list(words)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def find_target(own: Sequence[str]) -> ModuleType | None:
    """Return the target that the launcher's own words name; None: none that is known.

    Its values are flags too, so that it must be known before the words are parsed.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--target")
    return launching.TARGETS.get(first.parse_known_args(own)[0].target)


def check(words: Sequence[str], parts: int, commands: Collection[str]) -> None:
    """Refuse what is no command with its flags, and no number of parts.

    Args:
      words: what stands after `--`.
      parts: jobs that draw the pairs.
      commands: names of those that can be launched.
    """
    if not words or words[0] not in commands:
        raise ValueError(
            f"after -- stands {' '.join(words[:1]) or 'nothing'}; accepted: a command "
            f"with its flags, of {', '.join(commands)}"
        )
    if parts < 1:
        raise ValueError(f"--parts={parts}; accepted: a whole number from 1")


def read_command(
    words: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    target: ModuleType,
    parts: int,
    around: Around,
) -> tuple[list[jobs.ClusterJob], str]:
    """Return the jobs that a command splits into, and its workdir.

    Args:
      words: "run" or "reproduce", then its flags; see `check`.
      define: defines all flags of this command.
      target: of `launching.TARGETS`.
      parts: jobs that draw the pairs, from 1.
      around: what the command reads beside its words.

    Raises:
      ValueError: the command itself would refuse it, or it has not so many parts.
    """
    name, *own_flags = words
    values = flags.FlagValues()
    define(values)
    rest = config_flag.parse([name, *own_flags], values, around.configs)
    if rest != [name]:
        raise ValueError(f"unexpected word {rest[1]!r}; all settings are flags")
    if not values.workdir:  # a run of this machine would take one below where it stands
        raise ValueError("--workdir is missing; give a folder that all hosts see")
    if name == "run":
        split_jobs = _jobs_of_run(own_flags, values, parts)
    else:
        split_jobs = _jobs_of_tables(own_flags, values, parts, around)
    if not target.QUEUES:
        split_jobs = [
            jobs.ClusterJob(name, (name, *own_flags), parts=parts if parts > 1 else 0)
        ]
    return split_jobs, values.workdir


def _jobs_of_run(
    own_flags: Sequence[str], values: flags.FlagValues, parts: int
) -> list[jobs.ClusterJob]:
    config = values.config
    refusals.check_config(config)
    names = stages.named(values.stage, config)
    refusals.refuse(rules.problems(config, names))
    return jobs.of_run(own_flags, config, names, parts)


def _jobs_of_tables(
    own_flags: Sequence[str], values: flags.FlagValues, parts: int, around: Around
) -> list[jobs.ClusterJob]:
    setup = read_config.read_setup(
        values.config,
        values.workdir,
        make_config=around.make_config,
        cache_dir=around.cache_dir,
        api_key=around.api_key,
    )
    wanted = plans.wanted(plans.choose(setup))
    return jobs.of_graph(own_flags, graph.needed(values.workdir, wanted), parts)
