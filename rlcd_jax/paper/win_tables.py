"""Tables of win rates of one system over another, by a judge: 3, 6, 16 and 40."""

from __future__ import annotations

from collections.abc import Sequence

from rlcd_jax import record_files
from rlcd_jax.judging import verdicts
from rlcd_jax.pairs import few_shots
from rlcd_jax.paper import cells, graph, nodes
from rlcd_jax.statistics import estimates, tables

COMPARISONS = {
    "3": (("rlcd", "rlaif"), ("rlcd", "distill"), ("rlcd", "base")),
    "6": (("rlcd", "rescore"),),
    "16": (("rlcd", "rlaif_few"),),
    "40": (("rlcd_human20", "rlaif_human20"),),
}
CAPTIONS = {
    "3": "Table 3: final replies compared by a judge",
    "6": "Table 6: RLCD against RLCD-Rescore",
    "16": "Table 16: RLCD against few-shot RLAIF",
    "40": "Table 40: 20 % of the pairs of both methods are human ones",
}
NO_SHOTS = "unpublished shots; others: --config.shots=FILE or human:N"


def judged(recipes: nodes.Recipes, name: str) -> cells.TablePlan:
    """Return the plan of a table of win rates by a judge."""
    wanted, rows = [], []
    for pair in COMPARISONS[name]:
        for place in cells.places(recipes, _paper_tasks(name)):
            missing = place.missing or _lacks(recipes, name, place.task)
            made = () if missing else _verdict_nodes(recipes, pair, place.task)
            wanted += made
            rows.append((pair, place.task, missing, made))

    def build() -> tables.Table:
        return _judged_table(recipes, name, rows)

    return cells.TablePlan(tuple(wanted), build)


def _paper_tasks(name: str) -> tuple[str, ...]:
    return {"16": ("harmless",), "40": ("harmless", "helpful")}.get(
        name, cells.PAPER_TASKS
    )


def _lacks(recipes: nodes.Recipes, name: str, task: str) -> estimates.Missing | None:
    asked = recipes.setup.shots
    if name == "16" and not asked:
        return estimates.Missing(NO_SHOTS)
    by_people = name == "40" or (name == "16" and few_shots.human_count(asked))
    return cells.lacks_people(recipes, task) if by_people else None


def _verdict_nodes(recipes, pair, task) -> tuple[graph.Node, ...]:
    api = recipes.setup.api is not None
    return tuple(
        recipes.judge(*pair, task, seed, api=api) for seed in recipes.setup.seeds
    )


def _judged_table(recipes: nodes.Recipes, name: str, rows: Sequence) -> tables.Table:
    setup = recipes.setup
    local = f"log-odds of {setup.model_name}"
    columns = (
        cells.paper_column(recipes, ", GPT-4"),
        tables.Column("Ours, API judge, %", digits=1, percent=True),
        tables.Column("Ours, local judge, %", digits=1, percent=True),
        tables.Column("p"),
        tables.Column("At equal length, %", digits=1, percent=True),
        tables.Column("Flips, %", digits=0, percent=True),
        tables.Column("Unread, %", digits=0, percent=True),
        tables.Column("By seed, %"),
    )
    shown = []
    for pair, task, missing, made in rows:
        for question in _questions(recipes, task):
            title = f"{cells.NAMES[pair[0]]} vs {cells.NAMES[pair[1]]}, {question}"
            published_cell = cells.paper(recipes, "win rate", question, pair)
            if missing:
                row = cells.missing_row(title, published_cell, missing, len(columns))
            else:
                own = _win_cells(recipes, made, question)
                row = (title, (published_cell, *own))
            shown.append(row)
    more = (
        "Win rate of the first system, in percent; a tie and an answer that cannot be "
        f"read are half a win. {orders_note(recipes)}",
        f"Local judge: {local}, which is not GPT-4."
        if setup.api is None
        else f"API judge: {setup.api.model}.",
        "At equal length: by a logistic regression, prompts as clusters.",
    )
    if name == "16":
        people = few_shots.human_count(setup.shots)
        what = f"{people} pairs of hh-rlhf with the choice of people"
        own = what if people else "solved examples given by the user"
        more += (f"Shots: {own}; those of the paper are not published.",)
    return tables.Table(
        CAPTIONS[name],
        "Comparison",
        columns,
        tuple(shown),
        cells.notes(recipes, *more),
    )


def orders_note(recipes: nodes.Recipes) -> str:
    """Say in which orders judges saw two replies, by `evaluate.both_orders`."""
    setup = recipes.setup
    config = recipes.config("rlcd", setup.tasks[0], setup.seeds[0])
    if not config.evaluate.both_orders:
        return "Every pair is asked about once, in an order by a coin."
    return (
        "Every pair is asked in both orders; a flip is an answer that changed with the "
        "order, which makes a tie of an API judge's; of a local one's the mean decides."
    )


def _questions(recipes: nodes.Recipes, task: str) -> tuple[str, ...]:
    return tuple(recipes.task(task).judge_questions)


def _win_cells(
    recipes: nodes.Recipes, made: Sequence[graph.Node], question: str
) -> tuple[tables.Cell, ...]:
    """Return all cells of a row but the paper's."""
    setup = recipes.setup
    by_seed = [read_verdicts(recipes, node, question) for node in made]
    judged = [verdict for own in by_seed for verdict in own]
    rate, p_value, equal_length, seeds = cells.wins(by_seed, recipes)
    if setup.api is None:
        rates = (estimates.Missing(setup.api_missing), rate)
    else:
        rates = (rate, estimates.Missing("not asked, as there is an API judge"))
    return (
        *rates,
        p_value,
        equal_length,
        sum(v.flips for v in judged) / len(judged),
        sum(v.winner == "none" for v in judged) / len(judged),
        seeds,
    )


def read_verdicts(
    recipes: nodes.Recipes, node: graph.Node, question: str
) -> list[verdicts.Verdict]:
    """Return the verdicts of a node on one question."""
    path = graph.folder(recipes.setup.root, node) / f"verdicts-{question}.jsonl"
    return record_files.read_jsonl(path, verdicts.Verdict)
