"""The comparison of all methods with the base model, by a judge none of them saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments import reproduce_cells as cells
from experiments import reproduce_graph as graph
from experiments import reproduce_measures as measures
from experiments import reproduce_nodes as nodes
from rlcd_jax import estimates, judges, records, tables, verdicts
from rlcd_jax.stages import held_out_replies

SYSTEMS = ("base", "distill", "rlaif", "rescore", "rlcd", "mixed")
BASE = SYSTEMS[0]
LEXICON, PEOPLE = "lexicon", "model of human pairs"
COLUMNS = (
    tables.Column("Judge"),
    tables.Column("Score", digits=3),
    tables.Column("Wins over base, %", digits=1, percent=True),
    tables.Column("p"),
    tables.Column("At equal length, %", digits=1, percent=True),
    tables.Column("By seed, %"),
    tables.Column("KL, nats a reply", digits=2),
    tables.Column("Tokens", digits=1),
    tables.Column("Preference model, held out, %", digits=1, percent=True),
)


@dataclasses.dataclass(frozen=True)
class Made:
    """The nodes of one task, one a seed each: replies, rewards, preference models."""

    judge: str | estimates.Missing
    samples: dict[str, tuple[graph.Node, ...]]
    rewards: dict[str, tuple[graph.Node, ...]]
    preference: dict[str, tuple[graph.Node, ...]]


def compared(recipes: nodes.Recipes) -> cells.Plan:
    """Return the plan of the comparison; its tasks are those that were asked for."""
    found = [p for p in cells.places(recipes) if p.task in recipes.setup.tasks]
    made = {p.task: _nodes(recipes, p.task) for p in found if not p.missing}
    wanted = tuple(
        node
        for own in made.values()
        for part in (own.samples, own.rewards)
        for several in part.values()
        for node in several
    )
    return cells.Plan(wanted, lambda: _table(recipes, found, made))


def _nodes(recipes: nodes.Recipes, task: str) -> Made:
    seeds = recipes.setup.seeds
    judge = _judge(recipes, task)
    rewards = {}
    if judge == PEOPLE:
        rewards = {
            system: tuple(
                recipes.reply_scores("reply_rewards", system, task, seed)
                for seed in seeds
            )
            for system in SYSTEMS
        }
    return Made(
        judge,
        {s: tuple(recipes.sample(s, task, seed) for seed in seeds) for s in SYSTEMS},
        rewards,
        {
            system: tuple(recipes.preference(system, task, seed) for seed in seeds)
            for system in SYSTEMS
            if system not in (BASE, "distill")
        },
    )


def _judge(recipes: nodes.Recipes, task: str) -> str | estimates.Missing:
    """Return the outside judge of a task, or why it has none."""
    if LEXICON in recipes.task(task).judges:
        return LEXICON
    return cells.lacks_people(recipes, task) or PEOPLE


def _table(recipes: nodes.Recipes, found, made: dict[str, Made]) -> tables.Table:
    rows = []
    for place in found:
        for system in SYSTEMS:
            title = f"{cells.NAMES[system]}, {place.task}"
            if place.missing:
                blank: list[tables.Cell] = [""] * (len(COLUMNS) - 1)
                rows.append((title, (place.missing, *blank)))
            else:
                rows.append((title, _row(recipes, made[place.task], system)))
    more = (
        "Judge: the VADER sentiment lexicon where the task is about tone, else a "
        "preference model of human pairs; no method sees it. A win is a higher score "
        "on the same prompt; a tie is half. At equal length: by a logistic regression, "
        "on one reply a prompt.",
        "Preference model: accuracy on pairs of its own kind that were held out, mean "
        "over seeds; scored labels are the model's own guesses, so their rows do not "
        "compare with those labelled by construction.",
    )
    return tables.Table(
        "All methods against the base model",
        "System",
        COLUMNS,
        tuple(rows),
        cells.notes(recipes, *more),
    )


def _row(recipes: nodes.Recipes, made: Made, system: str) -> tuple[tables.Cell, ...]:
    answers = measures.read_answers(recipes, made.samples[system])
    tokens = cells.by_prompt((a.prompt_id, a.num_tokens) for a in answers)
    nats = cells.by_prompt((a.prompt_id, a.divergence) for a in answers)
    judged = _judged(recipes, made, system)
    return (
        *judged,
        "-" if system == BASE else cells.interval(nats, recipes),
        cells.interval(tokens, recipes),
        _accuracy(recipes, made.preference.get(system, ())),
    )


def _judged(recipes: nodes.Recipes, made: Made, system: str) -> tuple[tables.Cell, ...]:
    """Return what the judge says: its name, score, wins, p, equal length, by seed."""
    if isinstance(made.judge, estimates.Missing):
        return (made.judge, *[""] * 5)
    scores = [
        score
        for seed in range(len(recipes.setup.seeds))
        for score in _scores(recipes, made, system, seed)
    ]
    mean = cells.interval(
        cells.by_prompt((s.prompt_id, s.score) for s in scores), recipes
    )
    if system == BASE:
        return (made.judge, mean, "-", "-", "-", "-")
    by_seed = [
        _verdicts(recipes, made, system, seed)
        for seed in range(len(recipes.setup.seeds))
    ]
    given = [verdict for own in by_seed for verdict in own]
    points = cells.by_prompt((v.prompt_id, v.points) for v in given)
    against = {name: 1 - value for name, value in points.items()}
    rates = [100 * sum(v.points for v in own) / len(own) for own in by_seed if own]
    return (
        made.judge,
        mean,
        cells.interval(points, recipes),
        cells.p_value(points, against, recipes),
        verdicts.equal_length_rate(given, level=cells.LEVEL),
        ", ".join(f"{rate:.1f}" for rate in rates),
    )


def _verdicts(
    recipes: nodes.Recipes, made: Made, system: str, seed: int
) -> list[verdicts.Verdict]:
    """Return the verdicts on a system (first) and the base model, of one seed."""
    samples = [
        sample
        for name in (system, BASE)
        for sample in held_out_replies.as_samples(
            measures.read_answers(recipes, made.samples[name][seed : seed + 1])
        )
    ]
    scores = [
        score for name in (system, BASE) for score in _scores(recipes, made, name, seed)
    ]
    epsilon = judges.LEXICON_EPSILON if made.judge == LEXICON else 0.0
    return judges.compare_scores(samples, scores, epsilon=epsilon)


def _scores(
    recipes: nodes.Recipes, made: Made, system: str, seed: int
) -> list[verdicts.Score]:
    if made.judge == LEXICON:
        answers = measures.read_answers(recipes, made.samples[system][seed : seed + 1])
        return judges.lexicon_scores(held_out_replies.as_samples(answers))
    node = made.rewards[system][seed]
    path = graph.folder(recipes.setup.root, node) / held_out_replies.SCORES
    return records.read_jsonl(path, verdicts.Score)


def _accuracy(recipes: nodes.Recipes, own: Sequence[graph.Node]) -> tables.Cell:
    """Return the mean held-out accuracy of a method's preference models."""
    found = [
        records.read_summary(graph.folder(recipes.setup.root, node)) for node in own
    ]
    values = [one["held_out_accuracy"].get("value") for one in found]
    if not values or None in values:
        return "-"
    return sum(values) / len(values)
