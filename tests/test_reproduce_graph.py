"""The graph of a reproduction without any model: names, order, choice, forecast."""

import pathlib

import pytest

from experiments import reproduce
from experiments import reproduce_costs as costs
from experiments import reproduce_graph as graph
from experiments import reproduce_nodes as nodes
from experiments import reproduce_scales as scales
from experiments import reproduce_stages as stages
from rlcd_jax import records


def make_recipes(root="unused", *more, table="3", scale="tiny"):
    args = ["--table", table, "--scale", scale, "--workdir", str(root), *more]
    return nodes.Recipes(reproduce.read_setup(reproduce._parser().parse_args(args)))


def keys(recipes, *more):
    """Return the names of all nodes of RLCD's replies by stage."""
    found = graph.in_order([recipes.sample("rlcd", "harmless", 1)])
    return {node.stage: node.key for node in found}


def test_key_depends_on_what_the_result_depends_on():
    before = keys(make_recipes())
    assert list(before) == ["simulate", "preference", "policy", "select", "sample"]
    free = ("--set", "mesh.data=1", "--set", "engine.num_slots=4")
    free += ("--set", "model.cache_dir='elsewhere'", "--set", "evaluate.resamples=200")
    assert keys(make_recipes("another", *free)) == before
    later = keys(make_recipes("unused", "--set", "evaluate.reply_tokens=11"))
    assert [stage for stage in before if later[stage] != before[stage]] == ["sample"]
    middle = keys(make_recipes("unused", "--set", "preference.epochs=2"))
    changed = [stage for stage in before if middle[stage] != before[stage]]
    assert changed == ["preference", "policy", "select", "sample"]
    first = keys(make_recipes("unused", "--set", "pairs.alpha=1.5"))
    assert not set(first.values()) & set(before.values())


def test_the_model_of_human_pairs_is_one_whatever_the_seeds():
    one, two = (make_recipes("unused", "--seeds", seeds) for seeds in ("3", "1,2"))
    assert len({r.held_out_preference("harmless").key for r in (one, two)}) == 1


def test_only_the_methods_that_were_asked_for_are_compared():
    def labels(*more):
        recipes = make_recipes("unused", "--tasks", "cheerful", *more, table="methods")
        nodes_of = graph.in_order(reproduce.methods.compared(recipes).nodes)
        return {node.label.partition("-")[0] for node in nodes_of}

    assert labels() == set(reproduce.methods.SYSTEMS)
    assert labels("--methods", "rlcd,rlaif") == {"base", "rlcd", "rlaif"}


def test_a_task_without_its_human_pairs_is_known_before_anything_is_made(tmp_path):
    (tmp_path / "harmless-base").mkdir()
    (tmp_path / "harmless-base/train.jsonl.gz").touch()
    recipes = make_recipes("unused", "--hh_dir", str(tmp_path))
    lacks = reproduce.cells.lacks_people
    assert lacks(recipes, "harmless") is None
    reason = "--hh_dir has no helpful-base/train.jsonl.gz"
    assert lacks(recipes, "helpful").reason == reason
    assert lacks(recipes, "cheerful").reason == "hh-rlhf has no pairs for cheerful"
    plan = reproduce.PLANS["29"](make_recipes("unused", "--hh_dir", str(tmp_path)))
    assert not plan.nodes


def test_generator_makes_the_pairs_and_only_them():
    models = ("--model", "hf:seven", "--generator", "hf:thirty")
    recipes = make_recipes("unused", *models, scale="llama-30b")
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


def test_methods_share_what_they_have_in_common():
    recipes = make_recipes("unused", "--hh_dir", "")
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
            records.write_json(place / "policy" / "kl.json", node.config.policy.kl_coef)
        return {}

    return {name: note for name in stages.STAGES} | {"select": stages.select}


def test_select_takes_the_highest_reward_and_of_equal_ones_the_first(tmp_path):
    recipes = make_recipes(tmp_path, "--kl", "0.1,0.2,0.3", "--steps", "1,2")
    chosen = recipes.policy("rlcd", "harmless", 1)
    rewards = {(kl, n): 0.0 for kl in (0.1, 0.2, 0.3) for n in (1, 2)}
    rewards |= {(0.2, 2): 5.0, (0.3, 1): 5.0}
    made = []
    graph.make(tmp_path, [chosen], fake_stages(made, rewards))
    assert len(made) == len(set(made)) == 2 + 6 + 6
    place = graph.folder(tmp_path, chosen)
    summary = records.read_summary(place)
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
    (records_of / records.DONE).unlink()
    assert graph.needed(tmp_path, [wanted]) == []
    other = recipes.judge("rlcd", "base", "harmless", 1, api=False)
    names = [node.stage for node in graph.needed(tmp_path, [other])]
    assert names == ["sample", "judge"]


def test_make_refuses_a_node_whose_mark_is_of_another(tmp_path):
    recipes = make_recipes(tmp_path)
    node = recipes.pairs("rlcd", "harmless", 1)
    graph.make(tmp_path, [node], fake_stages([], {}))
    records.mark_done(graph.folder(tmp_path, node), {"other": 1}, {})
    with pytest.raises(ValueError, match="made with another config"):
        graph.is_done(tmp_path, node)


@pytest.mark.parametrize(
    ("table", "scale"),
    [(table, "tiny") for table in reproduce.PLANS]
    + [("all", scale) for scale in scales.SCALES],
)
def test_every_table_has_a_forecast_that_makes_nothing(tmp_path, capsys, table, scale):
    args = ["--table", table, "--scale", scale, "--workdir", str(tmp_path / "w")]
    shots = tmp_path / "shots.txt"
    shots.write_text("Two solved examples.")
    reproduce.main([*args, "--shots", str(shots), "--dry_run", "--kl", "0.01"])
    shown = capsys.readouterr().out
    assert "to make: at most" in shown and f" {scale}:" in shown
    assert ("simulate-" in shown) == (table not in ("2", "23", "theory"))
    assert not (tmp_path / "w").exists()


def test_forecast_adds_up(tmp_path):
    recipes = make_recipes(tmp_path)
    wanted = [recipes.sample("rlcd", "harmless", 1)]
    fake = fake_stages([], {})
    graph.make(tmp_path, [recipes.preference("rlcd", "harmless", 1)], fake)
    shown = reproduce.forecast(recipes.setup, wanted, whole=True).splitlines()
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
    assert costs.hours(cost, recipes.setup.scale) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "1,x"], "--seeds '1,x'; accepted"),
        (["--seeds", "1,1"], "names one twice"),
        (["--kl", "-1"], "no negative numbers"),
        (["--set", "policy.stepz=3"], "--set policy.stepz: no such field"),
        (["--set", "policy.steps"], "accepted: section.field=value"),
        (["--hh_dir", "nowhere"], "holds no hh-rlhf files"),
        (["--tasks", "nonsense"], "nonsense"),
        (["--methods", "rlcd,base"], "--methods 'base'; accepted: distill, rlaif"),
    ],
)
def test_wrong_arguments_end_in_one_message(tmp_path, capsys, more, message):
    args = ["--table", "3", "--scale", "tiny", "--workdir", str(tmp_path), "--dry_run"]
    with pytest.raises(SystemExit) as caught:
        reproduce.main([*args, *more])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_job_of_several_processes_is_refused(monkeypatch):
    graph.check_processes()
    monkeypatch.setattr(graph.jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="one process and there are 2"):
        graph.check_processes()


def test_tables_without_weights_or_data_say_so(tmp_path, capsys):
    args = ["--scale", "llama-30b", "--workdir", str(tmp_path), "--table"]
    reproduce.main([*args, "3"])
    shown = capsys.readouterr().out
    assert "missing: weights of llama-7b are not part of this project" in shown
    assert "60.3 / 39.7 (Table 3)" in shown and "unpublished prompts" in shown
    reproduce.main([*args, "5", "--model", "hf:a", "--generator", "hf:b"])
    shown = capsys.readouterr().out
    assert "missing: no hh-rlhf folder: --hh_dir" in shown
    assert "55.9 / 0.542 (Table 5)" in shown
    assert not (tmp_path / "nodes").exists()
    assert (pathlib.Path(tmp_path) / "tables" / "table_5.json").exists()
