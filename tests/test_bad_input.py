"""Bad input ends at once with one clear message, and leaves what is there as it is."""

import json
import re

import pytest
import runs

from experiments import report as report_command
from rlcd_jax import done_mark
from rlcd_jax.job import workspace
from rlcd_jax.stages import train_preference


@pytest.fixture(autouse=True)
def one_device():
    with runs.devices_by_mesh():
        yield


def refused(config, workdir, message: str, stages=("simulate",)) -> str:
    """Return the message of a run that must be refused in one short paragraph."""
    with pytest.raises(ValueError, match=message) as caught:
        runs.run_checked(config, workdir, stages)
    told = str(caught.value)
    assert len(told) < 600 and "Traceback" not in told
    return told


def test_unknown_config_field_is_refused():
    config = runs.tiny_config()
    with pytest.raises((AttributeError, KeyError), match="nosuch"):
        config.policy.nosuch = 1


def test_unknown_task_is_refused(tmp_path):
    config = runs.tiny_config(task="nosuch")
    refused(config, tmp_path / "run", "unknown task 'nosuch'; accepted are .*cheerful")


def test_unknown_stage_is_refused_before_anything_is_written(tmp_path):
    refused(runs.tiny_config(), tmp_path / "run", "unknown stage 'x'", ("x",))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("llama-7b", "is a shape without weights; give hf:PATH_OR_ID"),
        ("nosuch", "unknown model preset 'nosuch'; accepted: tiny"),
        ("random:nosuch", "unknown model preset 'nosuch'"),
        ("gguf:{folder}/none.gguf", "none.gguf"),
        ("hf:{folder}", "config.json"),
    ],
)
def test_model_that_is_not_there_is_refused(tmp_path, spec, message):
    (tmp_path / "model").mkdir()
    config = runs.tiny_config(model__spec=spec.format(folder=tmp_path / "model"))
    refused(config, tmp_path / "run", message)


def test_model_folder_without_weights_is_refused(tmp_path):
    numbers = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 264,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    }
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(numbers))
    config = runs.tiny_config(model__spec=f"hf:{folder}")
    told = refused(config, tmp_path / "run", "safetensors|tokenizer")
    assert str(folder) in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("just a text\n", "prompts.jsonl, line 1: not JSON"),
        ('{"id": "a", "turns": []}\n', "prompts.jsonl, line 1: .*turns"),
        ('{"id": "a", "question": "hi"}\n', "prompts.jsonl, line 1: .*turns"),
        (
            '{"id": "a", "turns": [{"role": "human", "text": ""}]}\n',
            "prompts.jsonl, line 1: .*text",
        ),
    ],
    ids=["no json", "no turns", "other fields", "empty prompt"],
)
def test_prompt_file_that_is_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    refused(runs.tiny_config(prompts__source=str(path)), tmp_path / "run", message)


def test_prompt_file_that_is_not_there_is_refused(tmp_path):
    config = runs.tiny_config(prompts__source=str(tmp_path / "none.jsonl"))
    refused(config, tmp_path / "run", "none.jsonl")


def test_task_without_human_data_is_refused(tmp_path):
    config = runs.tiny_config(prompts__source="hh_rlhf")
    refused(config, tmp_path / "run", "'cheerful' has no hh-rlhf subset")


@pytest.mark.parametrize("stage", ["preference", "distill"])
def test_pair_file_with_a_broken_line_is_refused(finished_run, tmp_path, stage):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    (workdir / "pairs" / done_mark.DONE).unlink()  # it would be refused as changed
    path = workdir / "pairs" / "pairs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for broken, message in (
        (lines[2][:50] + "\n", "pairs.jsonl:3: not JSON"),
        (lines[2].replace('"prob_2": ', '"prob_2": 7'), "pairs.jsonl:3.*prob_2"),
    ):
        path.write_text("".join([*lines[:2], broken, *lines[3:]]))
        refused(runs.tiny_config(), workdir, message, (stage,))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("preference", "pairs.jsonl does not exist; run --stage=simulate first"),
        ("distill", "pairs.jsonl does not exist; run --stage=simulate first"),
        ("policy", "holds no checkpoint; run --stage=preference first"),
        ("evaluate", "holds no checkpoint; run --stage=distill first"),
    ],
)
def test_stage_without_the_one_before_is_refused(tmp_path, stage, message):
    refused(runs.tiny_config(), tmp_path / "run", message, (stage,))


def test_workdir_of_another_config_is_refused(finished_run):
    config = runs.tiny_config(pairs__temperature=0.1)
    for stage in ("simulate", "preference", "distill", "policy", "evaluate"):
        refused(config, finished_run, "pairs.temperature: was 0.7, now 0.1", (stage,))
    assert json.loads((finished_run / "config.json").read_text())["pairs"][
        "temperature"
    ] == pytest.approx(0.7)


def test_workdir_that_was_only_begun_is_refused_too(tmp_path):
    workspace.open_run(runs.tiny_config(), tmp_path / "run")
    workspace.begin(runs.tiny_config(), tmp_path / "run", "simulate")
    config = runs.tiny_config(seed=7)
    refused(config, tmp_path / "run", "seed: was 42, now 7")


def test_workdir_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "run"
    path.write_text("mine")
    refused(runs.tiny_config(), path, "is a file; give a folder")
    assert path.read_text() == "mine"


def test_workdir_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    refused(runs.tiny_config(), tmp_path, "holds other files .thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ((3, 1, 1), r"\(1, 3, 1, 1\) needs 3 devices but there are 8"),
        ((-1, 3, 1), "needs 6 devices but there are 8"),
    ],
)
def test_mesh_that_does_not_fit_is_refused(tmp_path, mesh, message):
    data, fsdp, tensor = mesh
    config = runs.tiny_config(mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor)
    refused(config, tmp_path / "run", message)


@pytest.mark.parametrize(
    ("fields", "stage", "message"),
    [
        ({"preference__micro_batch": 3}, "preference", "preference.micro_batch=3"),
        ({"preference__batch_size": 99}, "preference", "6 training rows are fewer"),
        ({"preference__data": "x"}, "preference", "preference.data='x'; accepted"),
        ({"preference__schedule": "x"}, "preference", "schedule='x'; accepted"),
        (
            {"policy__update_batch": 3},
            "policy",
            "policy.update_batch=3 does not divide",
        ),
        ({"policy__prompt_tokens": 3}, "policy", "none of 8 prompts fits"),
        ({"policy__choose": "x"}, "policy", "choose='x'; accepted: last, dev_score"),
        ({"policy__kl_limit": -1.0}, "policy", "policy.kl_limit=-1.0; accepted"),
        ({"policy__kl_limit": 9.0}, "policy", "limits nothing with .*choose='last'"),
        ({"policy__dev_prompts": -1}, "policy", "policy.dev_prompts=-1; accepted"),
        (
            {"policy__choose": "dev_score", "policy__dev_prompts": 0},
            "policy",
            "needs dev prompts, but policy.dev_prompts=0",
        ),
        ({"evaluate__judges": ("x",)}, "evaluate", "evaluate.judges has 'x'; accepted"),
        ({"evaluate__systems": ("x",)}, "evaluate", "evaluate.systems has 'x'"),
        ({"evaluate__cleanup": "x"}, "evaluate", "accepted: corrected, released"),
        ({"evaluate__checkpoints": ("x",)}, "evaluate", "accepted: 'name=folder'"),
        ({"model__dtype": "float16"}, "simulate", "dtype='float16'; accepted"),
        ({"model__attention": "cudnn"}, "simulate", "needs dtype='bfloat16'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_field_with_a_wrong_value_is_refused(
    finished_run, tmp_path, fields, stage, message
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    for done in ("pairs", "preference"):  # the value is looked at, not the difference
        for name in (done_mark.DONE, "config.json"):
            (workdir / done / name).unlink()
    config = runs.tiny_config(**fields)
    refused(config, workdir, message, (stage,))


def test_pairs_that_replies_left_too_few_say_where_they_went(finished_run, tmp_path):
    """Which replies are dropped is known when they are drawn, and not before."""
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    mark = workdir / "pairs" / done_mark.DONE
    held = json.loads(mark.read_text())
    del held["contents"]  # by which they would be refused as changed
    mark.write_text(json.dumps(held))
    path = workdir / "pairs" / "pairs.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    config = runs.tiny_config()
    with pytest.raises(ValueError) as caught:
        train_preference.train_preference(config, workdir)
    told = str(caught.value)
    assert "0 training rows are fewer than one batch of preference.batch_size=4" in told
    assert re.search(r"simulate made \d+ pairs and dropped .*, and 0 are over", told)
    assert f"preference.held_out={config.preference.held_out} took its" in told
    assert "lower it" not in told and "pairs.max_tries" in told
    assert len(told) < 600


def test_prompts_that_do_not_fit_are_named(tmp_path):
    config = runs.tiny_config(pairs__prompt_tokens=5)
    refused(config, tmp_path / "run", "none of 8 prompts fits in pairs.prompt_tokens=5")
    assert not (tmp_path / "run").exists()


def test_command_shows_a_message_and_no_trace(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        report_command.main(["--workdir", str(tmp_path / "nosuch")])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1
    assert str(tmp_path / "nosuch") in told
