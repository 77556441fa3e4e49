"""Tables by people: their ratings of two systems (2), and a judge's agreement (23)."""

from __future__ import annotations

from collections.abc import Mapping

from rlcd_jax.human import agreement, ratings, reading, results
from rlcd_jax.paper import cells, graph, nodes, published, win_tables
from rlcd_jax.statistics import estimates, tables

Key = tuple[tuple[str, str], str]  # the two systems of a study, and its question

NO_STUDY = "no study folder: --config.studies"
HOW_TO_STUDY = (
    "Human scores come from studies: `python -m experiments.human make --task TASK "
    "--samples FILE --systems FIRST SECOND --workdir FOLDER` writes the sheets; the "
    "judge nodes of Table 3 hold the samples of both systems; --config.studies names "
    "the folders with the answers."
)


def rated(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Table 2: ratings by people, from the folders of studies."""

    def build() -> tables.Table:
        studies = {_study_key(one): one for one in _studies(recipes)}
        columns = (
            cells.paper_column(recipes),
            tables.Column("Ours"),
            tables.Column("p"),
            tables.Column("Preferred, %", digits=1, percent=True),
            tables.Column("Judgments"),
        )
        paper = [(("rlcd", "rlaif"), column) for column in published.COLUMNS]
        rows = []
        for pair, column in dict.fromkeys([*paper, *studies]):
            title = f"{_name(pair[0])} vs {_name(pair[1])}, {column}"
            cell = cells.paper(recipes, "human", column, pair)
            if (pair, column) not in studies:
                reason = estimates.Missing(NO_STUDY)
                rows.append(cells.missing_row(title, cell, reason, len(columns)))
                continue
            one = studies[pair, column]
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

    return cells.TablePlan((), build)


def agreed(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Table 23: how often people and a judge choose alike."""
    studies = {_study_key(one): one for one in _studies(recipes)}
    made, missing = _judges(recipes, studies)
    api = recipes.setup.api is not None

    def build() -> tables.Table:
        columns = (
            cells.paper_column(recipes, ", GPT-4"),
            tables.Column("Ours, %", digits=1, percent=True),
            tables.Column("Judge"),
        )
        paper = [(("rlcd", "rlaif"), column) for column in published.COLUMNS]
        rows = []
        for key in dict.fromkeys([*paper, *studies]):
            pair, column = key
            title = f"{_name(pair[0])} vs {_name(pair[1])}, {column}"
            cell = cells.paper(recipes, "agreement", column, pair)
            if key not in made:
                reason = missing.get(key, estimates.Missing(NO_STUDY))
                rows.append(cells.missing_row(title, cell, reason, len(columns)))
                continue
            node, one = made[key], studies[key]
            judge = node.settings["judge"]
            judged = win_tables.read_verdicts(recipes, node, column)
            share = agreement.judge_agreement(
                one.study, one.scores_2, judged, judge=judge
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

    return cells.TablePlan(tuple(made.values()), build)


def _judges(
    recipes: nodes.Recipes, studies: Mapping[Key, ratings.Ratings]
) -> tuple[dict[Key, graph.Node], dict[Key, estimates.Missing]]:
    """Return the judge's node for each study, and why others have none."""
    api = recipes.setup.api is not None
    made, missing = {}, {}
    available = {place.task: place.missing for place in cells.places(recipes)}
    for key, one in studies.items():
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
    return made, missing


def _name(system: str) -> str:
    return cells.NAMES.get(system, system)


def _study_key(one: ratings.Ratings) -> Key:
    return (one.study.system_1, one.study.system_2), one.study.question_name


def _studies(recipes: nodes.Recipes) -> list[ratings.Ratings]:
    """Return the ratings of each study folder; two on one question are refused."""
    studies: dict[Key, ratings.Ratings] = {}
    for folder in recipes.setup.studies:
        study, judgments = reading.read_study(folder)
        one = ratings.rate(
            study, judgments, shift="none", min_gold=0.0, seed=cells.SEED
        )
        if _study_key(one) in studies:
            raise ValueError(
                f"{folder}: another study is about {' and '.join(_study_key(one)[0])} "
                f"on {study.question_name!r} too; give one of them"
            )
        studies[_study_key(one)] = one
    return list(studies.values())
