"""A run's own files, damaged: each reader says which file, and none ends in a trace."""

import json

import pytest
import runs

from experiments import command
from rlcd_jax import done_mark, report
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.job import workspace
from rlcd_jax.ppo import choosing
from rlcd_jax.report import run_preset

DAMAGED = {
    "list": "[]",
    "null": "null",
    "text": '"a"',
    "empty": "",
    "page": "<html>",
    "half": '{"model": {"spec": "ran',
    "deep": '{"policy": ' + "[" * 5000 + "]" * 5000 + "}",
    "twice": '{"policy": {}, "policy": {}}',
}
# Objects, and no config of a run.
STRANGE = {"nothing": "{}", "numbers": '{"policy": 1, "model": 2, "task": 3}'}


@pytest.fixture(params=DAMAGED)
def stage(request, tmp_path):
    """A stage's folder whose config.json is damaged, in a run that is as well."""
    return write(tmp_path, DAMAGED[request.param])


def write(run, content):
    for folder in (run, run / "policy", run / "pairs"):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.json").write_text(content)
    (run / "evaluate").mkdir()
    return run / "policy"


READERS = {
    "evaluation": lambda stage: choosing.find_policy(stage),
    "resume": lambda stage: workspace.finished(
        runs.tiny_config(), stage.parent, "policy"
    ),
    "diagnosis": lambda stage: run_diagnostics.read_config(stage.parent),
}


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_of_a_damaged_config_names_the_file(stage, reader):
    with pytest.raises(ValueError, match="config.json"):
        READERS[reader](stage)


@pytest.mark.parametrize("reader", ["diagnosis"])
@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_an_object_that_is_no_config_is_refused(tmp_path, content, reader):
    stage = write(tmp_path, content)
    with pytest.raises(ValueError, match="config.json"):
        READERS[reader](stage)


def test_a_policy_section_that_is_none_is_refused(tmp_path):
    stage = write(tmp_path, STRANGE["numbers"])
    with pytest.raises(ValueError, match="its 'policy' is no object"):
        choosing.find_policy(stage)


def test_the_report_shows_what_cannot_be_read(stage):
    page = report.write_report(stage.parent).read_text()
    assert "config.json cannot be read" in page
    assert run_preset.find(stage.parent, command.method_config) is None


@pytest.mark.parametrize("content", [*DAMAGED.values(), *STRANGE.values()])
def test_a_damaged_mark_is_named(tmp_path, content):
    (tmp_path / done_mark.DONE).write_text(content)
    with pytest.raises(ValueError, match="DONE"):
        done_mark.check_done(tmp_path, {})
    with pytest.raises(ValueError, match="DONE"):
        done_mark.read_summary(tmp_path)


def test_stages_that_are_no_list_do_not_break_the_report(tmp_path):
    (tmp_path / "config.json").write_text('{"stages": 3, "name": ["x"]}')
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "DONE").write_text('{"summary": [1]}')
    assert report.write_report(tmp_path).exists()


def table(**changes):
    fields = {"caption": "c", "columns": [{"name": "k"}], "rows": []}
    return json.dumps(fields | changes)


ODD = {
    "table of cells that are a list": (
        "evaluate/table.json",
        table(rows=[{"name": "a", "cells": [1]}]),
    ),
    "table of columns that are a text": ("evaluate/table.json", table(columns="k")),
    "step that is a text": ("metrics.jsonl", '{"stage": "policy", "step": "x"}\n'),
    "stage that is a list": ("metrics.jsonl", '{"stage": ["policy"], "step": 1}\n'),
    "time that is a text": (
        "metrics.jsonl",
        '{"stage": "policy", "step": 1, "time/seconds": "long"}\n',
    ),
    "drops that are a number": (
        "pairs/summary.json",
        '{"dropped_by_side": {"positive": 3}}',
    ),
    "cells that are a number": ("pairs/summary.json", '{"cells": {"a": 1}}'),
    "accuracy that is a word": (
        "preference/summary.json",
        '{"held_out_accuracy": "high"}',
    ),
    "accuracy without a value": (
        "preference/summary.json",
        '{"held_out_accuracy": {"value": null, "low": 1, "high": 2}}',
    ),
    "samples that are numbers": (
        "evaluate/samples.jsonl",
        '{"prompt_id": 1, "prompt": 2, "system": 3, "reply": 4}\n',
    ),
    "samples of a step": (
        "policy/samples/000001.jsonl",
        '{"prompt_id": "a", "prompt": "b", "reply": {}}\n',
    ),
    "score that is a list": (
        "policy/samples/000001.jsonl",
        '{"prompt_id": "a", "prompt": "b", "reply": "c", "score": [1]}\n',
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_the_report_names_the_part_that_is_odd_and_shows_the_rest(name, tmp_path):
    place, content = ODD[name]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(content)
    (tmp_path / "config.json").write_text('{"name": "rlcd", "task": "cheerful"}')
    page = report.write_report(tmp_path).read_text()
    assert "cannot be read" in page and "rlcd · cheerful" in page
