"""What each switch between the method and its released code does, one by one.

A row turns one field of all runs to what `preset=released` has, trains what comes of
it, and stands under the row in which nothing is turned; the last rows turn them all.
What a switch does not reach is shared with that row, by the content of the nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlcd_jax import dotted
from rlcd_jax.checks import fields
from rlcd_jax.diagnosis import pair_readings
from rlcd_jax.paper import cells, graph, label_accuracy, methods, nodes, read_config
from rlcd_jax.statistics import estimates, tables

NONE, ALL = "corrected", "released"  # rows without any switch turned, and with all
# The method that a switch reaches; all others reach RLCD.
SCORED = ("pairs.letters", "pairs.both_orders")
SHOWN = {"rlcd": "RLCD", "rlaif": "RLAIF", "distill": "Context-Dist"}
COLUMNS = (
    tables.Column("Corrected"),
    tables.Column("Released"),
    tables.Column("Labels right, %", digits=1, percent=True),
    *methods.COLUMNS,
)
BLANK: tuple[tables.Cell, ...] = ("",) * (len(COLUMNS) - 1)  # behind the first cell
SET_HERE = "the tables choose these parts themselves"
TWO_REPLIES = (
    "of a judge that reads two replies: make table=3 twice, once with "
    "--config.run.evaluate.both_orders=False"
)
NOT_HH = "prompts are not of hh-rlhf"


@dataclasses.dataclass(frozen=True)
class Turned:
    """Some switches turned in all runs of a method, and the nodes that come of it.

    Attributes:
      name: of the row.
      method: that is measured.
      before: the values as corrected, for a reader.
      after: those as released.
      made: replies and preference models, one a seed each.
      pairs: nodes with the pairs, one a seed.
      people: nodes with rewards of the pairs by a model of human pairs; () by lexicon.
      recipes: of these runs.
    """

    name: str
    method: str
    before: str
    after: str
    made: methods.Made
    pairs: tuple[graph.Node, ...]
    people: tuple[graph.Node, ...]
    recipes: nodes.Recipes

    def wanted(self) -> Iterator[graph.Node]:
        """Yield the nodes that the row reads."""
        yield from self.pairs
        yield from self.people
        for several in (*self.made.samples.values(), *self.made.rewards.values()):
            yield from several


Row = Turned | tuple[str, estimates.Missing]  # or why there is nothing of it


def check(asked: Sequence[str]) -> None:
    """Refuse a name that is no field of a run."""
    for name in asked:
        if name not in fields.FIELDS:
            raise ValueError(
                f"quirks has {name!r}; accepted: dotted fields of a run that "
                "preset=released sets, such as policy.kl_estimator"
            )


def turned(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of the table; its tasks are those that were asked for."""
    places = [p for p in cells.places(recipes) if p.task in recipes.setup.tasks]
    made = {p.task: _rows(recipes, p.task) for p in places if not p.missing}
    wanted = {
        _title(row, task): tuple(row.wanted())
        for task, rows in made.items()
        for row in rows
        if isinstance(row, Turned)
    }
    return cells.TablePlan(
        tuple(node for nodes in wanted.values() for node in nodes),
        lambda failed: _table(recipes, places, made, failed),
        rows=wanted,
    )


def _rows(recipes: nodes.Recipes, task: str) -> list[Row]:
    """Return the rows of a task: nothing turned, each switch, all of them."""
    names = recipes.setup.quirks
    values = _released(recipes, task)
    reached = dict.fromkeys(("rlcd", *map(_method, names)))
    rows: list[Row] = [_turn(recipes, task, method, NONE, {}) for method in reached]
    for name in names:
        missing = _cannot(recipes, task, name, values)
        if missing:
            rows.append((name, missing))
        else:
            own = {name: values[name]}
            rows.append(_turn(recipes, task, _method(name), name, own))
    every = {n: values[n] for n in names if not _cannot(recipes, task, n, values)}
    if len(every) > 1:
        rows += [_turn(recipes, task, method, ALL, every) for method in reached]
    return rows


def _method(name: str) -> str:
    if name in SCORED:
        return "rlaif"
    return "distill" if name.startswith("distill.") else "rlcd"


def _released(recipes: nodes.Recipes, task: str) -> dict[str, Any]:
    """Return the fields of a run with the preset of the release."""
    setup = recipes.setup
    config = read_config.run_config(
        setup, "rlcd", task, setup.seeds[0], preset="released"
    )
    return dotted.flatten(config.to_dict())


def _cannot(
    recipes: nodes.Recipes, task: str, name: str, values: Mapping[str, Any]
) -> estimates.Missing | None:
    """Return why a switch cannot be turned here, or None."""
    config = recipes.config("rlcd", task, recipes.setup.seeds[0])
    if name in ("prompts.hh_test_split", "prompts.hh_agreement_split"):
        return estimates.Missing(SET_HERE)
    if name == "evaluate.both_orders":
        return estimates.Missing(TWO_REPLIES)
    if name.startswith("prompts.") and config.prompts.source != "hh_rlhf":
        return estimates.Missing(NOT_HH)
    if dotted.flatten(config.to_dict())[name] == values[name]:
        size = recipes.setup.config.size
        return estimates.Missing(f"as corrected where size={size} or a field sets it")
    return None


def _turn(
    recipes: nodes.Recipes,
    task: str,
    method: str,
    name: str,
    own: Mapping[str, Any],
) -> Turned:
    """Return a row: a method with some fields of all runs set otherwise."""
    config = recipes.config("rlcd", task, recipes.setup.seeds[0])
    values = dotted.flatten(config.to_dict())
    before, after = "-", "-"
    if len(own) == 1:
        ((field, value),) = own.items()
        before, after = str(values[field]), str(value)
    elif own:
        after = f"{len(own)} switches"
    those = _with_fields(recipes, task, own)
    seeds = recipes.setup.seeds
    made = methods.nodes_of(those, task, (methods.BASE, method))
    people = ()
    if made.judge == methods.PEOPLE:
        people = tuple(those.pair_rewards(method, task, s, human=False) for s in seeds)
    return Turned(
        name=name,
        method=method,
        before=before,
        after=after,
        made=made,
        pairs=tuple(those.pairs(method, task, seed) for seed in seeds),
        people=people,
        recipes=those,
    )


def _with_fields(
    recipes: nodes.Recipes, task: str, own: Mapping[str, Any]
) -> nodes.Recipes:
    """Return recipes whose runs have some fields set, and one policy: no grid."""
    setup = recipes.setup
    run = recipes.config("rlcd", task, setup.seeds[0])
    config = setup.config.copy_and_resolve_references()
    with config.unlocked():
        config.grid.kl_coef = (float(run.policy.kl_coef),)
        config.grid.steps = config.grid.outline_steps = (run.policy.steps,)
    mine = {**setup.fields, **own}
    return nodes.Recipes(dataclasses.replace(setup, config=config, fields=mine))


def _table(
    recipes: nodes.Recipes,
    places: Sequence[cells.Place],
    made: Mapping[str, Sequence[Row]],
    failed: Mapping[str, str],
) -> tables.Table:
    rows = []
    for place in places:
        if place.missing:
            rows.append((place.task, (place.missing, *BLANK)))
        for row in made.get(place.task, ()):
            rows.append(_row(row, place.task, failed))
    more = (
        "One switch a row, turned from its corrected to its released position in every "
        "run; the last rows turn all of them. Rows of RLCD, RLAIF and context "
        "distillation compare with the first row of their own method.",
        "Labels right: share of the pairs whose label agrees with the judge about the "
        "two replies; pairs without a label or with equal scores are left out.",
    )
    return tables.Table(
        "Switches between the method and its released code",
        "Switch",
        COLUMNS,
        tuple(rows),
        cells.notes(recipes, *more),
    )


def _title(row: Row, task: str) -> str:
    if isinstance(row, Turned):
        return f"{row.name}, {SHOWN[row.method]}, {task}"
    return f"{row[0]}, {task}"


def _row(
    row: Row, task: str, failed: Mapping[str, str]
) -> tuple[str, tuple[tables.Cell, ...]]:
    title = _title(row, task)
    if not isinstance(row, Turned):
        return title, (row[1], *BLANK)
    if title in failed:
        why = estimates.Missing(failed[title])
        return title, (row.before, row.after, why, *BLANK[2:])
    recipes, own = row.recipes, row.made
    read = {s: methods.read(recipes, own, s) for s in (methods.BASE, row.method)}
    figures = methods.row_of(recipes, own, read, row.method)
    return title, (row.before, row.after, _labels_right(row), *figures)


def _labels_right(row: Turned) -> tables.Cell:
    """Return how often the labels agree with the judge of the table."""
    root = row.recipes.setup.root
    if row.made.judge == methods.LEXICON:
        pairs = [
            pair
            for node in row.pairs
            for pair in label_accuracy.read_pairs(graph.folder(root, node))
        ]
        scores = pair_readings.lexicon(
            [(p.prompt, r) for p in pairs for r in (p.reply_1, p.reply_2)]
        )
        right = [
            (pair.prompt_id, float((two - one) * (2 * pair.prob_2 - 1) > 0))
            for pair, one, two in zip(pairs, scores[::2], scores[1::2], strict=True)
            if one != two and pair.prob_2 != 0.5
        ]
    elif row.people:
        rewarded = [
            one
            for node in row.people
            for one in label_accuracy.read_rewards(graph.folder(root, node))
        ]
        right = [(r.prompt_id, r.right) for r in rewarded if r.right is not None]
    else:
        return "-"
    return cells.interval(estimates.mean_by_prompt(right), row.recipes)
