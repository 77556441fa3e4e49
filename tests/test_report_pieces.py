"""Tests of the pieces of rlcd_jax.report: figures, curves, tables and browsers."""

import collections
import dataclasses
import json
import re
from xml.etree import ElementTree

import pytest
import runs
from made_run import make_pair, make_run, metric_rows

from rlcd_jax import record_files, report
from rlcd_jax.planning import chips
from rlcd_jax.planning import plan as planned
from rlcd_jax.planning import tables as plan_tables
from rlcd_jax.report import (
    browsers,
    curves,
    panels,
    plots,
    reading,
    sections,
    tabulate,
    watch,
)
from rlcd_jax.statistics import estimates


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rlcd")


def test_differences_are_by_field_and_lists_equal_tuples():
    one = {"a": {"b": 1, "c": (1, 2)}, "d": "x"}
    two = {"a": {"b": 2, "c": [1, 2]}, "e": True}
    assert sections.differences(one, two) == [
        ("a.b", "1", "2"),
        ("d", "x", "absent"),
        ("e", "absent", "true"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.06, "4.1 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (7199.8, "2 h 00 min"),
    ],
)
def test_duration_reads_as_a_person_says_it(seconds, text):
    assert sections.duration(seconds) == text


def test_stage_curves_puts_held_out_on_the_same_panel(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "curve", lambda title, lines, **_: drawn.setdefault(title, lines)
    )
    (found,) = curves.stage_curves(
        {"": [r for r in metric_rows(0) if r["stage"] == "preference"]}
    )
    assert [line.label for line in drawn["Loss"]] == ["training", "held out"]
    assert [len(line.steps) for line in drawn["Accuracy"]] == [160, 8]
    assert "preference/soft_accuracy" in drawn  # among the others
    assert found["not_there"] == []


def test_stage_curves_names_what_was_not_recorded():
    rows = [{"stage": "policy", "step": 1, "rollout/kl_sum_mean": 1.0}]
    (found,) = curves.stage_curves({"": rows})
    assert "entropy" in found["not_there"] and "clip fraction" in found["not_there"]
    assert len(found["panels"]) == 1


def test_stage_curves_keeps_apart_what_another_section_shows():
    rows = [row for row in metric_rows(0) if row["stage"] == "policy"]
    (whole,) = curves.stage_curves({"": rows})
    (found,) = curves.stage_curves({"": rows}, apart=watch.CURVES)
    assert whole["apart"] == [] and len(found["apart"]) == len(watch.CURVES)
    assert sorted(found["panels"] + found["apart"]) == sorted(whole["panels"])
    rows = [{"stage": "policy", "step": 1, "policy/clip_fraction": 0.1}]
    (bare,) = curves.stage_curves({"": rows}, apart=watch.CURVES)
    assert "reward" not in bare["not_there"] and bare["apart"] == []


def watched(run, **parts):
    run = dataclasses.replace(run, **parts)
    drawn = curves.stage_curves({"": run.metrics}, apart=watch.CURVES)
    return watch.watch(run, drawn)


def test_watch_draws_each_point_with_the_tasks_word_list(whole_run):
    found = watched(reading.read_run(whole_run))
    assert found["warnings"] == [] and len(found["panels"]) == 6
    assert "Held-out judge: lexicon" in found["panels"][4]
    assert "Distinct-2" in found["panels"][5]
    assert [row[0] for row in found["table"]["rows"]][:2] == ["0", "1"]
    assert found["table"]["rows"][0][2][1]["kind"] == "estimate"
    assert found["table"]["plots"] == [] and "Not recorded" not in str(found["notes"])


def test_watch_says_warnings_in_words_once(whole_run):
    run = reading.read_run(whole_run)
    rows = [
        {"stage": "policy", "step": step, "rollout/entropy": 3.0 if step < 5 else 0.3}
        for step in range(1, 10)
    ]
    found = watched(run, metrics=rows)
    ((step, what, detail),) = found["warnings"]
    assert (what, step) == ("Entropy collapses", 6)
    assert detail.startswith("entropy went from 3 to ")
    assert not [note for note in found["table"]["notes"] if "collapse" in note]
    assert "Not recorded, so not watched: reward, KL, length." in found["notes"]


def test_watch_has_words_for_every_kind_of_warning(whole_run):
    run = reading.read_run(whole_run)
    good = "What a lovely, happy and wonderful day, my dear and kind friend!"
    replies = {0: good, 1: good, 2: " ".join(["hate"] * 12), 3: " ".join(["hate"] * 12)}
    samples = {
        step: [{"prompt_id": f"{i}", "prompt": f"{i}", "reply": r} for i in range(4)]
        for step, r in replies.items()
    }
    rows = [
        {
            "stage": "policy",
            "step": step,
            "rollout/reward_mean": 1.0 * step,
            "rollout/entropy": 3.0 / (1 + 3 * step),
            "rollout/response_length_mean": 20.0 * (1 + step),
        }
        for step in range(4)
    ]
    found = watched(run, metrics=rows, policy_samples=samples)
    assert {what for _, what, _ in found["warnings"]} == set(watch.KINDS.values())


def test_watch_says_why_there_is_no_held_out_judge(whole_run):
    run = reading.read_run(whole_run)
    for config, reason in (
        ({"task": "harmless"}, "the task harmless has no judge without a model"),
        ({"task": "moved.toml"}, "no task file at 'moved.toml'"),
        (estimates.Missing("config.json is not there"), "config.json is not there"),
    ):
        found = watched(run, config=config)
        assert len(found["panels"]) == 5  # all but the judge
        assert found["notes"][0].startswith(f"Held-out judge: missing: {reason}")


def test_watch_is_nothing_without_ppo(whole_run):
    run = reading.read_run(whole_run)
    none = estimates.Missing("x is not there")
    rows = [row for row in metric_rows(0) if row["stage"] == "preference"]
    assert watched(run, metrics=rows, policy_samples=none) is None
    assert watched(run, metrics=none, policy_samples=none) is None
    assert watched(run, metrics=none)["panels"]  # of the samples alone


def test_watch_of_two_runs_has_their_lines_together(whole_run):
    run = reading.read_run(whole_run)
    none = estimates.Missing("x is not there")
    collapsed = dataclasses.replace(
        run,
        config={"task": "harmless"},
        metrics=[
            {"stage": "policy", "step": n, "rollout/entropy": 3.0 if n < 5 else 0.3}
            for n in range(1, 10)
        ],
    )
    found = watch.compared({"A": run, "B": collapsed})
    ((label, step, what, _),) = found["warnings"]
    assert (label, step, what) == ("B", 6, "Entropy collapses")
    judge, distinct = found["panels"]
    assert ">A</text>" in judge and ">B</text>" not in judge
    assert ">A</text>" in distinct and ">B</text>" in distinct
    notes = {note.partition(":")[0]: label for label, note in found["notes"]}
    assert notes["A warning"] == "" and notes["Not recorded, so not watched"] == "B"
    bare = dataclasses.replace(run, metrics=none, policy_samples=none)
    (alone,) = {label for label, _ in watch.compared({"A": bare, "B": run})["notes"]}
    assert alone == "B"
    assert watch.compared({"A": bare, "B": bare}) is None


def test_read_study_names_what_it_cannot_read(tmp_path):
    def reasons():
        study = reading.read_study(tmp_path / "s")
        return [p.reason if reading.is_missing(p) else "" for p in study.tables]

    assert reasons() == [f"the folder {tmp_path / 's'} is not there"]
    (tmp_path / "s").mkdir()
    assert "experiments.human read --workdir" in reasons()[0]
    good = {"caption": "c", "columns": [{"name": "x"}], "rows": []}
    record_files.write_json(tmp_path / "s/results/table.json", good)
    assert reasons() == ["", "results/annotators.json is not there"]
    record_files.write_json(tmp_path / "s/results/annotators.json", good)
    assert reasons() == ["", ""]
    (tmp_path / "s/results/judges.json").write_text("{")
    assert reasons()[2].startswith("results/judges.json cannot be read")
    broken = good | {"rows": [{"name": "without cells"}]}
    (tmp_path / "s/results/judges.json").write_text(json.dumps(broken))
    assert "rows 1: no field 'cells'" in reasons()[2]


def test_tables_align_blanks_and_p_values_with_numbers():
    columns = [{"name": "p"}, {"name": "Judge"}]
    rows = [
        {"name": "a", "cells": {"p": "0.021", "Judge": "lexicon"}},
        {"name": "b", "cells": {"p": "-", "Judge": "-"}},
    ]
    table = {"caption": "c", "row_header": "r", "columns": columns, "rows": rows}
    (shown,) = tabulate.tables({"": [table]})
    assert shown["aligned"] == [True, False]


def test_tables_keep_two_judges_of_one_comparison_apart():
    estimate = {
        "value": 0.6,
        "low": 0.5,
        "high": 0.7,
        "level": 0.95,
        "num": 9,
        "p_value": 0.021,
    }
    columns = [{"name": "Judge"}, {"name": "Win rate, %", "digits": 1, "percent": True}]
    rows = [
        {"name": "b over a", "cells": {"Judge": j, "Win rate, %": estimate}}
        for j in ("x", "y")
    ]
    table = {"caption": "c", "row_header": "r", "columns": columns, "rows": rows}
    (shown,) = tabulate.tables({"": [table]})
    assert [row[2][0]["text"] for row in shown["rows"]] == ["x", "y"]
    cell = shown["rows"][0][2][1]
    assert (cell["text"], cell["interval"], cell["below"]) == (
        "60.0",
        "[50.0, 70.0]",
        "p = 0.021",
    )
    assert shown["notes"] == ["Brackets: 95 % intervals.", "n = 9 in every cell."]
    assert "b over a · x" in shown["plots"][0] and "b over a · y" in shown["plots"][0]


def test_pairs_shows_the_surest_the_least_sure_and_random_ones(whole_run):
    run = reading.read_run(whole_run)
    shown = browsers.pairs(run)
    most, few = browsers.MOST_CERTAIN, browsers.SHOWN_PAIRS
    names = [f"most certain {most}", f"least certain {most}", f"random {few}"]
    assert [view["name"] for view in shown["views"]] == names
    assert [len(view["rows"]) for view in shown["views"]] == [most, most, few]
    assert shown["note"].startswith(f"Of 90 pairs: {', '.join(names)}.")
    margins = {
        one.id: abs(one.reward_2 - one.reward_1) for one in run.held_out["preference"]
    }
    ordered = sorted(margins, key=margins.get)
    surest, unsure, _ = ([r["title"] for r in v["rows"]] for v in shown["views"])
    assert surest == ordered[: -most - 1 : -1] and unsure == ordered[:most]
    first = shown["views"][0]["rows"][0]
    assert f"margin {margins[ordered[-1]]:.3g}" in first["facts"]
    assert all(cell["facts"][0].startswith("reward ") for cell in first["cells"])
    tags = {
        tuple(cell["tag"] for cell in r["cells"]) for r in shown["views"][2]["rows"]
    }
    assert tags == {("better", ""), ("", "better")}


def test_pairs_without_held_out_rewards_go_by_soft_labels(whole_run):
    run = reading.read_run(whole_run)
    none = {"preference": estimates.Missing("it is not there")}
    hard = browsers.pairs(dataclasses.replace(run, held_out=none))
    assert [view["name"] for view in hard["views"]] == ["random 40"]
    labels = (0.5, 0.9, 0.2, 0.55)
    soft = [make_pair(n, prob_2=p, labels="scoring") for n, p in enumerate(labels)]
    shown = browsers.pairs(dataclasses.replace(run, held_out=none, pairs=soft))
    surest, unsure = ([row["title"] for row in v["rows"]] for v in shown["views"][:2])
    assert surest == [soft[1].id, soft[2].id] and unsure == [soft[0].id, soft[3].id]


def test_a_browser_stays_small_and_says_what_it_leaves_out(whole_run):
    run = reading.read_run(whole_run)
    long = [make_pair(n, reply_1="word " * 2000) for n in range(90)]
    shown = browsers.pairs(dataclasses.replace(run, pairs=long))
    assert len(json.dumps(shown)) < 1.2 * browsers.BUDGET
    assert "were left out, so that the page stays small" in shown["note"]
    texts = [c["text"] for v in shown["views"] for r in v["rows"] for c in r["cells"]]
    assert max(map(len, texts)) < browsers.MOST_LETTERS + 40
    assert any(text.endswith("(7000 letters more)") for text in texts)


def test_samples_puts_all_systems_of_a_prompt_into_one_row(whole_run):
    shown = browsers.samples({"": reading.read_run(whole_run)})
    rows = shown["views"][0]["rows"]
    assert len(rows) == 12
    assert [cell["head"] for cell in rows[0]["cells"]] == ["base", "distill", "rlcd"]
    assert "lexicon: rlcd > base" in rows[0]["facts"]


def test_tables_of_two_runs_are_joined_row_by_row():
    columns = [{"name": "score", "digits": 2}]

    def table(caption, **scores):
        rows = [{"name": name, "cells": {"score": s}} for name, s in scores.items()]
        notes = ["Ties count half.", f"{caption} is made up."]
        return {"caption": caption, "columns": columns, "rows": rows, "notes": notes}

    runs = {
        "A": [table("x, rlcd", base=0.1, rlcd=0.5)],
        "B": [table("x, rlaif", base=0.2, rlaif=0.4)],
    }
    (shown,) = tabulate.tables(runs)
    assert shown["caption"] == "A: x, rlcd — B: x, rlaif"
    assert shown["notes"] == [
        "Ties count half.",
        "A: x, rlcd is made up.",
        "B: x, rlaif is made up.",
    ]
    rows = [(name, run, cells[0]["text"]) for name, run, cells in shown["rows"]]
    assert rows == [
        ("base", "A", "0.10"),
        ("base", "B", "0.20"),
        ("rlcd", "A", "0.50"),
        ("rlaif", "B", "0.40"),
    ]


def test_plots_name_the_judge_only_where_rows_share_a_name():
    estimate = {"value": 0.6, "low": 0.5, "high": 0.7, "level": 0.95, "num": 9}
    columns = [{"name": "Judge"}, {"name": "Wins over base, %", "percent": True}]
    rows = [
        {"name": n, "cells": {"Judge": "x", "Wins over base, %": estimate}}
        for n in "ab"
    ]
    table = {"caption": "c", "columns": columns, "rows": rows}
    (shown,) = tabulate.tables({"": [table]})
    assert "· x" not in shown["plots"][0]


def test_pairs_left_out_by_their_scores_are_counted_with_the_dropped(whole_run):
    run = reading.read_run(whole_run)
    assert sections.drops(run)["filtered"] == ""
    simulate = run.stage("simulate")
    summary = simulate.summary | {"filtered": {"unsure": 3}}
    mended = dataclasses.replace(simulate, summary=summary)
    run = dataclasses.replace(run, stages=(mended, *run.stages[1:]))
    assert sections.drops(run)["filtered"] == "unsure: 3"


def test_plots_of_nothing_are_nothing():
    assert plots.intervals("x", []) is None
    assert plots.curve("x", []) is None
    assert plots.sheet("x", [panels.Panel("y"), panels.Panel("z", lines=[])]) is None


def test_sheet_gives_a_label_one_colour_and_names_it_once():
    names = ("one", "two", "three")
    lines = [panels.Line(name, [1, 2], [k, k + 1]) for k, name in enumerate(names)]
    dots = [panels.Dot(name, 5, 4, 6) for name in (*names[::-1], "four")]
    parts = [
        panels.Panel("A", lines=lines, unit="nats"),
        panels.Panel("nothing"),
        panels.Panel("B", lines=lines[:2]),
        panels.Panel("C", dots=dots, reference=5),
    ]
    text = str(plots.sheet("Whole <sheet>", parts))
    ElementTree.fromstring(text)
    assert "nothing" not in text and "Whole &lt;sheet&gt;" in text
    shown = re.findall(r">(one|two|three|four)</text>", text)
    assert collections.Counter(shown) == {"one": 2, "two": 2, "three": 2, "four": 1}
    drawn = collections.Counter(re.findall('class="k([0-9])"', text))
    assert all(drawn[str(colour)] for colour in range(4)) and not drawn["4"]
    assert all(colour in text for colour in panels.COLOURS[:4])


def test_common_notes_are_taken_out_of_their_tables():
    shown = [
        {"notes": ["a", "b"]},
        estimates.Missing("no table"),
        {"notes": ["c", "b"]},
        {"notes": ["b"]},
    ]
    assert tabulate.take_common_notes(shown) == ["b"]
    assert [t["notes"] for t in shown if isinstance(t, dict)] == [["a"], ["c"], []]
    assert tabulate.take_common_notes([{"notes": ["b"]}]) == []


def test_plan_has_the_tables_that_plans_are_printed_with(tmp_path):
    config = runs.tiny_config()
    made = planned.make_plan(config, chips.parse_topology("h100:1"), ("preference",))
    data = json.loads(plan_tables.render(plan_tables.Report(made), "json"))
    run = make_run(tmp_path / "run")
    (run / "plan.json").write_text(json.dumps(data))
    shown = sections.plan(reading.read_run(run).plan)
    (grid,) = shown["tables"]  # nothing was compiled
    headings, rows = plan_tables.programs_grid(plan_tables.Report(made))
    assert grid == (headings, rows)
    assert any(line.startswith("preference: fits") for line in shown["verdicts"])
    page = report.write_report(run).read_text()
    assert '<section id="plan">' in page and "preference update" in page


@pytest.mark.parametrize(
    "part", [{}, {"shown": None}, {"shown": {"table": 3}}, {"shown": {"table": {}}}]
)
def test_plan_without_tables_is_missing_and_says_so(part, tmp_path):
    assert "plan.json holds no table" in sections.plan(part).reason
    run = make_run(tmp_path / "run")
    (run / "plan.json").write_text(json.dumps(part))
    assert "Missing: plan.json holds no table" in report.write_report(run).read_text()
