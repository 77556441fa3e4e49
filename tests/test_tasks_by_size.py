"""Each task at each size: a table that says which replies are better, or one message.

A size is what it is but for how many: of steps, prompts, rows and draws there are few
here. Task, lengths, judges and switches are those of the size. The suite runs each size
at least once, `IN_SUITE`, and every message; `python -m pytest -m ""
tests/test_tasks_by_size.py` runs the rest of the matrix too.
"""

import importlib
import json
import logging
import re

import made_inputs
import pytest
import runs

from rlcd_jax import pipeline, tasks

OWN = "polite"  # of affixes and prompts alone
# Counts alone; a mesh of one of the eight fake devices; few programs, since compiling
# is most of what a cell takes: one width of prefill, one length of the cache.
FEW = {
    "mesh.data": 1,
    "engine.slots_per_device": 8,
    "engine.prompt_buckets": (64,),
    "engine.live_buckets": (4096,),
    "prompts.limit": 8,
    "pairs.samples_per_prompt": 1,
    "preference.held_out": 2,
    "preference.batch_size": 2,
    "distill.batch_size": 2,
    "distill.epochs": 1,
    "policy.steps": 1,
    "policy.warmup_steps": 1,
    "policy.rollouts": 4,
    "policy.update_batch": 2,
    "policy.epochs": 1,
    "policy.dev_prompts": 2,
    "evaluate.prompts": 3,
    "evaluate.samples_per_prompt": 1,
    "evaluate.resamples": 200,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Return a folder with a model of words, hh-rlhf, and a task of the user's."""
    folder = tmp_path_factory.mktemp("inputs")
    made_inputs.write_model(folder / "model")
    made_inputs.write_hh(folder / "hh")
    made_inputs.write_task(folder, OWN)
    return folder


def config_of(inputs, method, task, size, words):
    """Return the few of a method's config, of a model that spells words or bytes."""
    model = f"hf:{inputs}/model" if words else "random:tiny"
    own = inputs / f"{OWN}.toml" if task == OWN else task
    module = importlib.import_module(f"configs.{method}")
    config = module.get_config(f"task={own},size={size},model={model}")
    fields = {**FEW, "prompts.data_dir": str(inputs / "data")}
    if words:  # of whose random replies many are dropped
        fields["prompts.limit"] = 24
    if config.prompts.source == "hh_rlhf":
        fields |= {
            "prompts.hh_dir": str(inputs / "hh"),
            "prompts.hh_dev_split": "test[:4]",  # of twelve, not of two thousand
            "preference.human_pairs": 2,
        }
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config


def run(config, workdir):
    """Run all stages of a config and its report, as a command does."""
    with runs.devices_by_mesh():
        stages, cache = config.stages, str(workdir.parent / "cache")
        pipeline.run_stages(config, str(workdir), stages, cache_dir=cache, preset=None)


def ugly_texts(task):
    """Return the affixes that ask for the opposite of a task."""
    return [negative for _, negative in tasks.load_task(task).affixes]


def check_table(config, workdir, told):
    """Check that a table says which replies are better, or what is missing for it."""
    table = json.loads((workdir / "evaluate" / "table.json").read_text())
    *others, last = table["rows"]
    assert others[0]["name"] == "base" and last["name"] != "base"
    quality = [cell for name, cell in last["cells"].items() if "win rate" in name]
    assert quality and all(0 <= cell["value"] <= 1 for cell in quality), last
    shown = (workdir / "evaluate" / "table.md").read_text()
    page = (workdir / "report.html").read_text()
    outside = any("lexicon" in name for name in last["cells"])
    missing = "Missing: a judge from outside."
    assert [missing in text for text in (shown, page, told)] == [not outside] * 3
    left_out = [f"Judge {name} is left out" for name in config.evaluate.judges]
    for note in left_out:
        places = [note in text for text in (shown, page, told)]
        assert len({*places}) == 1, note


def check(inputs, tmp_path, caplog, method, task, size, words):
    """Run a job of few; return what it refused, "" where it made its table."""
    caplog.set_level(logging.INFO, "absl")
    config = config_of(inputs, method, task, size, words)
    workdir = tmp_path / "run"
    refused = ""
    try:
        run(config, workdir)
    except ValueError as error:
        refused = str(error)
        assert not workdir.exists(), refused
        assert re.search(r"accepted|raise it|set|name", refused), refused
    else:
        check_table(config, workdir, caplog.text)
    for text in ugly_texts(config.task):
        assert text not in caplog.text and text not in refused
    return refused


def part_of(cases, *in_suite):
    """Return cases of which the suite runs the named ones, and `-m ""` all."""
    rest = [one for one in cases if one not in in_suite]
    return [*in_suite, *(pytest.param(*one, marks=pytest.mark.whole) for one in rest)]


ALL = [(task,) for task in (*made_inputs.TASKS, OWN)]
METHODS = ("rlaif", "rescore", "mixed", "distill")
# What the suite runs of RLCD, at each size; tests of commands run cheerful and OWN at
# smoke, and tests of methods run each of them with cheerful: here RLAIF has helpful.
IN_SUITE = {
    "smoke": ("harmless",),
    "quick": ("outline",),  # which has lengths of its own
    "paper": ("harmless",),  # which has human pairs
}


@pytest.mark.parametrize(("task",), part_of(ALL, IN_SUITE["smoke"]))
def test_smoke_makes_a_table(inputs, tmp_path, caplog, task):
    assert not check(inputs, tmp_path, caplog, "rlcd", task, "smoke", words=False)


@pytest.mark.parametrize(("task",), part_of(ALL, IN_SUITE["quick"]))
def test_quick_makes_a_table(inputs, tmp_path, caplog, task):
    assert not check(inputs, tmp_path, caplog, "rlcd", task, "quick", words=True)


@pytest.mark.parametrize("task", made_inputs.TASKS)
def test_quick_of_a_model_of_bytes_is_one_message(inputs, tmp_path, caplog, task):
    told = check(inputs, tmp_path, caplog, "rlcd", task, "quick", words=False)
    assert "prompts fits in policy.prompt_tokens=" in told


@pytest.mark.parametrize(("task",), part_of(ALL, IN_SUITE["paper"]))
def test_paper_makes_a_table(inputs, tmp_path, caplog, task):
    assert not check(inputs, tmp_path, caplog, "rlcd", task, "paper", words=True)


@pytest.mark.parametrize("task", ("harmless", "helpful"))
def test_paper_without_human_pairs_is_one_message(inputs, tmp_path, task):
    config = config_of(inputs, "rlcd", task, "paper", words=True)
    with config.unlocked():
        config.prompts.hh_dir = ""
    with pytest.raises(ValueError, match="prompts.hh_dir"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


OF_METHODS = [(method, task) for method in METHODS for (task,) in ALL]


@pytest.mark.parametrize(("method", "task"), part_of(OF_METHODS, ("rlaif", "helpful")))
def test_method_makes_a_table(inputs, tmp_path, caplog, method, task):
    assert not check(inputs, tmp_path, caplog, method, task, "smoke", words=False)
