"""The jobs that a command splits into, and what each of them waits for."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Sequence

from ml_collections import ConfigDict

from rlcd_jax.job import setup
from rlcd_jax.pairs import blocks, work_parts
from rlcd_jax.paper import graph
from rlcd_jax.planning import counts

START = ("-m", "experiments.")  # what Python is given before a command's name
# Of one budget, which is a process's own: made by the job of the tables.
TOGETHER = ("judge_api",)
TABLES = "tables"


@dataclasses.dataclass(frozen=True)
class ClusterJob:
    """One command of this project, as a job.

    Attributes:
      name: letters, digits, dots and dashes.
      words: the command's name, then its flags.
      after: names of the jobs that must have succeeded before it starts.
      parts: how many jobs of one host each it is, told by --part=K/N; 0: it is one
        job of as many hosts as the site gives.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    parts: int = 0

    def command(self, python: str, part: str | int = "") -> str:
        """Return the line of shell that runs the job.

        Args:
          python: the interpreter, in shell.
          part: number of the part, or what the shell replaces by it; "": no part.
        """
        name, *flags = self.words
        line = f"{python} {''.join(' '.join(START))}{name} {shlex.join(flags)}"
        return f'{line} --part="{part}/{self.parts}"' if self.parts else line


def of_run(
    words: Sequence[str], config: ConfigDict, stages: Sequence[str], parts: int
) -> list[ClusterJob]:
    """Return the jobs of one run: its pairs in parts, then its other stages.

    Args:
      words: flags of `experiments.run`.
      config: that they make.
      stages: that it is to run.
      parts: of the simulation; 0 or 1: it is not split.

    Raises:
      ValueError: parts of a run that does not simulate, or more than it has blocks.
    """
    if parts > 1 and "simulate" not in stages:
        raise ValueError(
            f"--parts={parts} splits the stage simulate, which is none of this run's: "
            f"{', '.join(stages)}; leave --parts out"
        )
    if parts < 2:
        return [ClusterJob("run", ("run", *words))]
    check_parts(config, parts)
    drawn = ClusterJob("simulate", ("run", *words, "--stage=simulate"), parts=parts)
    if tuple(stages) == ("simulate",):
        return [drawn]
    return [drawn, ClusterJob("run", ("run", *words), after=(drawn.name,))]


def of_graph(
    words: Sequence[str], needed: Iterable[graph.Node], parts: int
) -> list[ClusterJob]:
    """Return the jobs of tables: one for each node, then one for the tables.

    Nodes that ask an API are made by the job of the tables, since they share a limit
    on cost.

    Args:
      words: flags of `experiments.reproduce`.
      needed: the nodes that are still to be made, parents first.
      parts: of each simulation; 0 or 1: it is not split.

    Raises:
      ValueError: a simulation has fewer blocks than parts.
    """
    needed = list(needed)
    for node in needed:
        if parts > 1 and node.stage == "simulate":
            check_parts(node.config, parts)
    own = [node for node in needed if node.stage not in TOGETHER]
    names = {node.key: _plain(graph.name_of(node)) for node in own}
    of_nodes = [
        ClusterJob(
            names[node.key],
            ("reproduce", *words, f"--node={graph.name_of(node)}"),
            tuple(names[p.key] for p in node.parents if p.key in names),
            parts if node.stage == "simulate" and parts > 1 else 0,
        )
        for node in own
    ]
    waited = {name for job in of_nodes for name in job.after}
    last = tuple(job.name for job in of_nodes if job.name not in waited)
    return [*of_nodes, ClusterJob(TABLES, ("reproduce", *words), after=last)]


def check_parts(config: ConfigDict, parts: int) -> None:
    """Refuse more parts than the simulation of a run has blocks, at most.

    Raises:
      ValueError: some parts would have nothing to draw.
    """
    prompts = counts.num_prompts(config, setup.load_task(config), "train")
    prompts *= config.pairs.samples_per_prompt
    places = blocks.starts(prompts, config.pairs.part_prompts)
    blocks.check_part(work_parts.WorkPart(1, parts), len(places))


def levels(jobs: Sequence[ClusterJob]) -> list[list[ClusterJob]]:
    """Return jobs by when they can start: each after all of the lists before."""
    depth: dict[str, int] = {}
    for job in jobs:  # those that a job waits for stand before it
        depth[job.name] = 1 + max((depth[name] for name in job.after), default=-1)
    rows: list[list[ClusterJob]] = [[] for _ in range(max(depth.values()) + 1)]
    for job in jobs:
        rows[depth[job.name]].append(job)
    return rows


def _plain(name: str) -> str:
    """Return a name that every scheduler takes."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name)
