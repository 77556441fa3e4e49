"""Tables about labels: models and pairs against people (5, 36), and Appendix N."""

from __future__ import annotations

from collections.abc import Sequence

from rlcd_jax.paper import (
    appendix_n_table,
    cells,
    graph,
    label_accuracy,
    measures,
    nodes,
)
from rlcd_jax.statistics import estimates, tables

LABELLERS = ("rlaif", "rlcd")


def people_pairs(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Table 5: preference models on human pairs."""

    def make(system: str, task: str, seed: int) -> graph.Node:
        return recipes.pair_rewards(system, task, seed, human=True)

    def build(made: measures.Made, places: list[cells.Place]) -> tables.Table:
        columns = (
            cells.paper_column(recipes, ": accuracy, % / mean probability"),
            tables.Column("Accuracy, %", digits=1, percent=True),
            tables.Column("p of accuracy, against RLCD"),
            tables.Column("Mean probability", digits=3),
            tables.Column("p of probability, against RLCD"),
        )

        def own(task: str, system: str) -> tuple[tables.Cell, ...]:
            right = _pair_values(recipes, made, task, LABELLERS, "right")
            sure = _pair_values(recipes, made, task, LABELLERS, "probability")
            return (
                cells.interval(right[system], recipes),
                measures.against(recipes, right, system),
                cells.interval(sure[system], recipes),
                measures.against(recipes, sure, system),
            )

        rows = measures.make_rows(
            recipes, places, LABELLERS, "human pairs", columns, own
        )
        more = (
            "Up to 2,000 human pairs from the beginning of hh-rlhf's train part, as in "
            "the paper; equal rewards count as wrong.",
        )
        return tables.Table(
            "Table 5: preference models against human pairs",
            "Model",
            columns,
            rows,
            cells.notes(recipes, *more),
        )

    tasks = ("harmless", "helpful")
    return measures.plan(recipes, LABELLERS, make, build, tasks=tasks, people=True)


def labels(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Table 36: labels of pairs against a held-out model."""

    def make(system: str, task: str, seed: int) -> graph.Node:
        return recipes.pair_rewards(system, task, seed, human=False)

    def build(made: measures.Made, places: list[cells.Place]) -> tables.Table:
        columns = (
            cells.paper_column(recipes, ", %"),
            tables.Column("Label accuracy, %", digits=1, percent=True),
            tables.Column("p, against RLCD"),
        )

        def own(task: str, system: str) -> tuple[tables.Cell, ...]:
            right = _pair_values(recipes, made, task, LABELLERS, "right")
            return (
                cells.interval(right[system], recipes),
                measures.against(recipes, right, system),
            )

        rows = measures.make_rows(
            recipes, places, LABELLERS, "label accuracy", columns, own
        )
        more = (
            "Share of simulated pairs whose label agrees with a preference model of "
            "human pairs, which is not the truth; soft labels by their larger side, "
            "even ones left out.",
        )
        return tables.Table(
            "Table 36: label accuracy by a held-out preference model",
            "Pairs",
            columns,
            rows,
            cells.notes(recipes, *more),
        )

    tasks = ("harmless", "helpful")
    return measures.plan(recipes, LABELLERS, make, build, tasks=tasks, people=True)


def _pair_values(
    recipes: nodes.Recipes,
    made: measures.Made,
    task: str,
    systems: Sequence[str],
    field: str,
) -> dict[str, dict[str, float]]:
    """Return a figure of each pair by prompt, for each system."""
    out = {}
    for system in systems:
        rows = [
            row
            for node in made[task, system]
            for row in label_accuracy.read_rewards(
                graph.folder(recipes.setup.root, node)
            )
        ]
        values = [(row.prompt_id, getattr(row, field)) for row in rows]
        out[system] = estimates.mean_by_prompt(values)
    return out


def theory(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Appendix N: closed forms beside the published digits."""

    def build() -> tables.Table:
        table = appendix_n_table.paper_table(
            trials=recipes.setup.config.trials, seed=cells.SEED
        )
        wrong = appendix_n_table.disagreements(table)
        if wrong:
            raise ValueError(f"Appendix N: {wrong[0]}")
        return table

    return cells.TablePlan((), build)
