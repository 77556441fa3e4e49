"""Runs one config undisturbed and then stopped at random, and compares all they leave.

A chain is one workdir: a child process runs in it until a moment comes, the next goes
on and is stopped again, and so on until one ends. So a hundred kills cost a hundred
starts, and few whole runs.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from rlcd_jax import stages
from rlcd_jax.resuming import children, comparing, moments

EACH = 3  # times that a chain is stopped in each part
ASKED = 0.25  # share of stops that ask the run to leave, the others kill it
UNDISTURBED = "undisturbed"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of the stops.

    Attributes:
      hits: how often each (part, kind, signal) was hit.
      chains: workdirs that were stopped and went on.
      differences: from the undisturbed run, or how a run failed; a line each.
    """

    hits: Mapping[tuple[str, str, int], int]
    chains: int
    differences: tuple[str, ...]

    @property
    def stops(self) -> int:
        """How often a run was stopped."""
        return sum(self.hits.values())


def verify(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    run: children.Run,
    *,
    kills: int,
    seed: int,
    say: Say,
) -> Verdict:
    """Stop a run so many times, and say what is other than in one that nobody stopped.

    Args:
      config: of the run.
      workdir: a new folder; the workdirs of all chains go in it, and stay where they
        differ.
      run: what a child does.
      kills: how often, at least.
      seed: of the moments.
      say: is told how it goes.

    Raises:
      ValueError: there is something in the folder, or the undisturbed run fails.
    """
    place = pathlib.Path(workdir)
    if place.exists() and any(place.iterdir()):
        raise ValueError(f"workdir {place} is not empty; give a new folder")
    parts = [stages.STAGES[name].folder for name in config.stages]
    nursery = children.Nursery(run, parts, place / "logs")
    whole = nursery.run(config.to_dict(), place / UNDISTURBED)
    if whole.status:
        raise ValueError(
            f"the undisturbed run ended with status {whole.status}:\n{whole.log}"
        )
    seen = collections.defaultdict(list)
    for event in whole.events:
        seen[event.part].append(event)
    say(f"undisturbed: {len(whole.events)} changes of files")
    hits: collections.Counter = collections.Counter()
    found: list[str] = []
    chance, chains = random.Random(seed), 0
    while hits.total() < kills:
        chains += 1
        chain = place / f"chain-{chains:03d}"
        told = _run_chain(nursery, config, chain, seen, chance, hits)
        told = told or comparing.differences(place / UNDISTURBED, chain)
        found += [f"{chain.name}: {line}" for line in told]
        say(f"{chain.name}: {hits.total()} of {kills} stops, {len(told)} differences")
        if not told:
            shutil.rmtree(chain)
    return Verdict(dict(hits), chains, tuple(found))


def _run_chain(
    nursery: children.Nursery,
    config: ConfigDict,
    workdir: pathlib.Path,
    seen: Mapping[str, Sequence[moments.Event]],
    chance: random.Random,
    hits: collections.Counter,
) -> list[str]:
    """Run in one folder to the end, stopped on the way; return how it failed."""
    left = dict.fromkeys(seen, EACH)
    while True:
        stops = []
        for part in (part for part, count in left.items() if count):
            asks = chance.random() < ASKED
            number = signal.SIGTERM if asks else signal.SIGKILL
            stops.append(moments.draw(part, seen[part], number, chance))
        ended = nursery.run(config.to_dict(), workdir, stops)
        for hit in ended.hits:
            number = next(s.signal for s in stops if s.part == hit.part)
            hits[hit.part, hit.kind, int(number)] += 1
            left[hit.part] -= 1
        if ended.status == 0:
            return []
        if not ended.goes_on:
            at = "".join(f" after {hit.what}" for hit in ended.hits)
            return [f"ended with status {ended.status}{at}:\n{ended.log}"]


def report(verdict: Verdict) -> str:
    """Return what came of it, for people: the table, and each difference."""
    count = len(verdict.differences)
    return "\n".join(
        [
            table(verdict),
            f"{verdict.stops} stops in {verdict.chains} runs: {count} differences",
            *verdict.differences,
        ]
    )


def table(verdict: Verdict) -> str:
    """Return how often each part was stopped at what, as a table in Markdown."""
    kinds = [k for k in moments.KINDS if any(hit[1] == k for hit in verdict.hits)]
    asked = "of these by SIGTERM"
    lines = [
        "| stopped in | " + " | ".join([*kinds, "all", asked]) + " |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    parts = list(dict.fromkeys(part for part, _, _ in verdict.hits))
    for part in sorted(parts):
        own = [(k[1], k[2], n) for k, n in verdict.hits.items() if k[0] == part]
        cells = [sum(n for kind, _, n in own if kind == one) for one in kinds]
        terms = sum(n for _, number, n in own if number == signal.SIGTERM)
        row = [part, *cells, sum(cells), terms]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)
