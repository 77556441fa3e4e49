"""Label accuracy against the strength of the contrast, and what the model predicts.

RLCD's labels are right as often as its positive side is better, which Appendix N puts
at Phi(shift / (sqrt(2) spread)). Stronger affixes and a stronger contrast at decoding
raise the shift; whether labels follow is measured here by a judge that stands for the
truth, pairs alone: nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from rlcd_jax import records
from rlcd_jax.diagnosis import label_noise, pair_readings
from rlcd_jax.paper import (
    appendix_n,
    cells,
    graph,
    label_accuracy,
    methods,
    nodes,
)
from rlcd_jax.report import panels, plots
from rlcd_jax.statistics import estimates, tables

MEASURED, PREDICTED = "Label accuracy, %", "Predicted, %"
DRAWN = 40  # points of the predicted curve
COLUMNS = (
    tables.Column("Judge"),
    tables.Column("Pairs"),
    tables.Column("Shift", digits=3),
    tables.Column("Spread", digits=3),
    tables.Column("Shift / spread", digits=2),
    tables.Column(MEASURED, digits=1, percent=True),
    tables.Column(PREDICTED, digits=1, percent=True),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A strength of the contrast on a task, and the nodes that are made at it.

    Attributes:
      task: its name.
      affixes: strength of the affix pairs.
      alpha: strength at decoding.
      missing: why there is nothing of it; None: there is.
      pairs: the nodes of pairs, one a seed.
      rewards: those of their rewards by a model of human pairs; () by the lexicon.
    """

    task: str
    affixes: str
    alpha: float
    missing: estimates.Missing | None = None
    pairs: tuple[graph.Node, ...] = ()
    rewards: tuple[graph.Node, ...] = ()

    @property
    def title(self) -> str:
        """The name of its row."""
        return f"{self.affixes} affixes, alpha {self.alpha:g}, {self.task}"


@dataclasses.dataclass(frozen=True)
class Reached:
    """What pairs of one strength were found to be.

    Attributes:
      point: the strength.
      pairs: with the judge's margins.
      fitted: shift and spread, in units of the judge.
      measured: share of labels that the judge agrees with.
      predicted: that of the model with these numbers.
    """

    point: Point
    pairs: list[label_noise.JudgedPair]
    fitted: label_noise.Fit
    measured: tables.Cell
    predicted: tables.Cell

    @property
    def ratio(self) -> float | estimates.Missing:
        """Shift in units of the spread."""
        shift, spread = self.fitted.shift, self.fitted.sigma_generator
        for one in (shift, spread):
            if isinstance(one, estimates.Missing):
                return one
        return shift / spread


def swept(recipes: nodes.Recipes) -> cells.TablePlan:
    """Return the plan of the sweep; its tasks are those that were asked for."""
    points = [
        point
        for place in cells.places(recipes, ())
        for point in _points(recipes, place)
    ]
    wanted = tuple(n for p in points for n in (*p.pairs, *p.rewards))
    reached: dict[str, Reached] = {}

    def build() -> tables.Table:
        reached.clear()
        reached.update({p.title: _reach(recipes, p) for p in points if not p.missing})
        rows = [(p.title, _row(recipes, p, reached.get(p.title))) for p in points]
        return tables.Table(
            "Label accuracy against the strength of the contrast",
            "RLCD's pairs",
            COLUMNS,
            tuple(rows),
            cells.notes(recipes, *_notes()),
        )

    def drawn(_: tables.Table) -> dict[str, str]:
        shown = {
            task: _figure(task, [r for r in reached.values() if r.point.task == task])
            for task in dict.fromkeys(p.task for p in points)
        }
        return {task: str(svg) for task, svg in shown.items() if svg}

    return cells.TablePlan(wanted, build, drawn)


def _notes() -> tuple[str, ...]:
    return (
        "Strength: of the words of the affixes, as the task file calls them, and alpha "
        "of the logits at decoding, other + alpha (own - other); 1 is plain sampling.",
        "Label accuracy: pairs whose positive side the judge scores higher, without "
        "those it scores equal. The judge stands for the truth: the sentiment lexicon "
        "where the task is about tone, else a preference model of human pairs.",
        "Shift and spread: mean of the judge's margin and its deviation / sqrt(2). "
        "Predicted: Phi(shift / (sqrt(2) spread)), the Gaussian model of Appendix N, "
        "interval by bootstrap over prompts; a calculation, no evidence. Where the two "
        "differ, margins are not Gaussian.",
    )


def _points(recipes: nodes.Recipes, place: cells.Place) -> list[Point]:
    """Return the strengths of a task, each of affixes with each of decoding."""
    sweep, task = recipes.setup.config.strength, place.task
    points = []
    for affixes in sweep.affixes:
        for alpha in map(float, sweep.alpha):
            missing = place.missing or _missing(recipes, task, affixes)
            if missing:
                points.append(Point(task, affixes, alpha, missing))
                continue
            at = [(task, seed, affixes, alpha) for seed in recipes.setup.seeds]
            people = recipes.task(task).lexicon is None
            points.append(
                Point(
                    task,
                    affixes,
                    alpha,
                    pairs=tuple(recipes.pairs_at(*one) for one in at),
                    rewards=tuple(recipes.rewards_at(*one) for one in at if people),
                )
            )
    return points


def _missing(
    recipes: nodes.Recipes, task: str, affixes: str
) -> estimates.Missing | None:
    known = recipes.task(task)
    if affixes not in known.strengths:
        there = ", ".join(known.strengths)
        return estimates.Missing(f"{task} has no {affixes} affixes, but {there} ones")
    if known.lexicon is None:
        return cells.lacks_people(recipes, task)
    return None


def _reach(recipes: nodes.Recipes, point: Point) -> Reached:
    """Read the pairs of a strength, and what the judge says of them."""
    judged = []
    for number, node in enumerate(point.pairs):
        pairs = label_accuracy.read_pairs(graph.folder(recipes.setup.root, node))
        if point.rewards:
            margins = _of_people(recipes, point.rewards[number], pairs)
        else:
            margins = _of_lexicon(pairs)
        judged += [
            label_noise.JudgedPair(pair.prompt_id, True, margins[pair.id], None)
            for pair in pairs
            if pair.id in margins
        ]
    name = methods.PEOPLE if point.rewards else methods.LEXICON
    table = label_noise.run_table(
        judged, judge=name, seed=cells.SEED, level=cells.LEVEL
    )
    predicted, measured = dict(table.rows)["RLCD"]
    return Reached(point, judged, label_noise.fit(judged), measured, predicted)


def _of_lexicon(pairs: list[records.Pair]) -> dict[str, float]:
    """Return the margin of each pair's positive side, by the word list."""
    texts = [(p.prompt, reply) for p in pairs for reply in (p.reply_1, p.reply_2)]
    scores = iter(pair_readings.lexicon(texts))
    return {p.id: _signed(p, next(scores), next(scores)) for p in pairs}


def _of_people(
    recipes: nodes.Recipes, node: graph.Node, pairs: list[records.Pair]
) -> dict[str, float]:
    """Return that margin by the model of human pairs; of pairs that it has read."""
    rows = label_accuracy.read_rewards(graph.folder(recipes.setup.root, node))
    found = {row.id: (row.reward_1, row.reward_2) for row in rows}
    return {p.id: _signed(p, *found[p.id]) for p in pairs if p.id in found}


def _signed(pair: records.Pair, first: float, second: float) -> float:
    return first - second if pair.side_1 == "positive" else second - first


def _row(
    recipes: nodes.Recipes, point: Point, found: Reached | None
) -> tuple[tables.Cell, ...]:
    if found is None:
        return (point.missing, *[""] * (len(COLUMNS) - 1))
    margins = estimates.mean_by_prompt((p.prompt_id, p.margin) for p in found.pairs)
    return (
        methods.PEOPLE if point.rewards else methods.LEXICON,
        len(found.pairs),
        cells.interval(margins, recipes),
        found.fitted.sigma_generator,
        found.ratio,
        found.measured,
        found.predicted,
    )


def _figure(task: str, reached: list[Reached]) -> plots.Svg | None:
    """Return label accuracy over shift / spread and over alpha, with the prediction."""
    known = [
        one
        for one in reached
        if isinstance(one.measured, estimates.Estimate)
        and not isinstance(one.ratio, estimates.Missing)
    ]
    if not known:
        return None
    by_affixes: dict[str, list[Reached]] = {}
    for one in known:
        by_affixes.setdefault(one.point.affixes, []).append(one)
    ratios = [one.ratio for one in known]
    grid = np.linspace(min(0.0, *ratios), max(1.0, *ratios) * 1.05, DRAWN)
    curve = panels.Line(
        "predicted",
        list(map(float, grid)),
        [100 * appendix_n.rlcd_accuracy(float(x), 1.0) for x in grid],
    )
    unit = "right labels, %"
    over_shift = [
        _line(name, sorted(own, key=lambda one: one.ratio), lambda one: one.ratio)
        for name, own in by_affixes.items()
    ]
    over_alpha = [
        _line(name, sorted(own, key=_alpha), _alpha) for name, own in by_affixes.items()
    ]
    parts = [
        panels.Panel(
            "By strength reached",
            [curve, *over_shift],
            (),
            unit,
            None,
            "shift / spread",
        ),
        panels.Panel("By alpha at decoding", over_alpha, (), unit, None, "alpha"),
    ]
    return plots.sheet(f"{task}: are RLCD's labels right?", parts)


def _alpha(one: Reached) -> float:
    return one.point.alpha


def _line(
    name: str, own: list[Reached], across: Callable[[Reached], float]
) -> panels.Line:
    cells_of = [one.measured for one in own]
    return panels.Line(
        f"{name} affixes",
        [across(one) for one in own],
        [100 * cell.value for cell in cells_of],
        low=[100 * cell.low for cell in cells_of],
        high=[100 * cell.high for cell in cells_of],
    )
