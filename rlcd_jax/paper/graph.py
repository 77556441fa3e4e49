"""The cached graph of runs: nodes named by their content, made once.

A node is one stage of one run in a folder of its own. The name of the folder holds a
hash of all that the node's result depends on: the stage, its part of the config, its
settings and the names of its parents. So tables share nodes, a changed setting makes
new ones, and a graph that was killed goes on: a node with its DONE mark is left alone,
and a stage that was interrupted goes on from its own checkpoints. Several jobs may make
one graph: each node is made under a lock, by whoever comes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import pathlib
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import done_mark, leaving, locks, processes, stages
from rlcd_jax.job import changes, freed_memory, memory_maps, roles, workspace

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
        whole["model"] = roles.bound(whole["model"], ())  # one has all roles there
        part = {name: whole[name] for name in SECTIONS[stage]}
        for name in {"model", "prompts"} & part.keys():
            part[name] = changes.bound(name, part[name])
    else:
        part = workspace.stage_config(config, stage)
    return {
        "stage": stage,
        "config": part,
        "settings": dict(settings),
        "parents": {name: [parent.key, path] for name, parent, path in links},
    }


def name_of(node: Node) -> str:
    """Return the name of a node, which is that of its folder too."""
    return f"{node.stage}-{node.label}-{node.key[:12]}".replace("/", "_")


def find(nodes: Iterable[Node], name: str) -> Node:
    """Return the node of this name among nodes and all they need.

    Raises:
      ValueError: there is none.
    """
    named = {name_of(node): node for node in in_order(nodes)}
    if name not in named:
        near = difflib.get_close_matches(name, named, n=3, cutoff=0.3)
        raise ValueError(
            f"no node {name!r} in this graph of {len(named)}; the nearest: "
            f"{', '.join(near) or 'none'}. A node's name holds a hash of its config, "
            "so give the config that the name came from; --dry_run lists all"
        )
    return named[name]


def folder(root: str | pathlib.Path, node: Node) -> pathlib.Path:
    """Return the folder of a node."""
    return pathlib.Path(root) / "nodes" / name_of(node)


def is_done(root: str | pathlib.Path, node: Node) -> bool:
    """Say whether a node was made before."""
    done = done_mark.check_done(folder(root, node), node.identity)
    return processes.agreed(f"{name_of(node)} is done", done)


def in_order(
    nodes: Iterable[Node], leave_out: Callable[[Node], bool] = lambda node: False
) -> list[Node]:
    """Return the nodes and all they need, each once, parents first.

    Args:
      nodes: to begin with.
      leave_out: says which nodes are not wanted, nor what they alone need.
    """
    ordered: dict[str, Node] = {}

    def visit(node: Node) -> None:
        if node.key in ordered or leave_out(node):
            return
        for parent in node.parents:
            visit(parent)
        ordered[node.key] = node

    for node in nodes:
        visit(node)
    return list(ordered.values())


def needed(root: str | pathlib.Path, nodes: Iterable[Node]) -> list[Node]:
    """Return the nodes that are still to be made, parents first.

    A node that is done asks for nothing, so the parents of a finished node may have
    been deleted to save room.
    """
    return in_order(nodes, lambda node: is_done(root, node))


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
        leaving.leave_if_asked(f"{number - 1} of {len(waiting)} nodes are made")
        logging.info("node %d of %d: %s", number, len(waiting), name_of(node))
        make_one(root, node, functions)
        memory_maps.drop_programs_if_many()
        freed_memory.give_back()
    return waiting


def make_one(
    root: str | pathlib.Path,
    node: Node,
    functions: Mapping[str, Callable[[Node, pathlib.Path], Mapping[str, Any]]],
) -> None:
    """Make one node, or wait for who makes it; its parents must be there.

    Args:
      root: folder of the graph.
      node: what is wanted.
      functions: of each stage, from a node and its folder to a summary.

    Raises:
      ValueError: a parent is not made.
    """
    if is_done(root, node):
        return
    place = prepare(root, node)
    with contextlib.ExitStack() as held:
        if processes.is_writer():
            held.enter_context(locks.held(place / ".lock", logging.info))
        if is_done(root, node):  # where the other processes wait for the lock too
            logging.info("%s: made by another job meanwhile", place.name)
            return
        summary = functions[node.stage](node, place)
        if processes.is_writer():
            done_mark.mark_done(place, node.identity, summary)
        processes.barrier(f"{place.name} is done")


def prepare(root: str | pathlib.Path, node: Node) -> pathlib.Path:
    """Make the folder of a node, linked to what it reads, and return it.

    Raises:
      ValueError: a parent is not made.
    """
    for parent in node.parents:
        if not is_done(root, parent):
            raise ValueError(
                f"node {name_of(node)} reads {name_of(parent)}, which is not made; "
                f"make it first, with --node={name_of(parent)}"
            )
    place = folder(root, node)
    workspace.open_run(node.config, place)
    workspace.check_shared(place)
    for name, parent, path in node.links:
        link(place / name, folder(root, parent) / path)
    processes.barrier(f"{place.name} begins")
    return place


def link(place: pathlib.Path, target: pathlib.Path) -> None:
    """Make `place` point to `target`, relative, so that the root can be moved.

    The writer does; others see it behind the next barrier.
    """
    if not processes.is_writer():
        return
    relative = os.path.relpath(target, place.parent)
    if place.is_symlink() and os.readlink(place) == relative:
        return
    fresh = place.with_name(f".{place.name}.{platform.node()}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(relative, target_is_directory=True)
    fresh.replace(place)  # in one move: another job may do the same
