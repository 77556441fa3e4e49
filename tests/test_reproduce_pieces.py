"""The pieces that a reproduction adds to the library: figures, Dist-n, mixed pairs."""

import itertools
import types

import numpy as np
import pytest

from configs import paper
from experiments import command
from rlcd_jax import records
from rlcd_jax.paper import (
    label_accuracy,
    nodes,
    published,
    read_config,
    win_tables,
)
from rlcd_jax.preference import data
from rlcd_jax.statistics import diversity, estimates


def test_show_names_the_table_and_what_is_unknown():
    pair = ("rlcd", "rlaif")
    assert published.show("win rate", "7B", "harmless", pair) == "84.8 / 15.2 (Table 3)"
    turned = published.show("win rate", "7B", "harmless", pair[::-1])
    assert turned == "15.2 / 84.8 (Table 3)"
    assert "inferred" in published.show(
        "win rate", "7B", "helpful", ("rlcd_human20", "rlaif_human20")
    )
    unknown = published.show("win rate", "7B", "harmless", ("rlcd", "base"))
    assert unknown == published.UNKNOWN
    assert published.show("agreement", "30B", "outline", pair) == "59 (Table 23)"


def test_figures_of_two_systems_add_up():
    for figure in published.FIGURES:
        total = {"win rate": 100.0, "human": 9.0}.get(figure.measure)
        if total:
            assert sum(figure.values) == pytest.approx(total), figure
    places = [(f.measure, f.size, f.column, f.systems) for f in published.FIGURES]
    assert len(set(places)) == len(places)


def make_replies(seed, num=12, words=6):
    rng = np.random.default_rng(seed)
    return {
        f"p{i}": [" ".join(map(str, rng.integers(0, words, rng.integers(3, 9))))]
        for i in range(num)
    }


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_interval_is_the_jackknife_of_distinct_n(n):
    replies = make_replies(0)
    found = diversity.distinct_interval(replies, n)

    def plain(names):
        texts = [text.split() for name in names for text in replies[name]]
        return diversity.distinct_n(texts, n)

    names = list(replies)
    left_out = np.array([plain([o for o in names if o != name]) for name in names])
    error = np.sqrt(11 / 12 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.value == pytest.approx(plain(names)) and found.num == 12
    assert found.high - found.value == pytest.approx(
        min(1.96 * error, 1 - found.value), rel=1e-3
    )


def test_distinct_interval_says_when_there_is_too_little():
    for replies in ({}, {"p": ["a b c"]}, {"p": ["a b c"], "q": ["a"]}):
        found = diversity.distinct_interval(replies, 2)
        assert isinstance(found, estimates.Missing)


def test_exchange_test_equals_all_exchanges():
    one, two = make_replies(1, num=6), make_replies(2, num=6, words=30)

    def gap(picks):
        sides = [[], []]
        for name, pick in zip(one, picks, strict=True):
            sides[pick] += one[name]
            sides[1 - pick] += two[name]
        shares = [diversity.distinct_n([t.split() for t in s], 2) for s in sides]
        return abs(shares[0] - shares[1])

    observed = gap([0] * 6)
    exact = np.mean(
        [gap(p) >= observed - 1e-12 for p in itertools.product((0, 1), repeat=6)]
    )
    drawn = diversity.exchange_test(one, two, 2, seed=0, draws=4000)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert diversity.exchange_test(one, one, 2, seed=0, draws=50) == 1.0


def test_exchange_test_refuses_other_prompts():
    with pytest.raises(ValueError, match="different prompts"):
        diversity.exchange_test({"p": ["a"]}, {"q": ["a"]}, 1, seed=0, draws=9)


def human_pair(number):
    return records.HumanPair(f"h{number}", f"h{number}", "Q", "one", "two", 1.0)


def test_mix_human_replaces_a_share_by_a_key():
    rows = [human_pair(f"own{i}") for i in range(50)]  # any pair with an id will do
    people = [human_pair(i) for i in range(30)]
    mixed = data.mix_human(rows, people, 0.2, 7)
    ids = {pair.id for pair in mixed}
    assert len(mixed) == len(ids) == 50
    assert sum(not name.startswith("hown") for name in ids) == 10
    again = data.mix_human(rows[::-1], people[::-1], 0.2, 7)
    assert {pair.id for pair in again} == ids
    assert {p.id for p in data.mix_human(rows, people, 0.2, 8)} != ids
    for share, some in ((0.2, people[:9]), (1.0, people), (-0.1, people)):
        with pytest.raises(ValueError, match="human_share"):
            data.mix_human(rows, some, share, 7)


def test_pair_rewards_are_right_on_the_side_of_the_label():
    def make(prob_2, one, two):
        return label_accuracy.PairRewards("i", "p", prob_2, one, two)

    cases = [(1.0, 0.0, 2.0, 1.0), (0.0, 0.0, 2.0, 0.0), (0.9, 1.0, 1.0, 0.0)]
    for prob_2, one, two, right in cases:
        assert make(prob_2, one, two).right == right
    assert make(0.5, 0.0, 1.0).right is None
    assert make(1.0, 0.0, 2.0).probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert make(0.0, 0.0, 2.0).probability == pytest.approx(1 / (1 + np.exp(2)))


# --- the API judge --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://localhost:1", "max_cost": 0.6},
        {"url": "https://example.com/v1"},
        {"url": "https://example.com/v1", "price_input": 1.0},
        {
            "url": "https://example.com/v1",
            "max_cost": 1.0,
            "price_input": 0.0,
            "price_output": 0.0,
        },
    ],
)
def test_a_cap_on_calls_without_a_price_is_refused(tmp_path, fields):
    with pytest.raises(ValueError, match="without both prices no cost can be known"):
        setup_of(tmp_path, name="gpt", **fields)


def setup_of(tmp_path, **judge):
    config = paper.get_config("table=3,scale=tiny")
    with config.unlocked():
        config.judge.update(judge)
    return read_config.read_setup(
        config,
        tmp_path,
        make_config=command.method_config,
        cache_dir="",
        api_key="hush-key",
    )


def test_nodes_of_the_api_judge_share_a_budget_and_hold_no_secret(tmp_path):
    url = "http://jo:hush-hush@localhost:1/v1"
    setup = setup_of(tmp_path, url=url, name="says-a")
    recipes = nodes.Recipes(setup)
    made = [
        recipes.judge("rlcd", two, "harmless", 1, api=True) for two in ("rlaif", "base")
    ]
    assert made[0].free["api"] is made[1].free["api"]
    for node in made:
        assert "hush" not in repr(node.identity) + repr(node.free) + repr(setup.api)
        assert node.settings["base_url"] == "http://localhost:1/v1"


def test_tables_say_in_how_many_orders_their_judge_was_asked():
    def told(both_orders):
        section = types.SimpleNamespace(both_orders=both_orders)
        recipes = types.SimpleNamespace(
            setup=types.SimpleNamespace(tasks=("harmless",), seeds=(1,)),
            config=lambda *names: types.SimpleNamespace(evaluate=section),
        )
        return win_tables.orders_note(recipes)

    assert told(True).startswith("Every pair is asked in both orders")
    assert told(False) == "Every pair is asked about once, in an order by a coin."
