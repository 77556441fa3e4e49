"""Tables about two systems: by judges (3, 6, 16, 40) and by people (2, 23)."""

from __future__ import annotations

from collections.abc import Sequence

from experiments import reproduce_cells as cells
from experiments import reproduce_graph as graph
from experiments import reproduce_nodes as nodes
from rlcd_jax import estimates, published, records, tables, verdicts
from rlcd_jax.human import agreement, ratings, reading, results
from rlcd_jax.scoring import few_shots

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
NO_SHOTS = "unpublished shots; others: --shots FILE or human:N"
NO_STUDY = "no study folder: --studies"
HOW_TO_STUDY = (
    "Human scores come from studies: `python -m experiments.human make --task TASK "
    "--samples FILE` writes the sheets; the judge nodes of Table 3 hold the samples "
    "of both systems; --studies names the folders with the answers."
)


def judged(recipes: nodes.Recipes, name: str) -> cells.Plan:
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

    return cells.Plan(tuple(wanted), build)


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
    local = f"log-odds of {setup.model or setup.scale.shapes[0]}"
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
        "read are half a win. Every pair is asked in both orders; a flip is an answer "
        "that changed with the order.",
        f"Local judge: {local}, which is not GPT-4; the mean of both orders decides."
        if setup.api is None
        else f"API judge: {setup.api.model}; a flip is a tie.",
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


def _questions(recipes: nodes.Recipes, task: str) -> tuple[str, ...]:
    return tuple(recipes.task(task).judge_questions)


def _win_cells(
    recipes: nodes.Recipes, made: Sequence[graph.Node], question: str
) -> tuple[tables.Cell, ...]:
    """Return all cells of a row but the paper's."""
    setup = recipes.setup
    by_seed = [_read(recipes, node, question) for node in made]
    given = [verdict for own in by_seed for verdict in own]
    rate, p_value, equal_length, seeds = cells.wins(by_seed, recipes)
    if setup.api is None:
        rates = (estimates.Missing(setup.api_missing), rate)
    else:
        rates = (rate, estimates.Missing("not asked, as there is an API judge"))
    return (
        *rates,
        p_value,
        equal_length,
        sum(v.flips for v in given) / len(given),
        sum(v.winner == "none" for v in given) / len(given),
        seeds,
    )


def _read(
    recipes: nodes.Recipes, node: graph.Node, question: str
) -> list[verdicts.Verdict]:
    path = graph.folder(recipes.setup.root, node) / f"verdicts-{question}.jsonl"
    return records.read_jsonl(path, verdicts.Verdict)


# --- people ---------------------------------------------------------------------------


def rated(recipes: nodes.Recipes) -> cells.Plan:
    """Return the plan of Table 2: ratings by people, from the folders of studies."""

    def build() -> tables.Table:
        found = {_study_key(one): one for one in _studies(recipes)}
        columns = (
            cells.paper_column(recipes),
            tables.Column("Ours"),
            tables.Column("p"),
            tables.Column("Preferred, %", digits=1, percent=True),
            tables.Column("Judgments"),
        )
        paper = [(("rlcd", "rlaif"), column) for column in published.COLUMNS]
        rows = []
        for pair, column in dict.fromkeys([*paper, *found]):
            title = f"{_name(pair[0])} vs {_name(pair[1])}, {column}"
            cell = cells.paper(recipes, "human", column, pair)
            if (pair, column) not in found:
                reason = estimates.Missing(NO_STUDY)
                rows.append(cells.missing_row(title, cell, reason, len(columns)))
                continue
            one = found[pair, column]
            p_value = one.first
            if isinstance(p_value, estimates.Estimate):
                p_value = f"{p_value.p_value:.2g}"
            own = (results.paper_cell(one), p_value, one.prefer_first)
            rows.append((title, (cell, *own, one.num_judgments)))
        more = (
            "Ratings from 1 to 8 on which the two systems sum to 9; brackets: interval "
            "of the first figure, bootstrap over prompts.",
            HOW_TO_STUDY,
        )
        return tables.Table(
            "Table 2: human ratings",
            "Comparison",
            columns,
            tuple(rows),
            cells.notes(recipes, *more),
        )

    return cells.Plan((), build)


def agreed(recipes: nodes.Recipes) -> cells.Plan:
    """Return the plan of Table 23: how often people and a judge choose alike."""
    found = {_study_key(one): one for one in _studies(recipes)}
    api = recipes.setup.api is not None
    made, missing = {}, {}
    available = {place.task: place.missing for place in cells.places(recipes)}
    for key, one in found.items():
        pair, task = key[0], one.study.task
        unknown = [name for name in pair if name not in nodes.METHODS]
        if unknown or task not in available:
            missing[key] = estimates.Missing(
                f"the study is about {unknown[0] if unknown else task!r}, of which "
                "this command has no replies"
            )
        elif available[task]:
            missing[key] = available[task]
        else:
            made[key] = recipes.judge(*pair, task, recipes.setup.seeds[0], api=api)

    def build() -> tables.Table:
        columns = (
            cells.paper_column(recipes, ", GPT-4"),
            tables.Column("Ours, %", digits=1, percent=True),
            tables.Column("Judge"),
        )
        paper = [(("rlcd", "rlaif"), column) for column in published.COLUMNS]
        rows = []
        for key in dict.fromkeys([*paper, *found]):
            pair, column = key
            title = f"{_name(pair[0])} vs {_name(pair[1])}, {column}"
            cell = cells.paper(recipes, "agreement", column, pair)
            if key not in made:
                reason = missing.get(key, estimates.Missing(NO_STUDY))
                rows.append(cells.missing_row(title, cell, reason, len(columns)))
                continue
            node, one = made[key], found[key]
            judge = node.settings["judge"]
            share = agreement.judge_agreement(
                one.study, one.scores_2, _read(recipes, node, column), judge=judge
            )
            shown = judge if api else f"{judge} of {node.config.model.spec}, not GPT-4"
            rows.append((title, (cell, share, shown)))
        more = (
            "Prompts without a clear choice by the judge or by the people are left "
            "out. The study must be of the replies of this folder's first seed.",
            HOW_TO_STUDY,
        )
        if not api:
            more += (f"GPT-4: {recipes.setup.api_missing}.",)
        return tables.Table(
            "Table 23: agreement of people and judge",
            "Comparison",
            columns,
            tuple(rows),
            cells.notes(recipes, *more),
        )

    return cells.Plan(tuple(made.values()), build)


def _name(system: str) -> str:
    return cells.NAMES.get(system, system)


def _study_key(one: ratings.Ratings) -> tuple[tuple[str, str], str]:
    return (one.study.system_1, one.study.system_2), one.study.question_name


def _studies(recipes: nodes.Recipes) -> list[ratings.Ratings]:
    """Return the ratings of each study folder; two on one question are refused."""
    found: dict[tuple[tuple[str, str], str], ratings.Ratings] = {}
    for folder in recipes.setup.studies:
        study, judgments = reading.read_study(folder)
        one = ratings.rate(
            study, judgments, shift="none", min_gold=0.0, seed=cells.SEED
        )
        if _study_key(one) in found:
            raise ValueError(
                f"{folder}: another study is about {' and '.join(_study_key(one)[0])} "
                f"on {study.question_name!r} too; give one of them"
            )
        found[_study_key(one)] = one
    return list(found.values())
