"""Inputs are held by content: what was edited, removed or replaced is refused by name."""

import json
import pathlib
import shutil

import pytest
import runs

from rlcd_jax import dotted, record_files, stages, tasks
from rlcd_jax.checks import fields
from rlcd_jax.job import changes, contents, roles, workspace


def finished(workdir, stage, **own):
    return workspace.finished(runs.tiny_config(**own), workdir, stage)


@pytest.fixture
def copied(finished_run, tmp_path):
    """Return a copy of a whole run."""
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))


def drop_a_line(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))


def test_a_run_that_nobody_touched_is_done(copied):
    assert all(finished(copied, stage) for stage in runs.tiny_config().stages)
    mark = json.loads((copied / "policy" / "DONE").read_text())["contents"]
    assert mark["inputs"]["preference/checkpoints"].startswith("step 3 ")
    assert {"checkpoints", "samples/000002.jsonl"} <= set(mark["outputs"])


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("pairs/pairs.jsonl", "simulate"),
        ("pairs/pairs.jsonl", "preference"),
        ("pairs/pairs.jsonl", "distill"),
        ("policy/samples/000002.jsonl", "policy"),
        ("evaluate/samples.jsonl", "evaluate"),
        ("evaluate/verdicts.jsonl", "evaluate"),
    ],
)
def test_a_line_removed_after_the_stage_was_done_is_noticed(copied, file, stage):
    drop_a_line(copied / file)
    with pytest.raises(ValueError, match=f"{file} has changed"):
        finished(copied, stage)


def test_a_table_edited_by_hand_is_noticed(copied):
    path = copied / "evaluate" / "table.md"
    path.write_text(path.read_text().replace("rlcd", "ours"))
    with pytest.raises(ValueError, match="evaluate/table.md has changed"):
        finished(copied, "evaluate")


def test_a_result_that_is_gone_is_named(copied):
    (copied / "pairs" / "dropped.jsonl").unlink()
    with pytest.raises(ValueError, match="pairs/dropped.jsonl is not there any more"):
        finished(copied, "simulate")


def test_a_lost_checkpoint_does_not_make_the_one_before_the_result(copied):
    shutil.rmtree(copied / "policy" / "checkpoints" / "2")
    for stage in ("policy", "evaluate"):
        with pytest.raises(ValueError, match="policy/checkpoints has changed"):
            finished(copied, stage)


@pytest.mark.parametrize("stage", ["preference", "distill"])
def test_a_stage_does_not_begin_on_pairs_that_changed(copied, stage):
    shutil.rmtree(copied / stage)
    assert not finished(copied, stage)
    drop_a_line(copied / "pairs" / "pairs.jsonl")
    match = f"{stage} cannot begin.*\n.*pairs.jsonl has changed since simulate was done"
    with pytest.raises(ValueError, match=match):
        finished(copied, stage)


def own_task(folder):
    """Write the demonstration task with its prompts as files of a user's."""
    task = tasks.load_task("cheerful")
    inside = pathlib.Path(tasks.__file__).parent
    (folder / "tasks").mkdir()
    path = folder / "tasks" / "cheerful.toml"
    shutil.copy(inside / "cheerful.toml", path)
    prompts = path.parent / task.prompts.file
    prompts.parent.mkdir(exist_ok=True, parents=True)
    shutil.copy(inside / task.prompts.file, prompts)
    return path, prompts


@pytest.mark.parametrize("begun", ["begun", "done"])
@pytest.mark.parametrize("edited", ["task", "prompts"])
def test_an_edited_task_or_prompt_file_is_noticed(tmp_path, edited, begun):
    path, prompts = own_task(tmp_path)
    config = runs.tiny_config(task=str(path))
    workdir = tmp_path / "run"
    workspace.begin(config, workdir, "simulate")
    if begun == "done":
        workspace.finish(config, workdir, "simulate", {})
    assert workspace.finished(config, workdir, "simulate") == (begun == "done")
    file = {"task": path, "prompts": prompts}[edited]
    file.write_text(file.read_text().replace("e", "é", 1))
    name = {"task": f"the task {path}", "prompts": prompts.name}[edited]
    with pytest.raises(ValueError, match=f"{name} has changed"):
        workspace.finished(config, workdir, "simulate")


def hh_config(folder):
    return runs.tiny_config(
        task="harmless", prompts__source="hh_rlhf", prompts__hh_dir=str(folder)
    )


def test_another_folder_of_human_pairs_is_noticed_and_another_place_is_not(tmp_path):
    row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}
    for name, times in (("one", 1), ("same", 1), ("other", 2)):
        for split in ("train", "test"):
            path = tmp_path / name / "harmless-base" / f"{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            runs.write_hh(path, [row] * times)
    # A gzip file holds the time of its making.
    shutil.rmtree(tmp_path / "same")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    workdir = tmp_path / "run"
    workspace.begin(hh_config(tmp_path / "one"), workdir, "simulate")
    assert not workspace.finished(hh_config(tmp_path / "same"), workdir, "simulate")
    match = r"hh_dir, harmless-base/test.jsonl.gz has changed\n.*train.jsonl.gz has"
    with pytest.raises(ValueError, match=match):
        workspace.finished(hh_config(tmp_path / "other"), workdir, "simulate")


def test_other_weights_in_the_same_folder_are_noticed(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(1000))
    config = runs.tiny_config(model__spec=f"hf:{model}")
    workspace.begin(config, tmp_path / "run", "simulate")
    (model / "model.safetensors").write_bytes(bytes(999) + b"1")
    with pytest.raises(ValueError, match=f"model.spec=hf:{model} has changed"):
        workspace.finished(config, tmp_path / "run", "simulate")


def test_every_field_is_part_of_a_result_or_may_change():
    named = {f"model__{role}": "random:tiny" for role in roles.ROLES}
    config = runs.tiny_config(lora__rank=2, lora__base="int8", **named)
    held = {
        name
        for stage in stages.STAGES
        for name in dotted.flatten(workspace.stage_config(config, stage))
    }
    for name in dotted.flatten(config.to_dict()):
        assert (name in held) != bool(changes.follows(name)), name
    for name in changes.FOLLOWS:
        section = f"{name}."
        assert any(f == name or f.startswith(section) for f in fields.FIELDS), name


def test_fields_of_adapters_bind_nothing_where_none_are_trained():
    one, other = (runs.tiny_config(lora__alpha=alpha) for alpha in (8.0, 16.0))
    for stage in stages.STAGES:
        part = workspace.stage_config(one, stage)
        assert "lora" not in part and part == workspace.stage_config(other, stage)
    parts = workspace.stage_config(runs.tiny_config(lora__rank=2), "preference")
    assert parts["lora"]["rank"] == 2
    assert "lora" not in workspace.stage_config(
        runs.tiny_config(lora__rank=2), "simulate"
    )


def test_what_may_change_is_said_with_what_follows(tmp_path, caplog):
    caplog.set_level("INFO")
    workspace.open_run(runs.tiny_config(), tmp_path)
    workspace.open_run(runs.tiny_config(model__remat="none"), tmp_path)
    assert 'model.remat was "full" and is "none" now: other programs' in caplog.text
    begun = runs.tiny_config(preference__micro_batch=2)
    record_files.write_jsonl(tmp_path / "pairs" / "pairs.jsonl", [])
    workspace.begin(begun, tmp_path, "preference")
    assert not finished(tmp_path, "preference", preference__micro_batch=4)
    with pytest.raises(ValueError, match="preference.batch_size: was 4, now 2"):
        finished(tmp_path, "preference", preference__batch_size=2)


def test_file_hash_sees_a_file_that_was_written_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n")
    before = contents.file_hash(path)
    path.write_text("2\n")
    assert contents.file_hash(path) != before
