"""Every config parses, locks and instantiates; a wrong one ends in one message."""

import importlib
import os
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from configs import common, switches
from rlcd_jax import dotted, tasks
from rlcd_jax.decode import engine
from rlcd_jax.job import prompt_parts, setup, workspace
from rlcd_jax.models import presets
from rlcd_jax.stages import simulate_pairs

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("__init__", "common", "hardware", "sizes", "switches", "paper")
)
TASKS = ("cheerful", "harmless", "helpful", "outline")
STAGES = ("simulate", "preference", "distill", "direct", "policy", "evaluate")


def get(name: str, arg: str | None = None) -> ml_collections.ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(arg)


def test_configs_are_those_of_the_design():
    assert set(CONFIGS) == {
        "rlcd",
        "rlaif",
        "rescore",
        "mixed",
        "distill",
        "dpo",
        "rloo",
        "grpo",
        "best_of_n",
        "evaluate",
        "graded",
        "quickstart",
    }


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", common.ARGUMENTS["size"])
@pytest.mark.parametrize("preset", common.ARGUMENTS["preset"])
def test_config_instantiates_for_every_task(name, size, preset):
    for task_name in TASKS:
        config = get(name, f"task={task_name},size={size},preset={preset}")
        assert config.is_locked and config.size == size and config.preset == preset
        assert set(config.stages) <= set(STAGES)
        with pytest.raises(AttributeError):
            config.nosuch = 1
        task = setup.load_task(config)
        assert task.name == task_name
        assert task.cleanup.mode == config.pairs.cleanup
        assert task.reply_tokens == config.pairs.reply_tokens
        simulate_pairs.settings(config)
        for row in simulate_pairs.grid_rows(config):
            assert row.sampling == config.pairs.sampling
        for stage in STAGES:
            assert workspace.stage_config(config, stage)["seed"] == 42
        assert config.policy.rollouts % config.policy.update_batch == 0
        assert list(config.preference.lengths) == sorted(config.preference.lengths)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_has_a_head_with_command_hardware_and_result(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    for part in ("Command:", "Hardware:", "Result:"):
        assert part in text
    assert "python -m experiments." in text


@pytest.mark.parametrize("model", presets.PRESETS)
def test_config_takes_every_model(model):
    config = get("rlcd", f"model={model}")
    assert config.model.spec == model
    assert config.size == ("full" if model == "smollm2-135m" else "paper")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_read_by_the_library(name):
    """A field that nothing reads is an option that does nothing."""
    text = "\n".join(p.read_text() for p in (ROOT / "rlcd_jax").rglob("*.py"))
    text += "\n".join(p.read_text() for p in (ROOT / "experiments").glob("*.py"))
    config = get(name)
    unread = [
        f"{section}.{field}"
        for section, fields in config.items()
        if isinstance(fields, ml_collections.ConfigDict)
        for field in fields
        if f".{field}" not in text
    ]
    assert not unread


def test_every_field_has_a_comment():
    lines = (ROOT / "configs" / "common.py").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("def _run"))
    end = len(lines) - 1
    bare = [
        line.strip()
        for before, line in zip(lines[start:end], lines[start + 1 : end], strict=False)
        if " = " in line and "#" not in line and not before.strip().startswith("#")
        if "ConfigDict()" not in line and "fields[" not in line
    ]
    assert not bare


def test_presets_are_the_positions_of_the_switches():
    """Of a whole config as big as the paper's, nothing else differs."""
    made = {
        preset: dotted.flatten(
            get("rlcd", f"preset={preset},size=paper,model=llama-7b").to_dict()
        )
        for preset in switches.PRESETS
    }
    for row in switches.SWITCHES.values():
        assert set(row) <= {*switches.PRESETS, "why", "source"}
        assert len({str(row.get(p, row["corrected"])) for p in switches.PRESETS}) > 1
        assert row["why"] and row["source"]
    for preset in switches.PRESETS:
        differ = {n for n in made[preset] if made[preset][n] != made["corrected"][n]}
        asked = {n for n, row in switches.SWITCHES.items() if preset in row}
        if preset == "corrected":
            assert not differ
        else:
            turned = {n for n in asked if row_of(n)[preset] != row_of(n)["corrected"]}
            assert differ == turned | {"preset"}
        for name in switches.SWITCHES:
            assert made[preset][name] == switches.position(name, preset)
    assert made["released"]["policy.kl_estimator"] == "k1_clamped"
    assert made["paper"]["pairs.max_tries"] == 6


def test_the_page_of_switches_shows_every_row():
    page = (ROOT / "experiments/docs/released.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    shown = {row.split("`")[1]: row for row in rows if "." in row.split("`")[1]}
    for name, row in switches.SWITCHES.items():
        values = [f"`{switches.position(name, one)}`" for one in switches.PRESETS]
        cells = [f"`{name}`", *values, row["why"], row["source"]]
        assert shown.pop(name) == f"| {' | '.join(cells)} |"
    assert set(shown) <= {"policy.statistics", "pairs.hard_labels"}


def row_of(name):
    return switches.SWITCHES[name]


def test_corrected_positions_are_the_fields_own():
    base = common.get_base.__globals__
    config = ml_collections.ConfigDict(base["_run"]("x", common.parse_arg(None)))
    for section in ("pairs", "preference", "distill", "policy", "evaluate"):
        config[section] = base[f"_{section}"]()
    for name, row in switches.SWITCHES.items():
        section, _, field = name.partition(".")
        assert config[section][field] == row["corrected"], name


def test_paper_size_has_the_numbers_of_the_paper():
    config = get("rlcd", "task=harmless,model=llama-7b")
    assert config.prompts.source == "hh_rlhf" and config.preference.human_pairs == 2000
    assert (config.policy.rollouts, config.policy.epochs) == (512, 2)
    assert config.preference.learning_rate == 3e-6
    assert (config.evaluate.top_p, config.evaluate.reply_tokens) == (0.9, 300)


def test_methods_are_the_cells_of_the_grid():
    cells = {
        name: (get(name).pairs.sampling, tuple(get(name).pairs.labels))
        for name in CONFIGS
    }
    assert cells["rlcd"] == cells["distill"] == ("contrast", ("construction",))
    assert cells["rlaif"] == ("same", ("scoring",))
    assert cells["rescore"] == ("contrast", ("scoring",))
    assert cells["mixed"] == ("contrast", ("construction", "scoring"))
    assert cells["graded"] == ("graded", ("construction",))


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("speed=fast", "config argument 'speed=fast'; accepted: .*task, model, preset"),
        ("harmless", "config argument 'harmless'; accepted: name=value"),
        ("task=", "config argument 'task='; accepted: name=value"),
        ("size=quick,size=paper", "size is given twice, 'quick' and 'paper'"),
        (
            "size=qui\u0441k",
            r"size='qui.u0441k'; accepted: paper, long, full, quick, smoke",
        ),
        ("size=huge", "size='huge'; accepted: paper, long, full, quick, smoke"),
        ("preset=best", "preset='best'; accepted: corrected, paper, released"),
        ("preset=alpacafarm", "is now called preset=released; write that"),
    ],
)
def test_wrong_argument_is_one_message(arg, message):
    with pytest.raises(ValueError, match=message):
        get("rlcd", arg)


def test_unknown_task_names_the_tasks():
    with pytest.raises(ValueError, match="'nosuch'; accepted are .*cheerful"):
        setup.load_task(get("rlcd", "task=nosuch"))


def test_every_task_has_prompts_for_training_and_test():
    for name in TASKS:
        config = get("rlcd", f"task={name},size=full")
        task = tasks.load_task(name)
        parts = [prompt_parts.load_prompts(config, task, part) for part in tasks.SPLITS]
        ids = [{prompt.id for prompt in part} for part in parts]
        assert all(ids) and len(set.union(*ids)) == sum(map(len, ids))
        few = prompt_parts.load_prompts(config, task, "dev", limit=2)
        assert few == parts[1][:2] and len(few) == 2
    assert engine.Request  # the engine imports without a device


def command(tmp_path: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    """Run ``python -m experiments.run`` as a person would."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.run",
            "--workdir",
            tmp_path / "run",
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            ("--config", "configs/rlcd.py", "--config.policy.nosuch=1"),
            ("no field 'policy.nosuch'", "kl_coef"),
        ),
        (
            ("--config", "configs/rlcd.py", "--config.policy.steps=many"),
            ("policy.steps", "many"),
        ),
        (("--config", "configs/rlcd.py:size=huge"), ("huge", "smoke")),
        (("--config", "configs/nosuch.py"), ("configs/nosuch.py",)),
        (
            ("--config", "configs/rlcd.py:size=smoke", "--config.preset=released"),
            ("--config.preset=released", "configs/rlcd.py:preset=released"),
        ),
        (
            (
                "--config",
                "configs/rlcd.py:size=smoke,model=random:tiny",
                "--stage=nosuch",
            ),
            ("nosuch", "simulate"),
        ),
    ],
)
def test_command_line_mistake_is_one_short_message(tmp_path, flags, names):
    done = command(tmp_path, *flags)
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in told
    for name in names:
        assert name in told
    lines = [line for line in told.splitlines() if not line.startswith("I0")]
    assert len("\n".join(lines)) < 900, told
    assert not (tmp_path / "run").exists()
