"""The strength of a contrast: affixes as data, alpha, and the table of both."""

import dataclasses
import pathlib
import tomllib
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pytest
import runs
import test_reproduce_graph
from made_run import make_pair

from rlcd_jax import record_files, tasks
from rlcd_jax.job import setup
from rlcd_jax.paper import appendix_n, cells, graph, nodes, strength
from rlcd_jax.statistics import estimates
from rlcd_jax.tasks import fields

STRENGTHS = ("weak", "middle", "strong")
PLAIN = str(pathlib.Path(__file__).with_name("world.toml"))  # middle affixes, no scale


# --- affixes as data ------------------------------------------------------------------


def test_a_task_has_the_affixes_of_the_strengths_that_are_asked_for():
    file = resources.files(tasks).joinpath("cheerful.toml").read_text("utf-8")
    rows = tomllib.loads(file)["affixes"]
    for one in STRENGTHS:
        own = [r for r in rows if r.get("strength", fields.MIDDLE) == one]
        task = tasks.load_task("cheerful", strengths=(one,))
        assert task.affixes == tuple((r["positive"], r["negative"]) for r in own)
        assert task.scoring_instructions == tuple(r["instruction"] for r in own)
        assert len(task.affixes) == len(task.systems) == {"middle": 6}.get(one, 5)
        assert task.strengths == (fields.MIDDLE, "weak", "strong")
    assert tasks.load_task("cheerful") == tasks.load_task(
        "cheerful", strengths=(fields.MIDDLE,)
    )
    every = tasks.load_task("cheerful", strengths=STRENGTHS)
    assert len(set(every.affixes)) == len(rows) == 16


@pytest.mark.parametrize("name", tasks.NAMES)
@pytest.mark.parametrize("one", ["weak", "strong"])
def test_both_sides_of_a_pair_are_of_one_length_and_degree(name, one):
    task = tasks.load_task(name, strengths=(one,))
    assert len(task.affixes) >= 3
    for positive, negative in task.affixes:
        assert len(positive.split()) == len(negative.split())
    for positive, negative in task.systems:
        assert abs(len(positive.split()) - len(negative.split())) <= 1
    texts = [text for pair in (*task.affixes, *task.systems) for text in pair]
    assert len(set(texts)) == len(texts)


def test_a_strength_that_is_not_there_is_refused_with_what_is(tmp_path):
    config = runs.tiny_config(task=PLAIN, pairs__strength=("strong",))
    with pytest.raises(ValueError, match="no affix pair has strength 'strong'; it has"):
        setup.load_task(config)
    with pytest.raises(ValueError, match="official wording has one strength alone"):
        tasks.load_task("cheerful", tmp_path, ("weak",))


def test_a_run_takes_its_strength_from_its_config():
    config = runs.tiny_config(pairs__strength=("strong", "weak"))
    task = setup.load_task(config)
    assert len(task.affixes) == 10
    assert not set(task.affixes) & set(tasks.load_task("cheerful").affixes)


# --- the table ------------------------------------------------------------------------


def make_recipes(root="unused", task="cheerful", **more):
    return test_reproduce_graph.make_recipes(
        root, tasks=(task,), table="strength", strength__alpha=(1.0, 2.0), **more
    )


def test_each_strength_has_pairs_of_its_own_and_nothing_is_trained():
    recipes = make_recipes()
    plan = strength.swept(recipes)
    assert {node.stage for node in graph.in_order(plan.nodes)} == {"simulate"}
    at = {(n.config.pairs.strength, n.config.pairs.alpha) for n in plan.nodes}
    assert at == {((one,), alpha) for one in STRENGTHS for alpha in (1.0, 2.0)}
    assert len({node.key for node in plan.nodes}) == 6
    assert recipes.pairs("rlcd", "cheerful", 1) in plan.nodes
    raised = recipes.pairs(nodes.STRONGER, "cheerful", 1)
    assert raised.config.pairs.alpha == 1.5
    assert recipes.preference(nodes.STRONGER, "cheerful", 1).parents == (raised,)


def test_what_a_task_lacks_is_named():
    plan = strength.swept(make_recipes(task=PLAIN, strength__affixes=("weak",)))
    assert not plan.nodes
    rows = plan.build().rows
    assert len(rows) == 2 and all(title.startswith("weak affixes") for title, _ in rows)
    for _, row in rows:
        assert row[0] == estimates.Missing(
            f"{PLAIN} has no weak affixes, but middle ones"
        )
    recipes = make_recipes(task="harmless")
    plan = strength.swept(recipes)
    assert not plan.nodes  # without human pairs nobody knows what is harmless
    rows = dict(plan.build().rows)
    assert rows["middle affixes, alpha 1, harmless"][0] == estimates.Missing(
        cells.NO_HH
    )


REPLIES = [
    "It is a sad day.",
    "It is a day.",
    "A good day.",
    "What a great, happy day!",
]


def drawn_pairs(better):
    """Return pairs of forty prompts; `better` of ten positive sides are the better."""
    pairs = []
    for number in range(40):
        pair = make_pair(number)
        low, high = sorted((number % 3, 1 + (number + number // 3) % 3))
        if low == high:
            low -= 1
        if number % 10 >= better:
            low, high = high, low
        sides = {"positive": REPLIES[high], "negative": REPLIES[low]}
        replies = {f"reply_{n}": sides[getattr(pair, f"side_{n}")] for n in "12"}
        pairs.append(dataclasses.replace(pair, **replies))
    return pairs


def test_label_accuracy_stands_beside_the_prediction(tmp_path):
    recipes = make_recipes(tmp_path)
    plan = strength.swept(recipes)
    shares = {("weak", 1.0): 6, ("strong", 2.0): 9}
    for node in plan.nodes:
        at = node.config.pairs.strength[0], node.config.pairs.alpha
        folder = graph.folder(tmp_path, node) / "pairs"
        folder.mkdir(parents=True)
        rows = drawn_pairs(shares.get(at, 8))
        record_files.write_jsonl(folder / "pairs.jsonl", rows)
    table = plan.build()
    rows = {
        name: dict(zip(table.columns, row, strict=True)) for name, row in table.rows
    }
    named = {
        name: {column.name: cell for column, cell in row.items()}
        for name, row in rows.items()
    }
    assert len(named) == 6
    for (affixes, alpha), better in shares.items():
        row = named[f"{affixes} affixes, alpha {alpha:g}, cheerful"]
        assert (row["Judge"], row["Pairs"]) == ("lexicon", 40)
        assert row[strength.MEASURED].value == pytest.approx(better / 10)
        shift, spread = row["Shift"].value, row["Spread"]
        assert row["Shift / spread"] == pytest.approx(shift / spread)
        predicted = row[strength.PREDICTED]
        exact = appendix_n.rlcd_accuracy(shift, spread)
        assert predicted.value == pytest.approx(exact)
        assert predicted.low <= predicted.value <= predicted.high
    figure = plan.figures(table)["cheerful"]
    ElementTree.fromstring(figure)
    for shown in ("predicted", "weak affixes", "shift / spread", "alpha", "cheerful"):
        assert shown in figure
    assert np.isfinite(named["middle affixes, alpha 1, cheerful"]["Spread"])
