"""Curves of PPO beside the table of all methods: how each policy came to its row.

A curve is the mean over seeds of the policy that was chosen, its band their range.
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from rlcd_jax import metric_rows
from rlcd_jax.paper import cells, graph, node_stages, nodes
from rlcd_jax.report import panels, plots
from rlcd_jax.statistics import estimates, tables

WINS = "Wins over base, %"
# Title, metric and unit of each panel.
METRICS = (
    ("Reward of rollouts", "rollout/score_mean", "deviations of the first step"),
    ("Reward of dev replies", "dev/reward_mean", "by the method's own model"),
    ("KL from the base model", "rollout/k1_sum_mean", "nats a reply"),
    ("Entropy", "rollout/entropy", "nats a token"),
    ("Length", "rollout/response_length_mean", "tokens a reply"),
)


def sheet(
    recipes: nodes.Recipes,
    table: tables.Table,
    task: str,
    systems: Sequence[str],
    trained: Collection[str],
) -> plots.Svg | None:
    """Return the curves and the final win rates of a task's systems as one figure.

    Args:
      recipes: the nodes, made.
      table: the comparison with the base model.
      task: its name.
      systems: which systems have rows.
      trained: those of them that PPO made.
    """
    dots = _wins(table, task, systems)
    rows = {
        cells.NAMES[system]: [
            _metrics(recipes, system, task, seed) for seed in recipes.setup.seeds
        ]
        for system in systems
        if system in trained
    }
    drawn = [
        panels.Panel(title, lines=_lines(rows, metric), unit=unit)
        for title, metric, unit in METRICS
    ]
    drawn.append(panels.Panel(WINS, dots=dots, reference=50.0))
    seeds = ", ".join(map(str, recipes.setup.seeds))
    return plots.sheet(f"{task}: PPO by method, seeds {seeds}", drawn)


def _wins(table: tables.Table, task: str, systems: Sequence[str]) -> list[panels.Dot]:
    place = [column.name for column in table.columns].index(WINS)
    rows = dict(table.rows)
    shown = {
        cells.NAMES[system]: rows[cells.row_title(system, task)][place]
        for system in systems
    }
    return [
        panels.Dot(name, 100 * cell.value, 100 * cell.low, 100 * cell.high)
        for name, cell in shown.items()
        if isinstance(cell, estimates.Estimate)
    ]


def _metrics(
    recipes: nodes.Recipes, method: str, task: str, seed: int
) -> list[dict[str, float]]:
    """Return the rows of the chosen policy, one a PPO step."""
    chosen = graph.folder(recipes.setup.root, recipes.policy(method, task, seed))
    run = pathlib.Path(chosen / node_stages.CHOSEN).resolve().parent
    return metric_rows.read(run / metric_rows.FILE_NAME)


def _lines(
    rows: dict[str, list[list[dict[str, float]]]], metric: str
) -> list[panels.Line]:
    """Return a line for each method with the metric, over steps of all its seeds."""
    lines = []
    for name, by_seed in rows.items():
        by_step: dict[int, list[float]] = collections.defaultdict(list)
        for own in by_seed:
            for row in own:
                if metric in row:
                    by_step[int(row["step"])].append(row[metric])
        steps = sorted(step for step in by_step if len(by_step[step]) == len(by_seed))
        if steps:
            values = np.array([by_step[step] for step in steps])
            several = values.shape[1] > 1
            lines.append(
                panels.Line(
                    name,
                    steps,
                    values.mean(1).tolist(),
                    low=values.min(1).tolist() if several else (),
                    high=values.max(1).tolist() if several else (),
                )
            )
    return lines
