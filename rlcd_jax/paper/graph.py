"""The cached graph of runs: nodes named by their content, made once.

A node is one stage of one run in a folder of its own. The name of the folder holds a
hash of all that the node's result depends on: the stage, its part of the config, its
settings and the names of its parents. So tables share nodes, a changed setting makes
new ones, and a graph that was killed goes on: a node with its DONE mark is left alone,
and a stage that was interrupted goes on from its own checkpoints.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import done_mark, leaving, processes, stages
from rlcd_jax.job import workspace

# What the stages that only tables need depend on; workspace knows the others.
SECTIONS = {
    "relabel": (*stages.SHARED, "pairs"),
    "join": (),
    "tune": (*stages.SHARED, "preference", "evaluate"),
    "select": (),
    "sample": (*stages.SHARED, "evaluate"),
    "judge": stages.SHARED,
    "judge_api": (),
    "pair_rewards": (*stages.SHARED, "preference"),
    "reply_rewards": (*stages.SHARED, "preference"),
    "perplexity": stages.SHARED,
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a node may take: tokens to generate, to train on and to read; calls."""

    generated: float = 0.0
    trained: float = 0.0
    scored: float = 0.0
    calls: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One stage of one run.

    Attributes:
      stage: its name.
      label: for people: method, task, seed.
      config: of the run.
      links: (name in this node's folder, parent, path in the parent's folder).
      settings: what else its result depends on, as plain values.
      free: what its result does not depend on, such as where files lie.
      cost: an estimate.
      key: hash of all that the result depends on.
    """

    stage: str
    label: str
    config: ConfigDict
    links: tuple[tuple[str, Node, str], ...]
    settings: Mapping[str, Any]
    free: Mapping[str, Any]
    cost: Cost
    key: str

    @property
    def identity(self) -> dict[str, Any]:
        """All that the result depends on."""
        return identity(self.stage, self.config, self.links, self.settings)

    @property
    def parents(self) -> tuple[Node, ...]:
        """The nodes that must be done before."""
        return tuple(parent for _, parent, _ in self.links)


def make_node(
    stage: str,
    label: str,
    config: ConfigDict,
    *,
    links: tuple[tuple[str, Node, str], ...] = (),
    settings: Mapping[str, Any] | None = None,
    free: Mapping[str, Any] | None = None,
    cost: Cost,
) -> Node:
    """Return a node with its key."""
    settings = settings or {}
    key = done_mark.config_hash(identity(stage, config, links, settings))
    return Node(stage, label, config, links, settings, free or {}, cost, key)


def identity(
    stage: str,
    config: ConfigDict,
    links: tuple[tuple[str, Node, str], ...],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the result of a stage depends on, as plain values."""
    if stage in SECTIONS:
        whole = config.to_dict()
        part = {name: whole[name] for name in SECTIONS[stage]}
        for name in {"model", "prompts"} & part.keys():
            section = part[name].items()
            part[name] = {k: v for k, v in section if k not in workspace.FREE}
    else:
        part = workspace.stage_config(config, stage)
    return {
        "stage": stage,
        "config": part,
        "settings": dict(settings),
        "parents": {name: [parent.key, path] for name, parent, path in links},
    }


def folder(root: str | pathlib.Path, node: Node) -> pathlib.Path:
    """Return the folder of a node."""
    return pathlib.Path(root) / "nodes" / f"{node.stage}-{node.label}-{node.key[:12]}"


def is_done(root: str | pathlib.Path, node: Node) -> bool:
    """Say whether a node was made before."""
    return processes.agreed(done_mark.check_done(folder(root, node), node.identity))


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes and all they need, each once, parents first."""
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key in found:
            return
        for parent in node.parents:
            visit(parent)
        found[node.key] = node

    for node in nodes:
        visit(node)
    return list(found.values())


def needed(root: str | pathlib.Path, nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that are still to be made, parents first.

    A node that is done asks for nothing, so the parents of a finished node may have
    been deleted to save room.
    """
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key in found or is_done(root, node):
            return
        for parent in node.parents:
            visit(parent)
        found[node.key] = node

    for node in nodes:
        visit(node)
    return list(found.values())


def make(
    root: str | pathlib.Path,
    nodes: Iterable[Node],
    functions: Mapping[str, Callable[[Node, pathlib.Path], Mapping[str, Any]]],
) -> list[Node]:
    """Make what is still to be made and return it, in the order in which it was made.

    Args:
      root: folder of the graph.
      nodes: what is wanted.
      functions: of each stage, from a node and its folder to a summary.
    """
    waiting = needed(root, nodes)
    for number, node in enumerate(waiting, start=1):
        place = folder(root, node)
        leaving.leave_if_asked(f"{number - 1} of {len(waiting)} nodes are made")
        logging.info("node %d of %d: %s", number, len(waiting), place.name)
        workspace.open_run(node.config, place)
        workspace.check_shared(place)
        for name, parent, path in node.links:
            link(place / name, folder(root, parent) / path)
        processes.barrier(f"{place.name} begins")
        summary = functions[node.stage](node, place)
        if processes.is_writer():
            done_mark.mark_done(place, node.identity, summary)
        processes.barrier(f"{place.name} is done")
    return waiting


def link(place: pathlib.Path, target: pathlib.Path) -> None:
    """Make `place` point to `target`, relative, so that the root can be moved.

    The writer does; others see it behind the next barrier.
    """
    if not processes.is_writer():
        return
    relative = os.path.relpath(target, place.parent)
    if place.is_symlink():
        if os.readlink(place) == relative:
            return
        place.unlink()
    place.symlink_to(relative, target_is_directory=True)
