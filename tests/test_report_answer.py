"""Tests of what a report says first, of its histograms, and of runs by seed."""

import dataclasses
import json
import re

import pytest
from made_run import make_pair, make_run, rewards_of

from rlcd_jax import diagnosis, record_files, records
from rlcd_jax.report import (
    answer,
    comparing,
    curves,
    histograms,
    panels,
    plots,
    reading,
)
from rlcd_jax.statistics import estimates


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return reading.read_run(make_run(tmp_path_factory.mktemp("runs") / "rlcd"))


def without(run, *names, state="planned", **parts):
    """Return a run some of whose stages have left nothing."""
    gone = {
        name: dataclasses.replace(
            run.stage(name), state=state, summary=estimates.Missing("it is not there")
        )
        for name in names
    }
    stages = tuple(gone.get(stage.name, stage) for stage in run.stages)
    return dataclasses.replace(run, stages=stages, **parts)


def with_wins(run, low, value, high):
    (table,) = json.loads(json.dumps(run.tables))
    cell = {"low": low, "value": value, "high": high, "num": 48}
    table["rows"][-1]["cells"]["lexicon win rate"] = cell
    return dataclasses.replace(run, tables=[table])


def figures(run):
    return {one.what: (one.figure, one.note) for one in answer.answer(run).findings}


NO_TABLE = estimates.Missing("evaluate/table.json is not there")


@pytest.mark.parametrize(
    ("interval", "verdict", "words"),
    [
        ((0.6, 0.7, 0.8), answer.YES, "Yes: rlcd is better"),
        ((0.2, 0.3, 0.4), answer.NO, "No: rlcd is worse"),
        ((0.4, 0.55, 0.7), answer.OPEN, "includes 50 %"),
        ((0.5, 0.6, 0.7), answer.OPEN, "Not shown that rlcd"),
        ((0.5, 0.5, 0.5), answer.OPEN, "on no prompt is it preferred"),
    ],
)
def test_the_interval_of_the_win_rate_is_the_verdict(whole, interval, verdict, words):
    said = answer.answer(with_wins(whole, *interval))
    assert said.verdict == verdict and words in said.line
    assert f"{100 * interval[1]:.1f} %" == said.findings[0].figure


def test_a_whole_run_has_every_figure_with_what_it_rests_on(whole):
    assert figures(whole) == {
        "Win rate over base, by lexicon": ("79.0 %", "n = 48 prompts"),
        "KL from base, nats a reply": ("6.60", "n = 48 prompts"),
        "Preference accuracy": ("80.0 %", "n = 80 held-out pairs"),
        "Reward of the policy": ("1.31", "from 0.05; steps 1 to 40, rollouts"),
    }
    assert answer.answer(whole).cautions == ()


def test_a_run_that_was_stopped_says_where(whole):
    run = without(whole, "evaluate", tables=NO_TABLE)
    run = without(run, "policy", state="begun")
    said = answer.answer(run)
    assert said.verdict == answer.UNKNOWN
    assert said.line == "Not measured yet: the stage evaluate has not begun."
    assert said.cautions == ("Not finished: policy: step 40 of 40.",)
    figure, note = figures(run)["KL from base, nats a reply"]
    assert figure and note == "rollouts of step 40; not evaluated"


def test_a_run_of_one_stage_has_no_other_figures(whole):
    names = ("preference", "distill", "direct", "policy", "evaluate")
    run = without(whole, *names, state="not part of this run")
    run = dataclasses.replace(run, tables=NO_TABLE, metrics=[])
    said = answer.answer(run)
    assert said.line == "Not measured yet: this run has no stage evaluate."
    assert not any(one.figure for one in said.findings)
    notes = {one.what: one.note for one in said.findings}
    assert notes["Preference accuracy"] == "this run trains no preference model"


def test_a_direct_run_is_right_by_its_own_rewards(whole):
    accuracy = dataclasses.asdict(estimates.proportion_interval(30, 40))
    run = without(whole, "preference", "policy", state="not part of this run")
    direct = dataclasses.replace(
        run.stage("direct"), state="finished", summary={"held_out_accuracy": accuracy}
    )
    stages = tuple(direct if s.name == "direct" else s for s in run.stages)
    run = dataclasses.replace(run, stages=stages, metrics=[])
    (found,) = (f for f in answer.answer(run).findings if "rewards" in f.what)
    assert (found.figure, found.note) == ("75.0 %", "n = 40 held-out pairs")


def test_a_run_that_diverged_is_cautioned_of(whole):
    policy = dataclasses.replace(
        whole.stage("policy"), summary={"skipped_updates": 12.0}
    )
    stages = tuple(policy if s.name == "policy" else s for s in whole.stages)
    (caution,) = answer.answer(dataclasses.replace(whole, stages=stages)).cautions
    assert "12 updates were skipped" in caution and "diverged" in caution
    rows = [
        {"stage": "policy", "step": n, "optimizer/skipped": float(n > 1)}
        for n in range(4)
    ]
    run = without(whole, "policy", "evaluate", state="begun", metrics=rows)
    cautions = answer.answer(run).cautions
    assert cautions[0] == "Not finished: policy: step 3 of 40."
    assert cautions[1].startswith("policy: 2 updates were skipped")


def test_a_table_without_judges_is_no_answer(whole):
    (table,) = json.loads(json.dumps(whole.tables))
    for row in table["rows"]:
        del row["cells"]["lexicon win rate"]
    said = answer.answer(dataclasses.replace(whole, tables=[table]))
    assert said.verdict == answer.UNKNOWN and "no judge compared rlcd" in said.line


# --- spread, and the contrast of affixes --------------------------------------------


def counted(monkeypatch, run):
    drawn = {}
    monkeypatch.setattr(
        plots,
        "histogram",
        lambda title, kinds, **_: drawn.setdefault(
            title, {kind.label: list(kind.values) for kind in kinds}
        ),
    )
    return drawn, histograms.histograms(run)["notes"]


def test_histograms_are_by_the_side_of_the_prompt(monkeypatch, whole):
    drawn, notes = counted(monkeypatch, whole)
    assert not notes
    pairs = [make_pair(n) for n in range(80)]
    better = [max(zip(sides(p), rewards_of(p), strict=True))[1] for p in pairs]
    assert drawn["Reward by side"]["positive"] == better
    ((label, margins),) = drawn["Margin: better less other"].items()
    assert label == f"{sum(m > 0 for m in margins)} of 80 right"
    assert {len(v) for v in drawn["Length by side"].values()} == {90}
    assert list(drawn["Reward of the policy"]) == ["step 40", "step 0"]


def sides(pair):
    return pair.side_1, pair.side_2


def test_histograms_of_unknown_pairs_are_by_the_label(monkeypatch, whole):
    read = [
        records.HeldOutPair("x", 0.9, 1.0, 3.0),
        records.HeldOutPair("y", 0.5, 7, 8),
    ]
    run = dataclasses.replace(whole, held_out=whole.held_out | {"preference": read})
    drawn, _ = counted(monkeypatch, run)
    assert drawn["Reward by side"] == {
        "better": [3.0],
        "other": [1.0],
        "undecided": [7.0, 8.0],
    }
    assert drawn["Margin: better less other"] == {"1 of 1 right": [2.0]}


def test_what_is_not_there_for_a_histogram_is_named(monkeypatch, whole):
    gone = estimates.Missing("it is not there")
    run = dataclasses.replace(
        whole, held_out={"preference": gone}, pairs=gone, policy_samples=gone
    )
    drawn, notes = counted(monkeypatch, run)
    assert not drawn and len(notes) == 2


def test_a_diagnosis_is_read_or_its_command_is_said(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    command = f"python -m experiments.diagnose --workdir {run}"
    assert reading.read_run(run).contrast.reason.endswith(command)
    table = {"caption": "Affix pairs", "columns": [], "rows": []}
    path = run / diagnosis.FOLDER / f"{diagnosis.AFFIXES}.json"
    record_files.write_json(path, {"tables": [table]})
    assert reading.read_run(run).contrast == [table]


def test_a_panel_says_what_its_lines_go_over():
    line = panels.Line("", [0.1, 0.2, 0.4], [1.0, 2.0, 3.0])
    drawn = plots.sheet("x", [panels.Panel("y", [line], across="alpha")])
    assert ">alpha</text>" in drawn and ">0.2</text>" in drawn
    assert ">step</text>" in plots.curve("y", [line])


def test_a_plot_of_anything_is_drawn():
    odd = [1.0, float("nan"), float("inf"), -1e308, 1e308, 5e-324]
    lines = [panels.Line(f"l{n}", range(6), odd, "AB"[n % 2]) for n in range(4)]
    assert "nan" not in plots.curve("x", lines) and "inf" not in plots.curve("x", lines)
    assert plots.histogram("x", [panels.Counted("a", odd), panels.Counted("b", [])])
    assert plots.histogram("x", [panels.Counted("a", [float("nan")])]) is None
    for few in ([1.0, 1.0 + 2e-16], [0.0, 5e-324], [1e300, -1e300], [7.0]):
        assert plots.histogram("x", [panels.Counted("a", few)])
        assert plots.curve("x", [panels.Line("", range(len(few)), few)])
    assert plots.curve("x", [panels.Line("", [1, 10**400], [0.0, 1e308])])
    assert plots.curve("x", [panels.Line("", range(100), [1e308] * 100)])
    long = plots.curve("x", [panels.Line("", range(50_000), [0.5] * 50_000)])
    assert len(long) < 20_000


def test_each_value_is_a_dot_that_says_it_and_a_band_is_an_area():
    ends = {"low": [0.5, 1.5], "high": [1.5, 2.5]}
    lines = [panels.Line("a", [1, 2], [1.0, 2.0], **ends)]
    drawn = plots.curve("x", lines)
    assert re.findall("<title>(.*?)</title>", drawn) == ["step 1: 1", "step 2: 2"]
    assert re.findall('<circle .*?r="(.*?)"', drawn) == ["2.6", "2.6"]
    assert drawn.count("fill-opacity") + drawn.count(' opacity="0.16"') == 1
    dots = [panels.Dot(f"{n}$", n, n - 1, n + 1) for n in range(3)]
    drawn = plots.intervals("x", dots)
    assert re.findall('<circle .*?r="(.*?)"', drawn) == ["4.5"] * 3
    assert "<title>2$: 2 [1, 3]</title>" in drawn and ">2$</text>" in drawn


# --- runs by seed -------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_alone_are_one_group(whole):
    other = dataclasses.replace(whole, config=whole.config | {"seed": 43})
    method = dataclasses.replace(whole, config=whole.config | {"name": "rlaif"})
    bare = dataclasses.replace(whole, config=estimates.Missing("it is not there"))
    runs = comparing.labelled([whole, method, other, bare, bare])
    assert list(runs) == ["A1", "A2", "B", "C", "D"]
    assert runs["A2"] is other and runs["B"] is method
    assert panels.colour_of("A1") == panels.colour_of("A2") != panels.colour_of("B")
    with pytest.raises(ValueError, match="1 runs with 1 settings; accepted: two"):
        comparing.labelled([whole])


def test_a_group_has_the_mean_and_the_spread_of_its_runs(whole):
    one = with_wins(whole, 0.5, 0.6, 0.7)
    two = with_wins(whole, 0.6, 0.7, 0.8)
    two = dataclasses.replace(two, config=whole.config | {"seed": 43})
    said = comparing.answers(comparing.labelled([one, two]))
    assert [row[:2] for row in said["rows"]] == [
        ("A", "mean of 2 runs"),
        ("A1", "seed 42"),
        ("A2", "seed 43"),
    ]
    place = said["columns"].index("Win rate over base, by lexicon")
    together = said["rows"][0][2][place]
    assert (together.figure, together.interval) == ("65.00", "± 7.07")


def test_curves_of_a_group_are_its_mean_within_its_range(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "curve", lambda title, lines, **_: drawn.setdefault(title, lines)
    )

    def rows(*values):
        return [
            {"stage": "policy", "step": n, "rollout/entropy": v}
            for n, v in enumerate(values, start=1)
        ]

    runs = {"A1": rows(1.0, 2.0), "A2": rows(3.0, 6.0, 9.0), "B": rows(5.0)}
    curves.stage_curves(runs)
    group, alone = drawn["Entropy"]
    assert (group.run, list(group.values)) == ("A", [2.0, 4.0])
    assert (list(group.low), list(group.high)) == ([1.0, 2.0], [3.0, 6.0])
    assert (alone.run, alone.label, alone.low) == ("B", "B", ())
