"""The graph of a reproduction without any model: names, order, choice, forecast."""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading

import pytest

from configs import paper
from experiments import command, reproduce
from rlcd_jax import done_mark, record_files, tasks
from rlcd_jax.pairs import work_parts
from rlcd_jax.paper import (
    cells,
    costs,
    graph,
    methods,
    node_stages,
    nodes,
    plans,
    quirks,
    read_config,
)
from rlcd_jax.planning import counts

ROOT = pathlib.Path(__file__).parents[1]


CACHE = tempfile.mkdtemp()  # data sets that are read are prepared there


def make_config(table="3", scale="tiny", **fields):
    """Return a config of the tables; fields have "__" for their dots."""
    config = paper.get_config(f"table={table},scale={scale}")
    own = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(own)
    return config


def make_recipes(root="unused", **fields):
    setup = read_config.read_setup(
        make_config(**fields),
        root,
        make_config=command.method_config,
        cache_dir=CACHE,
        api_key=None,
    )
    return nodes.Recipes(setup)


def keys(recipes):
    """Return the names of all nodes of RLCD's replies by stage."""
    found = graph.in_order([recipes.sample("rlcd", "harmless", 1)])
    return {node.stage: node.key for node in found}


def test_key_depends_on_what_the_result_depends_on():
    before = keys(make_recipes())
    assert list(before) == ["simulate", "preference", "policy", "select", "sample"]
    free = {"run__mesh__data": 1, "run__engine__slots_per_device": 4}
    free |= {"run__model__cache_dir": "elsewhere", "run__evaluate__resamples": 200}
    assert keys(make_recipes("another", **free)) == before
    later = keys(make_recipes(run__evaluate__reply_tokens=11))
    assert [stage for stage in before if later[stage] != before[stage]] == ["sample"]
    middle = keys(make_recipes(run__preference__epochs=2))
    changed = [stage for stage in before if middle[stage] != before[stage]]
    assert changed == ["preference", "policy", "select", "sample"]
    first = keys(make_recipes(run__pairs__alpha=1.5))
    assert not set(first.values()) & set(before.values())


def test_the_model_of_human_pairs_is_one_whatever_the_seeds():
    one, two = (make_recipes(seeds=seeds) for seeds in ((3,), (1, 2)))
    assert len({r.held_out_preference("harmless").key for r in (one, two)}) == 1


def test_only_the_methods_that_were_asked_for_are_compared():
    def labels(*names):
        recipes = make_recipes(tasks=("cheerful",), methods=names, table="methods")
        nodes_of = graph.in_order(methods.compared(recipes).nodes)
        return {node.label.partition("-")[0] for node in nodes_of}

    assert labels() == set(methods.SYSTEMS)
    # Other learners read RLCD's own preference model: no node of it but the policy.
    assert labels("rloo", "grpo") == {"base", "rlcd", "rloo", "grpo"}
    recipes = make_recipes()
    models = [recipes.preference(m, "harmless", 1) for m in ("rlcd", "rloo", "grpo")]
    assert models[0] is models[1] is models[2]
    policies = {
        m: next(
            n
            for n in graph.in_order([recipes.sample(m, "harmless", 1)])
            if n.stage == "policy"
        )
        for m in ("rlcd", "rloo", "grpo")
    }
    assert [p.config.policy.advantages for p in policies.values()] == [
        "gae",
        "rloo",
        "grpo",
    ]
    assert policies["rloo"].cost.trained == policies["rlcd"].cost.trained / 2
    assert labels("rlcd", "rlaif") == labels("rlcd,rlaif") == {"base", "rlcd", "rlaif"}


def test_a_task_without_its_human_pairs_is_known_before_anything_is_made(tmp_path):
    (tmp_path / "harmless-base").mkdir()
    (tmp_path / "harmless-base/train.jsonl.gz").touch()
    recipes = make_recipes(hh_rlhf__dir=str(tmp_path))
    lacks = cells.lacks_people
    assert lacks(recipes, "harmless") is None
    reason = "hh_rlhf.dir has no helpful-base/train.jsonl.gz"
    assert lacks(recipes, "helpful").reason == reason
    assert lacks(recipes, "cheerful").reason == "hh-rlhf has no pairs for cheerful"
    plan = plans.PLANS["29"](make_recipes(hh_rlhf__dir=str(tmp_path)))
    assert not plan.nodes


def test_generator_makes_the_pairs_and_only_them():
    models = {"model": "hf:seven", "generator": "hf:thirty"}
    recipes = make_recipes(**models, scale="llama-30b")
    found = graph.in_order([recipes.sample("rescore", "harmless", 1)])
    specs = {
        node.stage: (node.config.model.spec, node.config.prompts.source)
        for node in found
    }
    assert specs["simulate"] == specs["relabel"] == ("hf:thirty", "hh_rlhf")
    assert specs["preference"] == specs["policy"] == ("hf:seven", "hh_rlhf")
    assert len([node for node in found if node.stage == "policy"]) == 24
    sample = recipes.sample("rlcd", "harmless", 1).config.prompts.hh_test_split
    tune = next(node for node in found if node.stage == "tune")
    assert tune.settings["part"] == "dev"
    assert tune.config.prompts.hh_dev_split == "test[:1000]"
    assert sample == "test[1000:2000]"


def test_outline_keeps_the_papers_twenty_steps():
    recipes = make_recipes(scale="llama-7b")
    grid = recipes.policy("rlcd", "outline", 1).settings["grid"]
    assert {steps for _, steps in grid} == {20} and len(grid) == 6


def test_graded_replies_are_a_row_on_request_where_a_task_has_a_scale():
    recipes = make_recipes(tasks=("cheerful",), methods=("graded",), table="methods")
    made = graph.in_order(methods.compared(recipes).nodes)
    by_stage = {n.stage: n for n in made if n.label.startswith("graded-")}
    assert {n.label.partition("-")[0] for n in made} == {"base", "graded"}
    drawn, learnt = by_stage["simulate"], by_stage["preference"]
    assert learnt.config.preference.loss == "plackett_luce"
    pairs = drawn.config.pairs
    assert (pairs.sampling, pairs.samples) == ("graded", 4)
    draws = counts.num_draws(drawn.config, tasks.load_task("cheerful"))
    assert drawn.cost.generated == 4 * draws * pairs.reply_tokens
    # Of rankings each reply is read once; of pairs it would be with three others.
    length = learnt.config.preference.lengths[-1]
    assert learnt.cost.trained == 4 * draws * length
    plain = str(ROOT / "tests/world.toml")
    other = make_recipes(tasks=(plain,), methods=("graded",), table="methods")
    with pytest.raises(ValueError, match="methods has 'graded': .*'world' has none"):
        methods.compared(other)


def test_every_switch_is_a_row_or_says_why_not():
    """At the paper's size, where no size sets a field; nothing is made."""
    config = paper.get_config("table=quirks,scale=llama-7b")
    recipes = make_recipes(scale="llama-7b", table="quirks", tasks=("harmless",))
    rows = quirks._rows(recipes, "harmless")
    turned = [row for row in rows if isinstance(row, quirks.Turned)]
    others = {row[0]: str(row[1]) for row in rows if not isinstance(row, quirks.Turned)}
    assert set(others) == {
        "prompts.hh_test_split",
        "prompts.hh_agreement_split",
        "pairs.max_tries",  # released: as corrected
        "evaluate.both_orders",
    }
    names = [row.name for row in turned]
    assert set(config.quirks) == set(others) | set(names) - {quirks.NONE, quirks.ALL}
    methods_of = {row.method for row in turned}
    assert methods_of == {"rlcd", "rlaif", "distill"}
    assert names.count(quirks.NONE) == names.count(quirks.ALL) == 3
    keys = [tuple(node.key for node in row.wanted()) for row in turned]
    assert len(set(keys)) == len(keys)  # each switch reaches something that is read
    nodes_of = {node.key for row in turned for node in graph.in_order(row.wanted())}
    alone = sum(len(graph.in_order(row.wanted())) for row in turned)
    assert len(nodes_of) < 0.7 * alone  # and shares the rest


def test_methods_share_what_they_have_in_common():
    recipes = make_recipes()
    pairs = {method: recipes.pairs(method, "harmless", 1) for method in nodes.METHODS}
    assert pairs["rlcd"] is pairs["distill"] is pairs["rlcd_human20"]
    assert pairs["rescore"].parents == (pairs["rlcd"],)
    assert pairs["rlaif_few"].parents == (pairs["rlaif"],)
    models = {m: recipes.preference(m, "harmless", 1) for m in ("rlcd", "rlcd_human20")}
    assert models["rlcd"].key != models["rlcd_human20"].key
    base = [recipes.sample("base", "harmless", seed).key for seed in (1, 2)]
    assert base[0] != base[1]


def fake_stages(made, rewards):
    """Return stages that only note what they were asked for."""

    def note(node, place):
        made.append(node.key)
        if node.stage == "tune":
            policy = node.config.policy
            return {"reward": rewards[policy.kl_coef, policy.steps]}
        if node.stage == "policy":
            (place / "policy").mkdir()
            record_files.write_json(
                place / "policy" / "kl.json", node.config.policy.kl_coef
            )
        return {}

    return {name: note for name in node_stages.NODES} | {"select": node_stages.select}


def test_select_takes_the_highest_reward_and_of_equal_ones_the_first(tmp_path):
    recipes = make_recipes(tmp_path, grid__kl_coef=(0.1, 0.2, 0.3), grid__steps=(1, 2))
    chosen = recipes.policy("rlcd", "harmless", 1)
    rewards = {(kl, n): 0.0 for kl in (0.1, 0.2, 0.3) for n in (1, 2)}
    rewards |= {(0.2, 2): 5.0, (0.3, 1): 5.0}
    made = []
    graph.make(tmp_path, [chosen], fake_stages(made, rewards))
    assert len(made) == len(set(made)) == 2 + 6 + 6
    place = graph.folder(tmp_path, chosen)
    summary = done_mark.read_summary(place)
    assert (summary["kl_coef"], summary["steps"]) == (0.2, 2)
    assert summary["rewards"] == [0, 0, 0, 5, 5, 0]
    assert (place / "chosen" / "kl.json").read_text().strip() == "0.2"
    moved = tmp_path.rename(tmp_path.parent / f"{tmp_path.name}-moved")
    assert (graph.folder(moved, chosen) / "chosen" / "kl.json").exists()
    assert graph.make(moved, [chosen], {}) == []  # links are relative, names too


def test_make_needs_no_parents_of_finished_nodes(tmp_path):
    recipes = make_recipes(tmp_path)
    wanted = recipes.sample("rlcd", "harmless", 1)
    made = []
    graph.make(tmp_path, [wanted], fake_stages(made, {}))
    records_of = graph.folder(tmp_path, recipes.policy("rlcd", "harmless", 1))
    (records_of / done_mark.DONE).unlink()
    assert graph.needed(tmp_path, [wanted]) == []
    other = recipes.judge("rlcd", "base", "harmless", 1, api=False)
    names = [node.stage for node in graph.needed(tmp_path, [other])]
    assert names == ["sample", "judge"]


def test_make_refuses_a_node_whose_mark_is_of_another(tmp_path):
    recipes = make_recipes(tmp_path)
    node = recipes.pairs("rlcd", "harmless", 1)
    graph.make(tmp_path, [node], fake_stages([], {}))
    done_mark.mark_done(graph.folder(tmp_path, node), {"other": 1}, {})
    with pytest.raises(ValueError, match="made with another config"):
        graph.is_done(tmp_path, node)


@pytest.mark.parametrize(
    ("table", "scale"),
    [(table, "tiny") for table in plans.PLANS]
    + [("all", scale) for scale in paper.SCALES],
)
def test_every_table_has_a_forecast_that_makes_nothing(tmp_path, capsys, table, scale):
    shots = tmp_path / "shots.txt"
    shots.write_text("Two solved examples.")
    config = make_config(table, scale, shots=str(shots), grid__kl_coef=(0.01,))
    reproduce.run(config, str(tmp_path / "w"), dry_run=True)
    shown = capsys.readouterr().out
    assert "to make: at most" in shown and f" {scale}:" in shown
    assert ("simulate-" in shown) == (table not in ("2", "23", "theory"))
    assert not (tmp_path / "w").exists()


def test_forecast_adds_up(tmp_path):
    recipes = make_recipes(tmp_path)
    wanted = (recipes.sample("rlcd", "harmless", 1),)
    chosen = {"one": cells.TablePlan(wanted, lambda: None)}
    fake = fake_stages([], {})
    graph.make(tmp_path, [recipes.preference("rlcd", "harmless", 1)], fake)
    shown = plans.forecast(recipes.setup, chosen, whole=True).splitlines()
    states = [line.split("  ")[0].strip() for line in shown[1:-1]]
    assert states == ["exists", "exists", "to make", "to make", "to make"]
    assert shown[-1].startswith("5 nodes, 3 to make: at most ")
    policy = recipes.policy("rlcd", "harmless", 1).parents[0]
    section = policy.config.policy
    whole = section.rollouts * section.steps * (256 + 12)
    dev = section.dev_prompts  # one checkpoint
    generated, scored = (section.rollouts + dev) * 12.0, 4.0 * whole + 3.0 * dev * 268
    assert policy.cost == graph.Cost(generated, 2.0 * whole, scored)
    cost = graph.Cost(generated=3_600e3, trained=7_200e3, scored=0.0)
    assert costs.hours(cost, recipes.setup.config.rates) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": (1, "x")}, r"seeds=\(1, 'x'\); accepted: whole numbers, from 0"),
        ({"seeds": ()}, r"seeds=\(\); accepted: whole numbers, from 0"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\); accepted: .*each once"),
        ({"grid__kl_coef": (-1,)}, "accepted: finite numbers, from 0, each once"),
        ({"grid__steps": (0,)}, "accepted: whole numbers, from 1"),
        ({"hh_rlhf__dir": "nowhere"}, "holds no hh-rlhf files"),
        ({"tasks": ("nonsense",)}, "nonsense"),
        ({"tasks": ()}, r"tasks=\(\); accepted: a task"),
        ({"methods": ("rlcd,base",)}, "methods has 'base'; accepted: distill, rlaif"),
        ({"table": "4"}, "table='4'; accepted: theory, methods, 2"),
    ],
)
def test_wrong_fields_are_refused_before_anything_is_made(tmp_path, fields, message):
    fields = {"table": "3", **fields}
    with pytest.raises(ValueError, match=message):
        reproduce.run(make_config(**fields), str(tmp_path / "w"), dry_run=True)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.run.policy.stepz=3", "no field 'run.policy.stepz'"),
        ("--config.run.policy.steps=3", "no field 'run.policy.steps'"),
        ("--config.run.policy.rollouts=few", "run.policy.rollouts"),
        ("--config.scale=llama-7b", "--config FILE:scale=VALUE"),
        ("--config.methods=rlcd,base", "methods has 'base'; accepted: distill, rlaif"),
    ],
)
def test_wrong_flags_end_in_one_message(tmp_path, flag, message):
    argument = "configs/paper.py:table=3,scale=tiny"
    words = ["-m", "experiments.reproduce", "--config", argument, flag, "--dry_run"]
    done = subprocess.run(
        [sys.executable, *words, "--workdir", str(tmp_path / "w")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0 and message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr and not (tmp_path / "w").exists()


def test_tables_without_weights_or_data_say_so(tmp_path, capsys):
    reproduce.run(make_config("3", "llama-30b"), str(tmp_path), dry_run=False)
    shown = capsys.readouterr().out
    assert "missing: weights of llama-7b are not part of this project" in shown
    assert "60.3 / 39.7 (Table 3)" in shown and "unpublished prompts" in shown
    given = make_config("5", "llama-30b", model="hf:a", generator="hf:b")
    reproduce.run(given, str(tmp_path), dry_run=False)
    shown = capsys.readouterr().out
    assert "missing: no hh-rlhf folder: --config.hh_rlhf.dir" in shown
    assert "55.9 / 0.542 (Table 5)" in shown
    assert not (tmp_path / "nodes").exists()
    assert (pathlib.Path(tmp_path) / "tables" / "table_5.json").exists()


def test_two_jobs_that_want_one_node_make_it_once(tmp_path):
    node = make_recipes(tmp_path).pairs("rlcd", "harmless", 1)
    made, inside, go_on = [], threading.Event(), threading.Event()

    def slow(node, place):
        made.append(node.key)
        inside.set()
        assert go_on.wait(10)
        return {"by": len(made)}

    jobs = [
        threading.Thread(
            target=graph.make_one, args=(tmp_path, node, {"simulate": slow})
        )
        for _ in range(2)
    ]
    jobs[0].start()
    assert inside.wait(10)
    jobs[1].start()
    jobs[1].join(0.3)
    assert jobs[1].is_alive()  # it waits for the lock
    go_on.set()
    for job in jobs:
        job.join(10)
    assert made == [node.key]
    assert done_mark.read_summary(graph.folder(tmp_path, node)) == {"by": 1}


def test_a_node_alone_is_made_after_its_parents_and_only_it(tmp_path):
    recipes = make_recipes(tmp_path)
    trained = recipes.preference("rlcd", "harmless", 1)
    pairs, made = trained.parents[0], []
    with pytest.raises(ValueError) as refused:
        graph.make_one(tmp_path, trained, fake_stages(made, {}))
    assert f"make it first, with --node={graph.name_of(pairs)}" in str(refused.value)
    for node in (pairs, trained, trained):
        graph.make_one(tmp_path, node, fake_stages(made, {}))
    assert made == [pairs.key, trained.key]
    with pytest.raises(ValueError, match="of stage preference, which has no parts"):
        node_stages.make_part(tmp_path, trained, work_parts.WHOLE)


def test_a_node_is_found_by_its_name_and_no_other_is_guessed(tmp_path):
    wanted = [make_recipes(tmp_path).preference("rlcd", "harmless", 1)]
    name = graph.name_of(wanted[0])
    assert graph.find(wanted, name) is wanted[0]
    assert graph.find(wanted, graph.name_of(wanted[0].parents[0]))
    with pytest.raises(ValueError, match=f"the nearest: {name}"):
        graph.find(wanted, f"{name[:-1]}x")
    with pytest.raises(ValueError, match="add --node=NAME"):
        reproduce.run(make_config(), str(tmp_path / "w"), dry_run=False, part="1/2")
