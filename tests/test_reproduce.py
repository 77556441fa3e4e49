"""Every table of a reproduction, on a random tiny model and a made hh-rlhf folder."""

import collections
import contextlib
import html
import json
import re
import types
from unittest import mock
from xml.etree import ElementTree

import pytest
import runs

from configs import paper
from experiments import command, process, reproduce
from experiments import human as human_command
from rlcd_jax import done_mark, processes, record_files, records
from rlcd_jax.job import setup
from rlcd_jax.judging import chat_api
from rlcd_jax.judging import settings as api_settings
from rlcd_jax.paper import (
    cells,
    curves,
    graph,
    labels,
    methods,
    node_stages,
    nodes,
    plans,
    published,
    read_config,
    relabel_pairs,
    win_tables,
)
from rlcd_jax.stages import simulate_pairs

# The smallest sizes that go through every line, all on one device.
FIELDS = {
    "mesh.data": 1,
    "prompts.limit": 6,
    "preference.held_out": 1,
    "preference.eval_every": 100,
    "policy.rollouts": 2,
    "policy.epochs": 1,
    "evaluate.resamples": 50,
    "evaluate.reply_tokens": 8,
}
IN_ALL = [name for name in plans.PLANS if name not in plans.APART]
KILLED_AT = 12  # nodes made before the first command is killed


class Stop(Exception):
    """Stands for whatever kills a run."""


def alone():
    """Let a command run as it is, without what its process sets up."""
    return mock.patch.object(process, "job", lambda *_, **__: contextlib.nullcontext())


def make(root, table, fields):
    """Make a table of scale tiny as a user's command does; return its recipes."""
    config = paper.get_config(f"table={table},scale=tiny")
    config.update_from_flattened_dict(fields)
    with runs.devices_by_mesh(), alone():
        reproduce.run(config, str(root), dry_run=False)
    setup = read_config.read_setup(
        config, root, make_config=command.method_config, cache_dir="", api_key=None
    )
    return nodes.Recipes(setup)


def remake(world, table, **fields):
    """Make a table in the folder of all; keyword fields have "__" for the dots."""
    more = {name.replace("__", "."): value for name, value in fields.items()}
    return make(world.root, table, {**world.fields, **more})


def counting(made, kill_at=None):
    """Return the stages, each of which notes its node first."""

    def note(run):
        def noted(node, place):
            if kill_at is not None and len(made) == kill_at:
                raise Stop
            summary = run(node, place)
            made.append(graph.folder("", node).name)
            return summary

        return noted

    return {name: note(run) for name, run in node_stages.NODES.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Return a folder with all tables, made by a command that was killed once."""
    base = tmp_path_factory.mktemp("reproduce")
    hh = base / "hh" / "harmless-base"
    for split, num in (("train", 40), ("test", 4)):
        rows = []
        for i in range(num):
            start = f"\n\nHuman: May I, {split} {i}?\n\nAssistant:"
            row = {"chosen": f"{start} Kindly {i}.", "rejected": f"{start} Go {i}."}
            rows.append(row)
        runs.write_hh(hh / f"{split}.jsonl.gz", rows)
    found = types.SimpleNamespace(root=base / "w", made=[])
    found.plain = {f"run.{name}": value for name, value in FIELDS.items()}
    found.plain |= {"run.prompts.data_dir": str(base / "data")}
    found.plain |= {"tasks": ("harmless",), "trials": 20_000}
    found.plain |= {"strength.alpha": (1.0, 2.0), "strength.affixes": ("middle",)}
    people = {"hh_rlhf.dir": str(hh.parent), "shots": "human:2"}
    found.fields = found.plain | people
    stopping = counting(found.made, KILLED_AT)
    with mock.patch.object(node_stages, "NODES", stopping), contextlib.suppress(Stop):
        remake(found, "all")
    assert len(found.made) == KILLED_AT
    with mock.patch.object(node_stages, "NODES", counting(found.made)):
        found.recipes = remake(found, "all")
    return found


def read(world, name):
    """Return the rows of a table by name, and its notes as one text."""
    table = json.loads((world.root / "tables" / f"table_{name}.json").read_text())
    rows = {row["name"]: row["cells"] for row in table["rows"]}
    assert (world.root / "tables" / f"table_{name}.md").read_text().startswith("**")
    return rows, " ".join(table["notes"])


def is_estimate(cell):
    return cell["low"] <= cell["value"] <= cell["high"]


# --- the graph ------------------------------------------------------------------------


def test_killed_and_started_again_makes_every_node_once(world):
    assert len(world.made) == len(set(world.made))
    counts = collections.Counter(name.partition("-")[0] for name in world.made)
    assert counts == {
        "simulate": 3,  # RLCD's pairs and RLAIF's serve all methods; alpha of 2
        "relabel": 2,
        "join": 1,
        "preference": 8,
        "policy": 7,
        "select": 7,
        "distill": 1,
        "direct": 1,
        "sample": 11,
        "judge": 6,
        "pair_rewards": 6,
        "reply_rewards": 8,
        "perplexity": 4,
    }
    on_disk = {path.name for path in (world.root / "nodes").iterdir()}
    assert on_disk == set(world.made)


def test_finished_nodes_keep_weights_and_no_moments(world):
    items = (world.root / "nodes").glob("*/*/checkpoints/*/*")
    names = {path.name for path in items if path.is_dir()}
    assert names == {"preference", "policy", "meta", "hashes"}


def test_a_second_command_makes_nothing(world):
    made = []
    before = (world.root / "tables" / "table_3.json").read_bytes()
    other = world.root / "tables" / "table_methods_other.svg"
    other.write_text("of a command with other tasks")
    with mock.patch.object(node_stages, "NODES", counting(made)):
        remake(world, "all")
    assert made == [] and not other.exists()
    assert (world.root / "tables" / "table_3.json").read_bytes() == before


def test_a_stage_that_dies_goes_on_from_what_it_has(world, tmp_path, monkeypatch):
    node = world.recipes.judge("rlcd", "rlaif", "harmless", 1, api=False)
    place = graph.folder(world.root, node)
    done = place / done_mark.DONE
    one, two = (place / f"verdicts-{q}.jsonl" for q in node.settings["questions"])
    mark, kept = done.read_bytes(), two.read_bytes()
    done.unlink()
    two.unlink()
    asked = []
    judge = node_stages.held_out_replies.judge_locally

    def noting(config, answers, question, name):
        asked.append(question)
        return judge(config, answers, question, name)

    monkeypatch.setattr(node_stages.held_out_replies, "judge_locally", noting)
    remake(world, "3")
    assert asked == [node.settings["questions"]["harmless_helpful"]]
    assert two.read_bytes() == kept and done.read_bytes() == mark and one.exists()


# --- the tables -----------------------------------------------------------------------


@pytest.mark.parametrize("name", IN_ALL)
def test_every_table_is_written_with_its_paper_column(world, name):
    rows, notes = read(world, name)
    assert rows
    if name == "theory":
        assert rows["RLAIF, hard pairs"]["published"] == "0.528"
        return
    assert "seeds 1" in notes and "tiny" in notes
    if name in ("methods", "strength"):  # the paper has no such table
        return
    first = next(iter(next(iter(rows.values()))))
    assert first.startswith("Paper") and "7B" in first


def test_page_shows_all_tables_and_loads_nothing(world):
    page = (world.root / "tables/tables.html").read_text()
    for name in IN_ALL:
        path = world.root / f"tables/table_{name}.json"
        assert html.escape(json.loads(path.read_text())["caption"]) in page
    assert page.count("<section") == len(IN_ALL) + 1  # and shared notes
    table = json.loads((world.root / "tables/table_36.json").read_text())
    text = html.unescape(page)
    assert all(text.count(note) == 1 for note in table["notes"])
    assert not re.search(r"src=|<link|<script|url\(http|@import", page)


def test_curves_of_the_chosen_policies_are_a_figure_that_stands_alone(world):
    path = world.root / "tables/table_methods_harmless.svg"
    text = path.read_text()
    ElementTree.fromstring(text)
    names = [cells.NAMES[s] for s in methods.SYSTEMS]
    titles = [title for title, _, _ in curves.METRICS]
    for shown in (*names[1:], *titles, curves.WINS, "seeds 1"):
        assert shown in text
    assert text in (world.root / "tables/tables.html").read_text()


def test_curves_are_means_over_seeds_with_their_range():
    seeds = [
        [{"step": 1, "kl": 1.0}, {"step": 2, "kl": 2.0}, {"step": 3, "kl": 9.0}],
        [{"step": 1, "kl": 3.0, "other": 1.0}, {"step": 2, "kl": 2.0}],
    ]
    (line,) = curves._lines({"RLCD": seeds}, "kl")
    assert (line.label, line.steps, line.values) == ("RLCD", [1, 2], [2.0, 2.0])
    assert (line.low, line.high) == ([1.0, 2.0], [3.0, 2.0])
    assert curves._lines({"RLCD": seeds}, "other") == []
    (alone,) = curves._lines({"RLCD": seeds[:1]}, "kl")
    assert alone.values == [1.0, 2.0, 9.0] and not alone.low


@pytest.mark.parametrize("name", ["3", "6", "16", "40"])
def test_judged_tables_have_intervals_and_name_the_judge(world, name):
    rows, notes = read(world, name)
    ours = [row for title, row in rows.items() if title.endswith("harmless")]
    assert len(ours) == len(nodes_of(name))
    for row in ours:
        assert is_estimate(row["Ours, local judge, %"]) and 0 <= float(row["p"]) <= 1
        assert row["Ours, API judge, %"]["missing"].startswith("no API judge")
        assert 0 <= row["Flips, %"] <= 1 and float(row["By seed, %"]) >= 0
    assert "log-odds of random:tiny, which is not GPT-4" in notes
    shots = "Shots: 2 pairs of hh-rlhf with the choice of people"
    assert (shots in notes) == (name == "16")


def test_methods_are_compared_with_base_by_the_model_of_human_pairs(world):
    rows, notes = read(world, "methods")
    systems = methods.SYSTEMS
    names = [cells.NAMES[system] for system in systems]
    assert list(rows) == [f"{name}, harmless" for name in names]
    for title, row in rows.items():
        assert row["Judge"] == "model of human pairs" and is_estimate(row["Score"])
        if title.startswith("base"):
            assert row["Wins over base, %"] == row["KL, nats a reply"] == "-"
            continue
        assert is_estimate(row["Wins over base, %"]) and 0 <= float(row["p"]) <= 1
        by_seed = float(row["By seed, %"])
        assert by_seed == pytest.approx(100 * row["Wins over base, %"]["value"], 0.01)
        if title.startswith("Best"):
            assert row["KL, nats a reply"] == "at most 1.84"
            continue
        assert row["KL, nats a reply"]["value"] >= 0
    assert "Best of 16: of 16 replies of the base model" in notes
    assert "no method sees it" in notes


def test_the_strength_of_the_contrast_is_judged_by_the_model_of_human_pairs(world):
    rows, notes = read(world, "strength")
    for alpha in (1, 2):
        row = rows[f"middle affixes, alpha {alpha}, harmless"]
        assert row["Judge"] == "model of human pairs" and row["Pairs"] > 1
        assert 0 <= row["Label accuracy, %"]["value"] <= 1
        assert is_estimate(row["Shift"]) and row["Spread"] > 0
    assert "a calculation, no evidence" in notes


def test_methods_without_people_name_what_is_missing(tmp_path):
    """The forecast needs no data, and the nodes of the judge are not in it."""
    config = paper.get_config("table=methods,scale=tiny")
    config.tasks = ("harmless",)
    setup = read_config.read_setup(
        config, tmp_path, make_config=command.method_config, cache_dir="", api_key=None
    )
    made = methods.nodes_of(nodes.Recipes(setup), "harmless", methods.SYSTEMS)
    assert made.judge.reason == "no hh-rlhf folder: --config.hh_rlhf.dir"
    assert not made.rewards and set(made.samples) == set(methods.SYSTEMS)


def test_mixed_pairs_are_those_of_both_labels(world):
    found = {
        method: record_files.read_jsonl(
            graph.folder(world.root, world.recipes.pairs(method, "harmless", 1))
            / "pairs"
            / "pairs.jsonl",
            records.Pair,
        )
        for method in ("rlcd", "rescore", "mixed")
    }
    assert found["mixed"] == found["rlcd"] + found["rescore"]
    labels = {pair.labels for pair in found["mixed"]}
    assert labels == {"construction", "scoring"}


def nodes_of(name):
    return win_tables.COMPARISONS[name]


def test_papers_figures_stand_beside_ours(world):
    rows, _ = read(world, "3")
    row = rows["RLCD vs RLAIF, harmless"]
    assert row["Paper, GPT-4, 7B"] == "84.8 / 15.2 (Table 3)"
    assert rows["RLCD vs base model, harmless"]["Paper, GPT-4, 7B"] == published.UNKNOWN
    assert "missing" in rows["RLCD vs RLAIF, helpful"]["Ours, API judge, %"]
    outline = rows["RLCD vs RLAIF, outline"]["Ours, API judge, %"]["missing"]
    assert outline.startswith("unpublished prompts")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("5", "Accuracy, %"),
        ("36", "Label accuracy, %"),
        ("28", "Reward"),
        ("perplexity", "Perplexity"),
        ("length", "Tokens"),
    ],
)
def test_measures_have_intervals_and_a_paired_test(world, name, column):
    rows, _ = read(world, name)
    ours = {title: row for title, row in rows.items() if title.endswith(", harmless")}
    for title, row in ours.items():
        assert is_estimate(row[column])
        tests = [value for key, value in row.items() if key.startswith("p")]
        for value in tests:
            assert value == "-" if title.startswith("RLCD") else 0 <= float(value) <= 1
    assert len(ours) == (2 if name in ("5", "36") else 4)


def test_table_29_has_nothing_without_its_task(world):
    rows, _ = read(world, "29")
    assert {row["Reward"]["missing"] for row in rows.values()} == {
        "not among --config.tasks"
    }


def test_label_accuracy_counts_the_labels_that_the_held_out_model_shares(world):
    rows, _ = read(world, "36")
    node = world.recipes.pair_rewards("rlcd", "harmless", 1, human=False)
    rewards = record_files.read_jsonl(
        graph.folder(world.root, node) / "pair_rewards.jsonl"
    )
    pairs_node = world.recipes.pairs("rlcd", "harmless", 1)
    path = graph.folder(world.root, pairs_node) / "pairs" / "pairs.jsonl"
    better = {p.id: p.prob_2 for p in record_files.read_jsonl(path, records.Pair)}
    right = [(r["reward_2"] > r["reward_1"]) == (better[r["id"]] == 1) for r in rewards]
    assert rows["RLCD, harmless"]["Label accuracy, %"]["value"] == pytest.approx(
        sum(right) / len(right)
    )


def test_human_pairs_of_table_5_are_a_part_of_their_own(world):
    node = world.recipes.pair_rewards("rlcd", "harmless", 1, human=True)
    rewards = record_files.read_jsonl(
        graph.folder(world.root, node) / "pair_rewards.jsonl"
    )
    ids = [row["prompt_id"] for row in rewards]
    assert ids == [f"harmless-base/train/{i:06d}" for i in range(2)]


def test_rescore_by_relabelling_equals_its_own_simulation(world, tmp_path):
    """The contrast pairs are the same draws, so they are not sampled twice."""
    node = world.recipes.pairs("rescore", "harmless", 1)
    config = node.config.copy_and_resolve_references()
    assert config.pairs.sampling == "contrast" and config.pairs.labels == ("scoring",)
    with runs.devices_by_mesh():
        simulate_pairs.simulate_pairs(config, tmp_path)
    ours, direct = (
        record_files.read_jsonl(place / "pairs" / "pairs.jsonl", records.Pair)
        for place in (graph.folder(world.root, node), tmp_path)
    )
    assert [pair.prob_2 for pair in ours] == pytest.approx([p.prob_2 for p in direct])
    for one, two in zip(ours, direct, strict=True):
        assert (one.id, one.reply_1, one.side_1) == (two.id, two.reply_1, two.side_1)
        assert one.scoring.keys() == two.scoring.keys()


def test_shots_change_labels_and_no_reply(world):
    few, plain = (
        record_files.read_jsonl(
            graph.folder(world.root, world.recipes.pairs(m, "harmless", 1))
            / "pairs/pairs.jsonl",
            records.Pair,
        )
        for m in ("rlaif_few", "rlaif")
    )
    assert [p.reply_1 for p in few] == [p.reply_1 for p in plain]
    assert [p.prob_2 for p in few] != [p.prob_2 for p in plain]


def test_too_many_shots_are_refused_before_the_model_reads_them(world):
    node = world.recipes.pairs("rlaif_few", "harmless", 1)
    source = graph.folder(world.root, node) / "source" / "pairs.jsonl"
    with runs.devices_by_mesh():
        job = setup.load_job(node.config)
        shots = "x" * job.cfg.max_positions
        with pytest.raises(ValueError, match="fewer or shorter shots"):
            relabel_pairs.relabel_pairs(node.config, "unused", source, shots=shots)


# --- what is missing ------------------------------------------------------------------


def test_without_people_and_shots_the_tables_say_so(world):
    for name, reason in (
        ("5", "no hh-rlhf folder"),
        ("36", "no hh-rlhf folder"),
        ("28", "no hh-rlhf folder"),
        ("40", "no hh-rlhf folder"),
        ("16", "unpublished shots"),
        ("2", "no study folder"),
        ("23", "no study folder"),
    ):
        make(world.root, name, world.plain)
        rows, _ = read(world, name)
        row = next(row for title, row in rows.items() if "harmless" in title)
        found = [c["missing"] for c in row.values() if isinstance(c, dict)]
        assert found and found[0].startswith(reason), name
    remake(world, "all")  # puts the others back, from what is there


def test_api_judge_that_always_says_a_gets_one_half_with_all_flips(world, monkeypatch):
    def ask_all(self, texts, **_):
        return ["(A) is better."] * len(texts)

    monkeypatch.setattr(chat_api.ChatApi, "ask_all", ask_all)
    url = {"judge__url": "http://localhost:1", "judge__name": "says-a"}
    made = []
    with mock.patch.object(node_stages, "NODES", counting(made)):
        remake(world, "3", **url)
    assert {name.partition("-")[0] for name in made} == {"judge_api"}
    rows, notes = read(world, "3")
    row = rows["RLCD vs base model, harmless"]
    assert row["Ours, API judge, %"]["value"] == 0.5 and "says-a" in notes
    assert row["Ours, local judge, %"]["missing"].startswith("not asked")
    node = world.recipes.judge("rlcd", "base", "harmless", 1, api=False)
    samples = record_files.read_jsonl(graph.folder(world.root, node) / "samples.jsonl")
    replies = collections.defaultdict(set)
    for sample in samples:
        replies[sample["prompt_id"]].add(sample["reply"])
    differing = sum(len(both) == 2 for both in replies.values())
    assert differing >= 2  # one step of PPO is seen
    assert row["Flips, %"] == pytest.approx(differing / 3) and row["p"] == "1"
    remake(world, "3")


def test_missing_api_key_is_said(world, monkeypatch):
    monkeypatch.delenv(api_settings.KEY, raising=False)
    url = {"judge__url": "https://example.com/v1", "judge__name": "gpt"}
    remake(world, "3", **url)
    row = read(world, "3")[0]["RLCD vs RLAIF, harmless"]
    assert row["Ours, API judge, %"]["missing"] == "missing API key: OPENAI_API_KEY"
    remake(world, "3")


def test_studies_fill_tables_2_and_23(world, tmp_path):
    node = world.recipes.judge("rlcd", "base", "harmless", 1, api=False)
    samples = graph.folder(world.root, node) / "samples.jsonl"
    args = ["make", "--samples", str(samples), "--systems", "rlcd", "base"]
    args += ["--task", "harmless", "--annotators", "1", "--per_annotator", "2"]
    args += ["--repeats", "0", "--gold", "0", "--workdir", str(tmp_path / "study")]
    human_command.main(args)
    key = record_files.read_jsonl(tmp_path / "study/key/key.jsonl")
    study = json.loads((tmp_path / "study/key/study.json").read_text())
    answers = [
        {"item": k["item"], "answer": 2 if k["side_2"] == "B" else 7} for k in key
    ]
    value = {"study": study["id"], "annotator": key[0]["annotator"], "answers": answers}
    record_files.write_json(tmp_path / "study/answers/a.json", value)
    make(world.root, "2", {**world.plain, "studies": (str(tmp_path / "study"),)})
    rows, _ = read(world, "2")
    row = rows["RLCD vs base model, harmless"]
    assert row["Ours"].startswith("7.00 / 2.00") and row["Judgments"] == 2
    assert row["Paper, 7B"] == published.UNKNOWN
    row = rows["RLCD vs RLAIF, harmless"]
    assert row["Paper, 7B"] == "5.62 / 3.38 (Table 2)" and "missing" in row["Ours"]
    remake(world, "23", studies=(str(tmp_path / "study"),))
    row = read(world, "23")[0]["RLCD vs base model, harmless"]
    assert "Ours, %" in row and row["Judge"] == "log_odds of random:tiny, not GPT-4"


def test_switches_are_turned_one_by_one(world, monkeypatch):
    """One that a policy feels, one this size sets, one of two replies, one that fails."""

    def refuse(*_):
        raise ValueError("no pairs are left")

    monkeypatch.setitem(node_stages.NODES, "simulate", refuse)
    names = ("policy.kl_estimator", "pairs.max_tries", "evaluate.both_orders")
    names += ("pairs.top_k",)
    before = set((world.root / "nodes").iterdir())
    remake(world, "quirks", quirks=names)
    rows, notes = read(world, "quirks")
    base, turned, same, judge, *without = rows.items()
    shown = [f"{name}, RLCD, harmless" for name in ("pairs.top_k", "released")]
    assert [name for name, _ in without] == shown
    for _, row in without:
        assert "no pairs are left" in str(row["Labels right, %"])
    assert (without[0][1]["Corrected"], without[0][1]["Released"]) == ("0", "50")
    assert base[0] == "corrected, RLCD, harmless"
    assert turned[0] == "policy.kl_estimator, RLCD, harmless"
    assert (turned[1]["Corrected"], turned[1]["Released"]) == ("k1", "k1_clamped")
    for _, row in (base, turned):
        assert is_estimate(row["Labels right, %"]) and is_estimate(row["Tokens"])
        assert is_estimate(row[curves.WINS]) and row["Judge"] == methods.PEOPLE
    assert base[1]["Labels right, %"] == turned[1]["Labels right, %"]  # one node
    assert "as corrected where size=smoke" in str(same[1]["Corrected"])
    assert "table=3 twice" in str(judge[1]["Corrected"])
    assert "One switch a row" in notes
    made = {path.name.partition("-")[0] for path in (world.root / "nodes").iterdir()}
    added = set((world.root / "nodes").iterdir()) - before
    counts = collections.Counter(path.name.partition("-")[0] for path in added)
    assert made and counts == {
        "simulate": 1,  # that was begun, of both
        "policy": 2,
        "select": 2,
        "sample": 2,
        "reply_rewards": 2,
    }


def test_a_table_that_fails_leaves_the_others(world, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("no theory today")

    monkeypatch.setattr(labels.appendix_n_table, "paper_table", refuse)
    (world.root / "tables" / "table_3.json").unlink()
    # Unless another process has not failed: it is elsewhere, and would wait for ever.
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(processes, "met", lambda *words: asked.append(words))
        with pytest.raises(ValueError, match="table theory: no theory today"):
            remake(world, "all")
    assert len(asked) == 1 and asked[0][0].startswith("table theory failed ")
    assert not (world.root / "tables" / "table_3.json").exists()
    with pytest.raises(ValueError, match="table theory: no theory today"):
        remake(world, "all")
    assert read(world, "3")
