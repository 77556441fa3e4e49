"""The comparison of all methods with the base model, by a judge none of them saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rlcd_jax import done_mark
from rlcd_jax.judging import evaluation_table, judges, verdicts
from rlcd_jax.pairs import draws
from rlcd_jax.paper import cells, curves, graph, measures, nodes
from rlcd_jax.ppo import credit
from rlcd_jax.preference import best_of
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.statistics import estimates, tables
from rlcd_jax.training import preferences

SYSTEMS = ("base", "distill", "rlaif", "rescore", "rlcd", "mixed", "dpo", best_of.NAME)
BASE = SYSTEMS[0]
# On request: other losses on RLCD's pairs, other learners on its preference model, RLCD
# itself with a stronger contrast, and by grades.
MORE = (*preferences.DIRECT, *credit.GROUPED, nodes.STRONGER, "graded")
KNOWN = (*SYSTEMS, *(name for name in MORE if name not in SYSTEMS))
LEXICON, PEOPLE = "lexicon", "model of human pairs"
COLUMNS = (
    tables.Column("Judge"),
    tables.Column("Score", digits=3),
    tables.Column(curves.WINS, digits=1, percent=True),
    tables.Column("p"),
    tables.Column("At equal length, %", digits=1, percent=True),
    tables.Column("By seed, %"),
    tables.Column("KL, nats a reply", digits=2),
    tables.Column("Tokens", digits=1),
    tables.Column("Preference model, held out, %", digits=1, percent=True),
)


@dataclasses.dataclass(frozen=True)
class Made:
    """The nodes of one task, one a seed each: replies, rewards, preference models.

    `preference` has the policies that are their own.
    """

    judge: str | estimates.Missing
    samples: dict[str, tuple[graph.Node, ...]]
    rewards: dict[str, tuple[graph.Node, ...]]
    preference: dict[str, tuple[graph.Node, ...]]

    @property
    def by_ppo(self) -> tuple[str, ...]:
        """The systems that PPO, RLOO or GRPO made."""
        others = (best_of.NAME, *preferences.DIRECT)
        return tuple(name for name in self.preference if name not in others)


def compared(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of the comparison; its tasks are those that were asked for."""
    systems = _systems(recipes)
    places = [p for p in cells.places(recipes) if p.task in recipes.setup.tasks]
    made = {p.task: nodes_of(recipes, p.task, systems) for p in places if not p.missing}
    wanted = tuple(
        node
        for own in made.values()
        for part in (own.samples, own.rewards)
        for several in part.values()
        for node in several
    )

    def drawn(table: tables.Table) -> dict[str, str]:
        shown = {
            task: curves.sheet(recipes, table, task, systems, own.by_ppo)
            for task, own in made.items()
        }
        return {task: str(svg) for task, svg in shown.items() if svg}

    return cells.TablePlan(wanted, lambda: _table(recipes, places, made), drawn)


def check(asked: Sequence[str]) -> None:
    """Refuse a name that is none of the compared methods."""
    for name in asked:
        if name not in KNOWN[1:]:
            accepted = ", ".join(KNOWN[1:])
            raise ValueError(f"methods has {name!r}; accepted: {accepted}")


def _systems(recipes: nodes.Recipes) -> tuple[str, ...]:
    """Return the base model and the methods that were asked for."""
    asked = recipes.setup.methods or SYSTEMS
    return tuple(s for s in KNOWN if s == BASE or s in asked)


def nodes_of(recipes: nodes.Recipes, task: str, systems: Sequence[str]) -> Made:
    """Return the nodes of some systems, the base model among them, for a task."""
    seeds = recipes.setup.seeds
    _check_scales(recipes, task, systems)
    judge = _judge(recipes, task)
    rewards = {}
    if judge == PEOPLE:
        rewards = {
            system: tuple(
                recipes.reply_scores("reply_rewards", system, task, seed)
                for seed in seeds
            )
            for system in systems
        }
    return Made(
        judge,
        {s: tuple(recipes.sample(s, task, seed) for seed in seeds) for s in systems},
        rewards,
        {
            system: tuple(_judge_of_its_own(recipes, system, task, s) for s in seeds)
            for system in systems
            if system not in (BASE, "distill")
        },
    )


def _check_scales(recipes: nodes.Recipes, task: str, systems: Sequence[str]) -> None:
    """Refuse graded replies of a task that has no scale for them."""
    if "graded" in systems:
        section = recipes.config("graded", task, recipes.setup.seeds[0]).pairs
        told = draws.too_many(recipes.task(task), section.sampling, section.samples)
        if told:
            raise ValueError(f"methods has 'graded': {told}, or leave it out")


def _judge_of_its_own(
    recipes: nodes.Recipes, system: str, task: str, seed: int
) -> graph.Node:
    """Return the node that learns what is better: a preference model, or the policy."""
    direct = system in preferences.DIRECT
    make = recipes.direct if direct else recipes.preference
    return make(system, task, seed)


def _judge(recipes: nodes.Recipes, task: str) -> str | estimates.Missing:
    """Return the outside judge of a task, or why it has none."""
    if recipes.task(task).lexicon is not None:
        return LEXICON
    return cells.lacks_people(recipes, task) or PEOPLE


def _table(recipes: nodes.Recipes, job, made: dict[str, Made]) -> tables.Table:
    rows, systems = [], _systems(recipes)
    for place in job:
        own = made.get(place.task)
        judged = {s: read(recipes, own, s) for s in systems} if own else {}
        for system in systems:
            title = cells.row_title(system, place.task)
            if own is None:
                blank: list[tables.Cell] = [""] * (len(COLUMNS) - 1)
                rows.append((title, (place.missing, *blank)))
            else:
                rows.append((title, row_of(recipes, own, judged, system)))
    more = (
        "Judge: the VADER sentiment lexicon where the task is about tone, else a "
        "preference model of human pairs; no method sees it. A win is a higher score "
        "on the same prompt; a tie is half. At equal length: by a logistic regression, "
        "prompts as clusters.",
        "Preference model: accuracy on pairs of its own kind that were held out, mean "
        "over seeds; scored labels are the model's own guesses, so their rows do not "
        "compare with those labelled by construction. DPO, IPO and KTO have none, and "
        "show the accuracy of beta log policy / base; RLOO, GRPO and best of n have "
        "RLCD's.",
        *_best_of_notes(recipes, made),
    )
    return tables.Table(
        "All methods against the base model",
        "System",
        COLUMNS,
        tuple(rows),
        cells.notes(recipes, *more),
    )


def _best_of_notes(recipes: nodes.Recipes, made: dict[str, Made]) -> list[str]:
    """Return what the best of n is, and what it cost, over all tasks and seeds."""
    own = [node for one in made.values() for node in one.samples.get(best_of.NAME, ())]
    return evaluation_table.best_of_notes(measures.read_answers(recipes, tuple(own)))


@dataclasses.dataclass(frozen=True)
class Judged:
    """One system's replies of one seed, and their scores; none without a judge."""

    answers: list[evaluate_policy.Answer]
    scores: list[verdicts.Score]


def read(recipes: nodes.Recipes, made: Made, system: str) -> list[Judged]:
    """Return what the nodes of a system hold, by seed."""
    judged = []
    for seed, node in enumerate(made.samples[system]):
        answers = measures.read_answers(recipes, (node,))
        scores = []
        if made.judge == LEXICON:
            scores = judges.lexicon_scores(evaluate_policy.as_samples(answers))
        elif made.judge == PEOPLE:
            scores = measures.read_scores(recipes, made.rewards[system][seed])
        judged.append(Judged(answers, scores))
    return judged


def row_of(
    recipes: nodes.Recipes, made: Made, judged: dict[str, list[Judged]], system: str
) -> tuple[tables.Cell, ...]:
    """Return the cells of `COLUMNS` of one system.

    Args:
      recipes: of the nodes.
      made: the nodes.
      judged: what `read` says of the system, and of the base model.
      system: the row's.
    """
    answers = [answer for one in judged[system] for answer in one.answers]
    tokens = estimates.mean_by_prompt((a.prompt_id, a.num_tokens) for a in answers)
    nats = estimates.mean_by_prompt((a.prompt_id, a.divergence) for a in answers)
    return (
        *_judged(recipes, made.judge, judged, system),
        _divergence(recipes, nats, answers),
        cells.interval(tokens, recipes),
        _accuracy(recipes, made.preference.get(system, ())),
    )


def _divergence(
    recipes: nodes.Recipes, nats: dict[str, float], answers: Sequence[Any]
) -> tables.Cell:
    """Return how far a system is from the base model."""
    if answers[0].system == BASE:
        return "-"
    if answers[0].best_of:
        return evaluation_table.at_most(answers[0].divergence)
    return cells.interval(nats, recipes)


def _judged(
    recipes: nodes.Recipes,
    judge: str | estimates.Missing,
    read: dict[str, list[Judged]],
    system: str,
) -> tuple[tables.Cell, ...]:
    """Return what the judge says: its name, score, wins, p, equal length, by seed."""
    if isinstance(judge, estimates.Missing):
        return (judge, *[""] * 5)
    scores = [score for one in read[system] for score in one.scores]
    by_prompt = estimates.mean_by_prompt((s.prompt_id, s.score) for s in scores)
    wins: tuple[tables.Cell, ...] = ("-",) * 4
    if system != BASE:
        epsilon = judges.LEXICON_EPSILON if judge == LEXICON else 0.0
        wins = cells.wins(
            [
                judges.compare_scores(
                    evaluate_policy.as_samples([*one.answers, *base.answers]),
                    [*one.scores, *base.scores],
                    epsilon=epsilon,
                )
                for one, base in zip(read[system], read[BASE], strict=True)
            ],
            recipes,
        )
    return (judge, cells.interval(by_prompt, recipes), *wins)


def _accuracy(recipes: nodes.Recipes, own: Sequence[graph.Node]) -> tables.Cell:
    """Return the mean held-out accuracy of a method's preference models."""
    summaries = [
        done_mark.read_summary(graph.folder(recipes.setup.root, node)) for node in own
    ]
    values = [one.get("held_out_accuracy", {}).get("value") for one in summaries]
    if not values or None in values:
        return "-"
    return sum(values) / len(values)
