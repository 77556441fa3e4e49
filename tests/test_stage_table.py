"""A stage is declared once: a row of the table is all that launcher and readers need."""

import dataclasses
import importlib
import sys
import types

import pytest
import runs

from rlcd_jax import pipeline, stages, trackers
from rlcd_jax.job import workspace
from rlcd_jax.paper import graph
from rlcd_jax.planning import chips, plan
from rlcd_jax.report import reading

COUNTING = stages.Stage(
    "counting", "count_pairs", "counted", "evaluate", ("simulate",), "a count of pairs"
)


def count_pairs(config, workdir):
    """Count the lines that the stage before has left."""
    if workspace.finished(config, workdir, "counting"):
        return workspace.summary(workdir, "counting")
    workspace.begin(config, workdir, "counting")
    pairs = workspace.stage_folder(workdir, "simulate") / "pairs.jsonl"
    summary = {"pairs": len(pairs.read_text().splitlines())}
    return workspace.finish(config, workdir, "counting", summary)


@pytest.fixture
def with_counting(monkeypatch):
    """Add one row to the table, and the file that it names."""
    module = types.ModuleType("rlcd_jax.stages.count_pairs")
    module.count_pairs = count_pairs
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(stages.STAGES, COUNTING.name, COUNTING)


def test_a_new_stage_is_one_row(with_counting, finished_run, tmp_path):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config()
    for _ in range(2):  # the second time it is skipped
        with runs.devices_by_mesh():
            pipeline.run_stages(
                config, str(workdir), ("counting",), cache_dir="", preset=None
            )
    counted = workspace.summary(workdir, "counting")["pairs"]
    assert counted == workspace.summary(workdir, "simulate")["pairs"] > 0
    assert (workdir / "counted" / "DONE").exists()
    stage = reading.read_run(workdir).stage("counting")
    assert (stage.state, stage.makes) == ("finished", "a count of pairs")
    assert "a count of pairs" in (workdir / trackers.REPORT).read_text()
    part = workspace.stage_config(config, "counting")
    assert set(part) == {*stages.SHARED, "pairs", "evaluate"}
    node = graph.make_node("counting", "x", config, cost=graph.Cost())
    assert node.stage == "counting"


def test_another_config_of_what_a_new_stage_depends_on_is_refused(
    with_counting, finished_run, tmp_path
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    run = {"cache_dir": "", "preset": None}
    with runs.devices_by_mesh():
        pipeline.run_stages(runs.tiny_config(), str(workdir), ("counting",), **run)
        other = runs.tiny_config(evaluate__resamples=7)
        with pytest.raises(ValueError, match="evaluate.resamples: was 200, now 7"):
            pipeline.run_stages(other, str(workdir), ("counting",), **run)


def test_a_new_stage_that_trains_is_planned_by_its_file(monkeypatch):
    """It has a row and a section of the config; the planner asks its file."""
    row = dataclasses.replace(stages.STAGES["preference"], name="twin", section="twin")
    monkeypatch.setitem(stages.STAGES, row.name, row)
    config = runs.tiny_config()
    with config.unlocked():
        config.twin = config.preference
    made = plan.make_plan(
        config, chips.parse_topology("h100:1"), ("preference", "twin")
    )
    first, second = made.stages
    # The reading of held-out pairs is the preference model's own.
    assert [one.name for one in second.programs] == ["start", "update"]
    for one, other in zip(first.programs, second.programs, strict=False):
        assert (one.held, one.flops) == (other.held, other.flops)


def test_a_new_stage_without_a_model_is_planned(with_counting):
    made = plan.make_plan(
        runs.tiny_config(), chips.parse_topology("h100:1"), ("counting",)
    )
    assert [one.held for one in made.stages[0].programs] == [0]
    assert made.works


def test_every_row_names_a_file_with_its_function():
    for stage in stages.STAGES.values():
        module = importlib.import_module(f"rlcd_jax.stages.{stage.module}")
        assert callable(getattr(module, stage.module))
        assert set(stage.reads) <= set(stages.STAGES)
    folders = [stage.folder for stage in stages.STAGES.values()]
    assert len(set(folders)) == len(folders)


def test_a_name_asks_for_one_stage_or_for_all_of_the_config():
    config = runs.tiny_config(stages=("simulate", "distill"))
    assert stages.named("policy", config) == ("policy",)
    assert stages.named(stages.ALL, config) == ("simulate", "distill")
    assert stages.ALL not in stages.STAGES


def test_rows_say_which_stages_train_and_which_write_replies():
    table = stages.STAGES.values()
    supervised = [stage for stage in table if stage.supervised]
    assert [stage.name for stage in supervised] == [
        "preference",
        "distill",
        "direct",
    ]
    config = runs.tiny_config()
    for stage in table:
        section = config[stage.section]
        assert not stage.batch or section[stage.batch] > 0
        assert stage.draws == ("reply_tokens" in section)
        assert ("learning_rate" in section) == bool(stage.batch)
