"""Graded replies from a scale to the table of a run, and what beside it ranks."""

import json

import numpy as np
import pytest
import runs
from test_strength import PLAIN

from rlcd_jax import leaving, metrics, record_files, records, replaying
from rlcd_jax.checks import refusals, rules
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.planning import chips, plan, programs, sizes

FIELDS = {"policy__steps": 1, "keep_moments": True}


@pytest.fixture(scope="module")
def graded_run(tmp_path_factory):
    """Return the workdir of a whole run of graded replies, checks and report too."""
    workdir = tmp_path_factory.mktemp("graded") / "run"
    config = runs.tiny_config("graded", **FIELDS)
    with runs.devices_by_mesh():
        runs.run_checked(config, workdir, config.stages)
    return workdir


def summary(workdir, folder):
    return json.loads((workdir / folder / "summary.json").read_text())


def test_a_run_goes_from_a_scale_to_a_row_of_the_table(graded_run):
    pairs = record_files.read_jsonl(graded_run / "pairs/pairs.jsonl", records.Pair)
    assert len(pairs) == 8 * 6 and {p.sampling for p in pairs} == {"graded"}
    assert {p.grade_1 for p in pairs} <= {2.0, 1.0, -1.0, -2.0}
    drawn = summary(graded_run, "pairs")
    assert drawn["prompts_with_pairs"] == 8 and not drawn["prompts_with_fewer_replies"]
    told = summary(graded_run, "preference")
    assert (told["train_rankings"], told["train_pairs"]) == (6, 36)
    assert told["held_out_pairs"] == 12
    assert told["too_long"]["training replies"]["of"] == 24
    assert told["held_out_rates"]["num"] == 12
    diagram = told["held_out_calibration"]
    assert sum(one["num"] for one in diagram["bins"]) == diagram["num"] == 12
    rows = metrics.read_metrics(graded_run, "preference")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["preference/replies"] == 4 and row["preference/loss"] > 0
        assert row["preference/decided_rate"] == 1
        assert 0 <= row["preference/best_rate"] <= 1
        assert 0 <= row["preference/held_out_calibration_error"] <= 1
    assert "| graded" in (graded_run / "evaluate/table.md").read_text()
    assert "grade -2" in (graded_run / "report.html").read_text()


def test_one_pair_of_a_draw_can_be_drawn_again_alone(graded_run):
    pairs = record_files.read_jsonl(graded_run / "pairs/pairs.jsonl", records.Pair)
    with runs.devices_by_mesh():
        again = replaying.replay_pair(graded_run, pairs[-2].id)
    assert pairs[-2].id.endswith("/graded-construction/2-4") and again.is_same


def test_what_graded_pairs_are_like_is_diagnosed(graded_run):
    run_diagnostics.diagnose(
        graded_run,
        scored=None,
        with_likelihoods=False,
        with_lexicon=False,
        resamples=50,
        seed=0,
    )
    rows = (graded_run / "diagnostics/pairs.md").read_text()
    assert "graded-construction" in rows and "graded, negative" in rows
    readings = graded_run / "diagnostics/readings.jsonl"
    assert len(record_files.read_jsonl(readings)) == 48


def test_resumed_equals_uninterrupted(graded_run, tmp_path, monkeypatch):
    workdir = runs.copy_run(graded_run, tmp_path / "run", "pairs")
    config = runs.tiny_config("graded", **FIELDS)
    left = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: next(left))
        with pytest.raises(leaving.Left):
            runs.run(config, workdir, "preference")
    runs.run(config, workdir, "preference")
    ours, theirs = (runs.metric_rows(w, "preference") for w in (workdir, graded_run))
    assert ours == theirs
    one, two = (
        runs.saved_arrays(w / "preference/checkpoints", 3)
        for w in (workdir, graded_run)
    )
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_several_replies_to_one_prompt_are_scored_and_may_be_ties(tmp_path):
    own = {"pairs__samples": 3, "preference__loss": "ties", "preference__tie_band": 0.2}
    config = runs.tiny_config("rlaif", preference__held_out=3, **own)
    told = runs.run(config, tmp_path / "run", "simulate", "preference")
    assert told["simulate"]["pairs"] == 8 * 3
    assert told["preference"]["train_pairs"] == 21
    row = metrics.read_metrics(tmp_path / "run", "preference")[0]
    pairs = record_files.read_jsonl(tmp_path / "run/pairs/pairs.jsonl", records.Pair)
    tied = [abs(pair.prob_2 - 0.5) <= 0.2 for pair in pairs]
    assert any(tied) and 0 <= row["preference/decided_rate"] < 1
    assert 0 <= row["preference/predicted_tie_rate"] <= 1


# --- what is known before a run ---------------------------------------------------------


def test_a_plan_counts_all_replies_and_texts_of_rankings():
    config = runs.tiny_config("graded", pairs__samples_per_prompt=2)
    setting = plan.make_setting(config, chips.parse_topology("cpu:1"))
    assert (setting.draws, setting.pairs, setting.preference_pairs) == (16, 96, 96)
    # 96 pairs without 12 are 14 rankings: of batches of 4, in 2 epochs, 7.
    assert programs.num_updates(setting, "preference") == 7
    batch = sizes.update_batch(setting.job, "preference")
    assert batch["ends"].shape == batch["are_replies"].shape == (4, 4)
    ranked = programs.train(setting, "preference")[-1]
    with config.unlocked():
        config.preference.loss = "bradley_terry"
    single = plan.make_setting(config, chips.parse_topology("cpu:1"))
    assert programs.num_updates(single, "preference") == 42
    paired = programs.train(single, "preference")[-1]
    # Each reply is read once, and in pairs by three others too.
    assert paired.flops == pytest.approx(42 * 2 / (7 * 4) * ranked.flops)


@pytest.mark.parametrize(
    ("name", "own", "told"),
    [
        ("graded", {"pairs__samples": 2}, "ranks more than two replies"),
        ("graded", {"preference__data": "trl:x"}, "ranks more than two replies"),
        (
            "graded",
            {"preference__human_share": 0.2, "prompts__hh_dir": "x"},
            "takes pairs out of the draws",
        ),
        ("rlcd", {"preference__loss": "ties"}, "learns from labels near 1/2"),
        (
            "rlaif",
            {"preference__loss": "ties", "pairs__hard_labels": True},
            "hard_labels=True all are 0 or 1",
        ),
    ],
)
def test_labels_that_a_loss_is_not_for_are_refused(name, own, told):
    config = runs.tiny_config(name, **own)
    problems = rules.problems(config, config.stages)
    assert len(problems) == 1 and told in problems[0]


@pytest.mark.parametrize(
    ("task", "own", "told"),
    [
        (PLAIN, {}, "task 'world' has none"),
        ("cheerful", {"pairs__samples": 6}, "set pairs.samples to 5 or less"),
        ("cheerful", {"pairs__sampling": "contrast"}, "a contrast has two prompts"),
        (
            "cheerful",
            {"preference__batch_size": 7},
            "preference: 6 training rows are fewer than one batch of "
            "preference.batch_size=7: at most 48 pairs can come, and "
            "preference.held_out=12 takes 12 of them; set preference.held_out to 6",
        ),
    ],
)
def test_what_cannot_be_drawn_or_trained_is_told_before_a_run(task, own, told):
    config = runs.tiny_config("graded", task=task, **own)
    with runs.devices_by_mesh():
        problems = refusals.verdict(config)
    assert any(told in line for line in problems), problems
