"""Tables about the final replies of single systems: rewards, texts, lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlcd_jax import record_files
from rlcd_jax.judging import verdicts
from rlcd_jax.paper import cells, graph, held_out_replies, nodes
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.statistics import diversity, estimates, tables

SYSTEMS = ("base", "distill", "rlaif", "rlcd")
DRAWS = 1_000  # exchanges of the test of Dist-n
REFERENCE = "rlcd"

Made = dict[tuple[str, str], tuple[graph.Node, ...]]  # (task, system) -> one a seed


def plan(
    recipes: nodes.Recipes,
    systems: Sequence[str],
    make: Callable[[str, str, int], graph.Node],
    build: Callable[[Made, list[cells.Place]], tables.Table],
    *,
    tasks: Sequence[str] = cells.PAPER_TASKS,
    people: bool = False,
) -> cells.TablePlan:
    """Return a plan with one node for each system, task and seed.

    Args:
      recipes: of the nodes.
      systems: the table's rows within a task.
      make: node of (system, task, seed).
      build: the table of the nodes and of the tasks with what they lack.
      tasks: of the paper's table.
      people: whether human pairs are needed.
    """
    places = cells.places(recipes, tasks)
    if people:
        places = [
            cells.Place(p.task, p.missing or cells.lacks_people(recipes, p.task))
            for p in places
        ]
    made = {
        (place.task, system): tuple(
            make(system, place.task, seed) for seed in recipes.setup.seeds
        )
        for place in places
        if not place.missing
        for system in systems
    }
    wanted = tuple(node for own in made.values() for node in own)
    return cells.TablePlan(wanted, lambda: build(made, places))


def make_rows(
    recipes: nodes.Recipes,
    places: Sequence[cells.Place],
    systems: Sequence[str],
    measure: str,
    columns: Sequence[tables.Column],
    own: Callable[[str, str], tuple[tables.Cell, ...]],
) -> tuple[tuple[str, tuple[tables.Cell, ...]], ...]:
    """Return a row for each task and system; `own` gives all cells but the first."""
    rows = []
    for place in places:
        for system in systems:
            title = f"{cells.NAMES[system]}, {place.task}"
            cell = cells.paper(recipes, measure, place.task, (system,))
            if place.missing:
                row = cells.missing_row(title, cell, place.missing, len(columns))
            else:
                row = (title, (cell, *own(place.task, system)))
            rows.append(row)
    return tuple(rows)


def against(
    recipes: nodes.Recipes, values: dict[str, cells.ByPrompt], system: str
) -> tables.Cell:
    """Return the p-value of a system's difference from the reference."""
    if system == REFERENCE:
        return "-"
    return cells.p_value(values[system], values[REFERENCE], recipes)


def rewards(recipes: nodes.Recipes, name: str) -> cells.TablePlan:
    """Return the plan of Table 28 (harmless) or 29 (helpful): held-out reward."""
    task = {"28": "harmless", "29": "helpful"}[name]
    caption = f"Table {name}: reward of final replies by a held-out model, {task}"
    more = (
        "A preference model of human pairs scores the replies; the recipe of the "
        "paper's is not known, and a reward has no unit, so only differences within "
        "this table mean something.",
    )
    return _scored(recipes, "reply_rewards", caption, "Reward", more, task, exp=False)


def perplexities(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of the perplexity of final replies (Appendix J.2)."""
    setup = recipes.setup
    model = setup.config.perplexity_model or setup.model_name
    more = (
        "exp of the mean, over prompts, of the surprise of a reply after its prompt, "
        f"in nats a token, under {model}. Which model and protocol the paper used is "
        "not known. p: on the surprise.",
    )
    caption = "Appendix J.2: perplexity of final replies"
    return _scored(recipes, "perplexity", caption, "Perplexity", more, None, exp=True)


def _scored(
    recipes: nodes.Recipes,
    stage: str,
    caption: str,
    what: str,
    more: tuple[str, ...],
    task: str | None,
    *,
    exp: bool,
) -> cells.TablePlan:
    """Return the plan of a table of one score a reply."""

    def make(system: str, task: str, seed: int) -> graph.Node:
        return recipes.reply_scores(stage, system, task, seed)

    def build(made: Made, places: list[cells.Place]) -> tables.Table:
        columns = (
            cells.paper_column(recipes),
            tables.Column(what, digits=2),
            tables.Column("p, against RLCD"),
        )

        def own(task: str, system: str) -> tuple[tables.Cell, ...]:
            values = {s: _scores(recipes, made[task, s]) for s in SYSTEMS}
            cell = cells.interval(values[system], recipes)
            if exp and isinstance(cell, estimates.Estimate):
                bounds = map(float, np.exp([cell.value, cell.low, cell.high]))
                cell = estimates.Estimate(*bounds, cell.level, cell.num)
            return cell, against(recipes, values, system)

        asked = [place for place in places if task in (None, place.task)]
        rows = make_rows(recipes, asked, SYSTEMS, stage, columns, own)
        return tables.Table(
            caption, "System", columns, rows, cells.notes(recipes, *more)
        )

    if task is None:
        return plan(recipes, SYSTEMS, make, build)
    whole = plan(recipes, SYSTEMS, make, build, tasks=(task,), people=True)
    wanted = tuple(node for node in whole.nodes if node.config.task == task)
    return cells.TablePlan(wanted, whole.build)


def _scores(recipes: nodes.Recipes, own: Sequence[graph.Node]) -> dict[str, float]:
    rows = [row for node in own for row in read_scores(recipes, node)]
    return estimates.mean_by_prompt((row.prompt_id, row.score) for row in rows)


def read_scores(recipes: nodes.Recipes, node: graph.Node) -> list[verdicts.Score]:
    """Return the scores of single replies that a node holds."""
    path = graph.folder(recipes.setup.root, node) / held_out_replies.SCORES
    return record_files.read_jsonl(path, verdicts.Score)


def lengths(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of the lengths of final replies (Tables 34 and 35)."""

    def build(made: Made, places: list[cells.Place]) -> tables.Table:
        columns = (
            cells.paper_column(recipes, ": mean / sd"),
            tables.Column("Tokens", digits=1),
            tables.Column("sd", digits=1),
            tables.Column("Cut at the limit, %", digits=0, percent=True),
            tables.Column("p, against RLCD"),
        )

        def own(task: str, system: str) -> tuple[tables.Cell, ...]:
            read = {s: read_answers(recipes, made[task, s]) for s in SYSTEMS}
            values = {
                s: estimates.mean_by_prompt(
                    (a.prompt_id, a.num_tokens) for a in answers
                )
                for s, answers in read.items()
            }
            stats = estimates.length_stats([a.num_tokens for a in read[system]])
            cut = [a.finish == "length" for a in read[system]]
            return (
                cells.interval(values[system], recipes),
                stats if isinstance(stats, estimates.Missing) else stats.sd,
                float(np.mean(cut)),
                against(recipes, values, system),
            )

        rows = make_rows(recipes, places, SYSTEMS, "length", columns, own)
        more = ("Tokens of our model's tokenizer, the stop string included.",)
        return tables.Table(
            "Tables 34 and 35: length of final replies",
            "System",
            columns,
            rows,
            cells.notes(recipes, *more),
        )

    return plan(recipes, SYSTEMS, recipes.sample, build)


def diversities(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of Dist-1, Dist-2 and Dist-3 of final replies (App. J.3)."""

    def build(made: Made, places: list[cells.Place]) -> tables.Table:
        columns = (
            cells.paper_column(recipes, ": Dist-1 / 2 / 3, %"),
            *(tables.Column(f"Dist-{n}, %", 1, percent=True) for n in (1, 2, 3)),
            tables.Column("p of Dist-2, against RLCD"),
        )

        def own(task: str, system: str) -> tuple[tables.Cell, ...]:
            one = _one_reply(recipes, made[task, system])
            other = _one_reply(recipes, made[task, REFERENCE])
            test: tables.Cell = "-"
            if system != REFERENCE:
                value = diversity.exchange_test(
                    one, other, 2, seed=cells.SEED, draws=DRAWS
                )
                test = f"{value:.2g}"
            shares = (diversity.distinct_interval(one, n) for n in (1, 2, 3))
            return (*shares, test)

        rows = make_rows(recipes, places, SYSTEMS, "diversity", columns, own)
        more = (
            "Distinct n-grams of words over all, pooled over one reply a prompt of the "
            "first seed; it falls with the amount of text. Intervals: jackknife over "
            "prompts; p: replies exchanged between the systems, prompt by prompt.",
        )
        return tables.Table(
            "Appendix J.3: diversity of final replies",
            "System",
            columns,
            rows,
            cells.notes(recipes, *more),
        )

    return plan(recipes, SYSTEMS, recipes.sample, build)


def read_answers(
    recipes: nodes.Recipes, own: Sequence[graph.Node]
) -> list[evaluate_policy.Answer]:
    """Return the replies that these sample nodes hold, in order."""
    root = recipes.setup.root
    return [
        answer
        for node in own
        for answer in held_out_replies.read_answers(graph.folder(root, node))
    ]


def _one_reply(
    recipes: nodes.Recipes, own: Sequence[graph.Node]
) -> dict[str, list[str]]:
    """Return the first reply to each prompt of the first seed."""
    replies: dict[str, list[str]] = {}
    for answer in read_answers(recipes, own[:1]):
        replies.setdefault(answer.prompt_id, [answer.reply])
    return replies
