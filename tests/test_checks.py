"""Everything that can be known before the first stage is told before it, in one go."""

import math
import pathlib
import re
import types
import typing

import pytest
import runs
import test_configs
import test_lengths
from hypothesis import given
from hypothesis import strategies as st

from configs import common
from rlcd_jax import (
    checkpoint,
    dotted,
    local_paths,
    metrics,
    record_files,
    records,
    stages,
)
from rlcd_jax.checks import fields, kinds, long_texts, refusals, rules, supplies
from rlcd_jax.datasets import preparing
from rlcd_jax.job import prompt_parts, setup, workspace
from rlcd_jax.models import llama
from rlcd_jax.pairs import draws
from rlcd_jax.ppo import choosing, credit, kl_penalty, rollout
from rlcd_jax.stages import simulate_pairs
from rlcd_jax.text import dialogue_format
from rlcd_jax.training import masked, optimizers
from rlcd_jax.weights import files as weight_files

NAN, INF = float("nan"), float("inf")
NEVER = (None, {}, 3 + 1j)  # no field is one of these
WRONG = {
    kinds.FLAG: (1, 0, "true", 1.0),
    kinds.COUNT: (True, 1.5, 2.0, NAN, INF, -7, "3", (3,), 2**32, 10**400),
    # The last are 0 and infinite as devices hold them.
    kinds.NUMBER: (True, NAN, INF, -INF, "0.1", (0.1,), 1e-320, 1e39),
    kinds.CHOICE: (3, "nosuch", " ", ("nosuch",)),
    kinds.TEXT: (3, " ", " x", "x\n", "a\0b", "a\nb", "a\x1bb", ("x",), [1]),
    kinds.LENGTHS: (
        (0,),
        (3, 2),
        (3, 3),
        (1.5,),
        (True,),
        ("8",),
        (-8, 8),
        8,
        "8",
        (1, 10**400),
    ),
    kinds.CHOICES: (("nosuch",), (3,), "nosuch", 3),
    kinds.TEXTS: (("nosuch",), ("=x",), ("x=",), (3,), ("a=b", "a=b"), "a=b"),
}


def config_of(task_name="cheerful", scale="smoke", method="quickstart", **own):
    """Return a config of a random tiny model with some fields set, of any type."""
    arg = f"task={task_name},size={scale},model=random:tiny"
    config = test_configs.get(method, arg)
    with config.unlocked(), config.ignore_type():
        for field, value in own.items():
            section, _, last = field.rpartition("__")
            (config[section] if section else config)[last] = value
    return config


def set_to(name, value):
    return config_of(**{name.replace(".", "__"): value})


def bad_values(field: kinds.Field):
    yield from (one for one in NEVER if not (field.unset and one is None))
    yield from WRONG[field.kind]
    if field.kind in (kinds.COUNT, kinds.NUMBER):
        yield from (x for x in (field.low - 1, field.high + 1) if math.isfinite(x))
        yield from [field.low] * field.open_low + [field.high] * field.open_high
    if field.kind in (kinds.LENGTHS, kinds.CHOICES, kinds.TEXTS) and not field.empty:
        yield ()
    if field.kind == kinds.CHOICES:
        yield field.choices[:1] * 2
    if field.choices and (first := field.choices[0] or field.choices[1]):
        alike = {"a": "\u0430", "o": "\u043e", "q": "\u051b"}  # of Cyrillic
        fake = first.translate(str.maketrans(alike))
        yield (fake,) if field.kind == kinds.CHOICES else fake + "\u200b"
    if field.kind == kinds.TEXT and not field.empty:
        yield ""
    if field.pattern and field.kind == kinds.TEXT:
        yield "nosuch"
    if field.ordered:
        yield field.choices[::-1]


# --- the table of fields --------------------------------------------------------------


@pytest.mark.parametrize("size", common.ARGUMENTS["size"])
def test_table_has_the_fields_of_every_config_and_accepts_their_values(size):
    for name in test_configs.CONFIGS:
        for task in test_configs.TASKS:
            config = config_of(task, size, name)
            assert set(dotted.flatten(config.to_dict())) == set(fields.FIELDS)
            refusals.check_config(config)


def test_examples_are_accepted():
    for name, field in fields.FIELDS.items():
        assert not kinds.problem(field, name, field.example), name


def test_choices_are_those_of_the_code():
    def choices(name):
        return set(fields.FIELDS[name].choices)

    assert choices("policy.kl_estimator") == set(kl_penalty.KL_ESTIMATORS)
    assert choices("policy.advantages") == set(credit.ADVANTAGES)
    assert choices("policy.kl_in") == set(kl_penalty.PLACES)
    assert choices("policy.statistics") == set(masked.STATISTICS)
    assert choices("policy.terminal_mode") == set(rollout.TERMINAL_MODES)
    assert choices("preference.schedule") == set(optimizers.SCHEDULES)
    assert choices("distill.schedule") == set(optimizers.SCHEDULES)
    assert choices("model.dtype") == set(llama.DTYPES)
    assert choices("model.remat") == set(llama.REMAT)
    assert choices("model.results") == {"auto", *llama.DTYPES}
    assert choices("model.attention") == {"auto", *llama.ATTENTION}
    assert choices("pairs.sampling") == set(typing.get_args(records.Sampling))
    assert choices("pairs.labels") == set(typing.get_args(records.Labels))
    assert choices("pairs.strength") == {"weak", "middle", "strong"}
    both = {choosing.LAST, choosing.DEV_SCORE}
    assert choices("policy.choose") == both
    for name in ("preset", "size"):
        assert choices(name) == set(common.ARGUMENTS[name])
    assert fields.FIELDS["stages"].choices == tuple(stages.STAGES)


@pytest.mark.parametrize("name", fields.FIELDS)
def test_bad_value_of_any_field_is_refused_before_anything(name, tmp_path, monkeypatch):
    def load(config):
        raise AssertionError("a model was looked for")

    monkeypatch.setattr(setup, "load_job", load)
    field = fields.FIELDS[name]
    values = list(bad_values(field))
    for value in values:
        told = kinds.problem(field, name, value)
        if not (field.kind == kinds.NUMBER and value is True):  # taken for 1.0 there
            with pytest.raises(ValueError, match=f"^{re.escape(name)}(=| has )"):
                refusals.check_config(set_to(name, value))
        assert told.startswith((f"{name}=", f"{name} has ")) and "\n" not in told
        assert told.isascii() or not field.choices  # letters that look alike differ
        assert f"; accepted: {kinds.accepted(field)}; for example --config." in told
    with pytest.raises(ValueError, match=re.escape(name)):
        config = set_to(name, values[-1])
        runs.run_checked(config, tmp_path / "run", ("simulate",))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("policy.eps", 1e-50, "which is 0 in float32"),
        ("policy.eps", 1e-42, "which devices take for 0"),
        ("policy.max_grad_norm", 1e300, "which is inf in float32"),
        ("policy.clip", 0.99999999999, "which is 1 in float32"),
        ("pairs.alpha", 0.500000000001, "which is 0.5 in float32"),
        ("policy.clip", 1.1, "policy.clip=1.1; accepted"),
        ("policy.clip", 10**400, "policy.clip=1000"),
    ],
)
def test_numbers_are_looked_at_as_devices_hold_them(name, value, said):
    assert said in kinds.problem(fields.FIELDS[name], name, value)


def test_all_bad_fields_are_told_at_once():
    config = config_of(
        preference__learning_rate=-1.0, policy__gamma=2.0, distill__epochs=0
    )
    with pytest.raises(ValueError, match="^3 things must be changed:") as caught:
        refusals.check_config(config)
    told = str(caught.value).splitlines()[1:]
    assert [line.split("=")[0].strip() for line in told] == [
        "preference.learning_rate",
        "distill.epochs",
        "policy.gamma",
    ]
    assert told[2].endswith(
        "policy.gamma=2.0; accepted: a finite number, from 0 up to 1 (discount a "
        "token); for example --config.policy.gamma=1.0"
    )


@given(
    st.sampled_from(sorted(fields.FIELDS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
        max_leaves=6,
    ),
)
def test_any_value_has_an_answer(name, value):
    told = kinds.problem(fields.FIELDS[name], name, value)
    assert isinstance(told, str) and len(told) < 400
    if isinstance(value, float) and not math.isfinite(value):
        assert told


# --- fields that go together ----------------------------------------------------------


@pytest.mark.parametrize("size", common.ARGUMENTS["size"])
def test_no_config_breaks_a_rule(size):
    for name in test_configs.CONFIGS:
        for task in ("cheerful", "outline"):
            config = config_of(task, size, name)
            assert rules.problems(config, config.stages) == []


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"model__attention": "cudnn", "model__dtype": "float32"},
            "needs dtype='bfloat16'",
        ),
        (
            {"model__results": "bfloat16", "model__dtype": "float32"},
            "model.results='bfloat16' needs dtype='bfloat16'",
        ),
        ({"pairs__sampling": "same"}, "two replies to one prompt have no better side"),
        (
            {"pairs__sampling": "same", "pairs__labels": ("scoring",)},
            "distill learns from replies to positive prompts",
        ),
        ({"pairs__mix": ("rlcd=1", "rlcd=0.5")}, "pairs.mix has 'rlcd=0.5'"),
        ({"pairs__mix": ("rlaif=1",)}, "distill learns from replies to positive"),
        (
            {"pairs__mix": ("rlaif=1",), "pairs__drop_disagreeing": True},
            "no pair is of contrast prompts",
        ),
        ({"preference__order": "certain_first"}, "by construction are all of 0 and 1"),
        (
            {
                "pairs__labels": ("scoring",),
                "pairs__hard_labels": True,
                "preference__order": "certain_first",
            },
            "hard_labels=True makes all labels 0 or 1",
        ),
        (
            {"preference__curriculum": ("rlcd=0:1",)},
            "changes the shares of a mixture, and there are no rows of rlcd",
        ),
        (
            {
                "pairs__mix": ("rlcd=1", "rlaif=1"),
                "preference__curriculum": ("rlcd=0:0",),
            },
            "one of the two weights above 0",
        ),
        (
            {
                "pairs__mix": ("rlcd=1", "rlaif=1"),
                "preference__curriculum": ("rlaif=1:0",),
                "preference__order": "certain_first",
            },
            "is an order, and so is preference.order='certain_first'",
        ),
        ({"preference__human_pairs": 9}, "human_pairs=9: .* prompts.hh_dir, which is"),
        ({"preference__human_share": 0.2}, "human_share=0.2: .* prompts.hh_dir"),
        ({"preference__data": "hh_rlhf"}, "data='hh_rlhf': .* prompts.hh_dir"),
        (
            {
                "preference__data": "hh_rlhf",
                "preference__human_share": 0.2,
                "prompts__hh_dir": "x",
            },
            "takes none of the run.s",
        ),
        ({"preference__data_limit": 9}, "data_limit=9 limits pairs that are not"),
        (
            {
                "preference__data": "hh_rlhf",
                "prompts__hh_dir": "x",
                "preference__data_limit": 3,
                "preference__held_out": 2,
            },
            "1 training rows .* set preference.held_out to 1 or less",
        ),
        ({"policy__update_batch": 3}, "policy.update_batch=3 does not divide"),
        ({"policy__warmup_steps": 3}, "warmup_steps=3 is more than policy.steps=2"),
        ({"policy__first_step_idle": True, "policy__steps": 1}, "leaves nothing of"),
        ({"policy__terminal_mode": "subtract"}, "would pay for unfinished replies"),
        ({"policy__samples_per_prompt": 3}, "samples_per_prompt=3 does not divide"),
        ({"policy__advantages": "rloo"}, "compares replies to one prompt, and policy."),
        ({"policy__per_sequence": True}, "the value loss is a mean over tokens"),
        (
            {
                "policy__advantages": "grpo",
                "policy__samples_per_prompt": 2,
                "policy__lam": 0.9,
            },
            "takes no part of policy.lam=0.9",
        ),
        ({"policy__kl_in": "loss"}, "'k1', whose gradient holds nothing back"),
        (
            {
                "policy__kl_in": "loss",
                "policy__kl_estimator": "k3",
                "policy__kl_target": 6.0,
            },
            "kl_target=6.0 moves the coefficient",
        ),
        (
            {
                "policy__kl_in": "loss",
                "policy__kl_estimator": "k2",
                "policy__statistics": "padded",
            },
            "padding has no KL",
        ),
        (
            {"policy__kl_target": 6.0, "policy__kl_horizon": 1, "policy__rollouts": 8},
            "kl_horizon=1 .*set it to 8 or more",
        ),
        ({"policy__kl_limit": 9.0}, "limits nothing with policy.choose='last'"),
        (
            {"policy__choose": "dev_score", "policy__dev_prompts": 0},
            "needs dev prompts, but policy.dev_prompts=0",
        ),
        ({"evaluate__judges": ("preference",)}, "preference_judge is empty"),
        (
            {"evaluate__preference_judge": "runs/x"},
            "preference_judge='runs/x' is not as",
        ),
        ({"evaluate__checkpoints": ("base=x",)}, "two systems .* called 'base'"),
        ({"evaluate__checkpoints": ("a=x", "a=y")}, "two systems .* called 'a'"),
        ({"name": "distill"}, "two systems .* called 'distill'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_fields_that_do_not_go_together_are_refused(own, message, tmp_path):
    told = refusals.verdict(config_of(**own), tmp_path / "run")
    assert any(re.search(message, line) for line in told), told


def test_rules_of_stages_that_are_not_run_are_not_asked():
    config = config_of("harmless", "paper", "evaluate")  # 2000 human pairs, no folder
    assert rules.problems(config, config.stages) == []
    assert rules.problems(config, ("preference",))


# --- data -----------------------------------------------------------------------------


def test_held_out_pairs_are_compared_with_what_can_come(tmp_path):
    num = len(prompt_parts.load_prompts(config := config_of(scale="paper"), task_of(config),
                                  "train"))  # fmt: skip
    most = num - config.preference.batch_size

    def verdict(**own):
        return refusals.verdict(config_of(scale="paper", **own), tmp_path / "run")

    assert verdict() == []  # the size is one that this task has pairs for
    (told,) = verdict(preference__held_out=500)
    assert f"at most {num} pairs" in told and "preference.held_out=500" in told
    assert f"set preference.held_out to {most} or less" in told
    assert verdict(preference__held_out=most) == []
    assert len(verdict(preference__held_out=most + 1)) == 1
    assert verdict(preference__held_out=500, pairs__samples_per_prompt=3) == []


@pytest.mark.parametrize(
    ("held_out", "group", "works"),
    [(464, 1, True), (465, 1, False), (462, 3, True), (463, 3, False), (500, 1, False)],
)
def test_too_few_pairs_holds_out_whole_prompts(held_out, group, works):
    config = config_of(preference__held_out=held_out, preference__batch_size=16)
    told = list(rules.too_few_pairs(config, "preference", 480, group))
    assert (told == []) == works
    most = {1: 464, 3: 462}[group]
    assert works or f"set preference.held_out to {most} or less" in told[0]


def task_of(config):
    return setup.load_task(config)


def pieces(text: str) -> list[str]:
    """Return about the tokens of a text, as models with large vocabularies have."""
    return re.findall(r"\w+|[^\w\s]|\n\n", text)


@pytest.mark.parametrize("task_name", test_configs.TASKS)
@pytest.mark.parametrize("size", ["full", "quick"])
def test_sizes_have_room_for_the_prompts_of_each_task(task_name, size):
    config = config_of(task_name, size)
    task = task_of(config)
    tokens = types.SimpleNamespace(encode=pieces, chat=None)
    loaded = prompt_parts.load_prompts(config, task, "train")
    numbers = simulate_pairs.settings(config)
    plain, contrast = [], []
    for prompt in loaded:
        plain.append(len(pieces(dialogue_format.plain_prompt(prompt, task, None))))
        drawn = draws.make_draw(prompt, "contrast", task, tokens, numbers)
        contrast.append(max(len(source.tokens) for source in drawn.sources))

    def share(sizes, limit):
        return sum(size <= limit for size in sizes) / len(sizes)

    assert share(plain, config.policy.prompt_tokens) > 0.9
    assert share(contrast, config.pairs.prompt_tokens) > 0.9
    for stage in ("preference", "distill"):
        room = config[stage].lengths[-1] - config.pairs.reply_tokens - 4
        assert share(plain, room) > 0.8


def test_limit_that_leaves_out_most_prompts_is_refused(tmp_path):
    config = runs.tiny_config(policy__prompt_tokens=60, prompts__limit=0)
    with runs.devices_by_mesh():
        told = refusals.verdict(config, tmp_path / "run")
    assert len(told) == 1
    assert re.search(r"policy.prompt_tokens=60 leaves out \d+ of \d+ prompts", told[0])


def test_judges_of_a_size_are_some_that_the_task_has():
    wanted = {"cheerful": {"lexicon"}, "my/own.toml": {"lexicon", "log_odds"}}
    for task in (*test_configs.TASKS, "my/own.toml"):
        for size in ("full", "quick", "smoke"):
            judges = config_of(task, size).evaluate.judges
            assert set(judges) == wanted.get(task, {"log_odds"})


@pytest.mark.parametrize("size", ["smoke", "paper"])
@pytest.mark.parametrize("task_name", ["harmless", "helpful"])
def test_tasks_of_the_paper_pass_or_end_in_one_message(task_name, size, tmp_path):
    with runs.devices_by_mesh():
        config = config_of(task_name, size, mesh__data=1)
        told = refusals.verdict(config, tmp_path / "run")
    assert len(told) == (size == "paper")
    assert all("prompts.hh_dir, which is empty" in line for line in told)


def test_run_of_another_task_has_a_column_of_quality(tmp_path):
    own = {"evaluate__judges": config_of("harmless").evaluate.judges}
    config = runs.tiny_config("distill", "harmless", **own)
    with runs.devices_by_mesh():
        runs.run_checked(config, tmp_path / "run", config.stages)
    assert "log_odds win rate" in (tmp_path / "run/evaluate/table.md").read_text()


# --- devices, disk, folders, other runs -----------------------------------------------


def test_batches_must_divide_among_the_devices(tmp_path):
    told = refusals.verdict(config_of(preference__batch_size=4), tmp_path / "run")
    assert [line.split(":")[0] for line in told] == ["preference", "distill", "policy"]
    said = "do not divide among mesh.slices x mesh.data x mesh.fsdp = 8"
    assert all(said in line for line in told)


def test_plan_for_other_machines_looks_at_none_of_this_one(monkeypatch):
    def load(config):
        raise AssertionError("a model was looked for")

    monkeypatch.setattr(setup, "load_job", load)
    config = test_configs.get("rlcd", "task=cheerful,model=llama-7b")
    assert refusals.verdict(config, num_devices=8) == []
    told = refusals.verdict(config, num_devices=1000)
    assert [line.split(":")[0] for line in told] == ["preference", "policy"]
    assert all("= 1000 devices" in line for line in told)
    config.preference.held_out = 500
    (told,) = refusals.verdict(config, num_devices=8)
    assert "preference.held_out=500" in told


@pytest.mark.parametrize(
    "name", [".config.json.tmp", "lost+found", "nohup.out", "a.log"]
)
def test_workdir_may_hold_what_is_no_work_of_anyone(name, tmp_path):
    (tmp_path / name).write_text("")
    workspace.open_run(config_of(), tmp_path)
    assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["run[1]", "runs/*", "what?"])
def test_workdir_that_orbax_would_not_find_again_is_refused(name):
    assert "a folder without [, ]," in refusals.verdict(config_of(), name)[0]
    with pytest.raises(ValueError, match="a folder without"):
        workspace.open_run(config_of(), name)


BUCKET = "gs://bucket/run"


def test_bucket_is_refused_by_one_rule_wherever_a_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_paths.ACCEPTED in refusals.verdict(config_of(), BUCKET)[0]
    for write in (
        lambda place: workspace.open_run(config_of(), place),
        lambda place: checkpoint.Checkpointer(place, max_to_keep=1),
        checkpoint.latest_step,
        lambda place: metrics.MetricWriter(place, "policy", resumed_step=None),
        lambda place: record_files.write_json(place, {}),
        lambda place: weight_files.check_new(pathlib.Path(place)),
        preparing.local_folder,
    ):
        for place in (BUCKET, pathlib.Path(BUCKET)):
            with pytest.raises(ValueError, match="is an address; accepted: a local"):
                write(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [n for n, f in fields.FIELDS.items() if f.path])
def test_field_of_a_path_takes_no_bucket(name):
    value = BUCKET if fields.FIELDS[name].kind == kinds.TEXT else (f"one={BUCKET}",)
    line = kinds.problem(fields.FIELDS[name], name, value)
    assert name in line and "accepted: " in line and BUCKET in line


def test_workdir_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "run"
    assert "cannot be made" in refusals.verdict(config_of(), inside)[0]
    with pytest.raises(ValueError, match="cannot be made"):
        workspace.open_run(config_of(), inside)
    monkeypatch.setattr(workspace.os, "access", lambda path, mode: False)
    assert "cannot be written" in refusals.verdict(config_of(), tmp_path / "run")[0]


def test_what_other_stages_and_runs_leave_must_be_there(finished_run, tmp_path):
    def told(*stages, **own):
        with runs.devices_by_mesh():
            return refusals.verdict(runs.tiny_config(**own), tmp_path / "run", stages)

    runs.copy_run(finished_run, tmp_path / "run", "pairs")
    assert told("simulate", "preference", "distill", "policy", "evaluate") == []
    (line,) = told("policy")
    assert "preference/checkpoints holds no checkpoint" in line
    assert len(told("evaluate")) == 2
    own = {"evaluate__checkpoints": (f"a={tmp_path}/none",)}
    (line,) = told("distill", "policy", "preference", "evaluate", **own)[-1:]
    assert "evaluate.checkpoints has" in line and "none holds no checkpoint" in line
    (line,) = told(
        "evaluate",
        evaluate__systems=("base",),
        evaluate__judges=("preference",),
        evaluate__preference_judge=str(tmp_path / "none"),
    )
    assert "evaluate.preference_judge=" in line
    (tmp_path / "run/pairs/pairs.jsonl").unlink()
    (line,) = told("simulate", "preference")
    assert "run/pairs is done, and since then" in line
    assert "pairs/pairs.jsonl is not there any more" in line


def test_other_runs_are_of_this_model(finished_run, tmp_path):
    def told(**own):
        config = runs.tiny_config(
            evaluate__systems=("base",),
            evaluate__checkpoints=(f"other={finished_run}/policy",),
            evaluate__judges=("preference",),
            evaluate__preference_judge=str(finished_run),
            **own,
        )
        with runs.devices_by_mesh():
            return refusals.verdict(config, tmp_path / "run", ("evaluate",))

    assert told() == []
    other = told(model__spec="random:smollm2-135m")
    assert len(other) == 2 and all("does not fit" in line for line in other)
    assert other[0].startswith("evaluate.checkpoints has 'other=")
    assert "preference/head/weight was saved as float32[64]" in other[1]
    assert not (tmp_path / "run").exists()


def test_prompts_are_read_once_and_all_of_the_test_part_looked_at(monkeypatch):
    found = test_lengths.load(64, evaluate__judges=("lexicon",))
    short, long = (
        records.Prompt(name, (records.Turn("human", text),))
        for name, text in (("short", "Hi"), ("long", "Hi" * 40))
    )
    loaded = []

    def load(config, task, part):
        loaded.append(part)
        return [short] * (long_texts.LOOKED + 1) + [long]

    monkeypatch.setattr(prompt_parts, "load_prompts", load)
    look = supplies.Look(
        found.config, {"policy": found}, None, ("evaluate",), ("evaluate",)
    )
    assert list(supplies.counts(look)) == []
    (line,) = supplies.positions(look)
    assert "the longest prompt of 10" in line and loaded == ["test"]


# --- commands -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("preset", "released", "configs/rlcd.py:preset=released,size=smoke"),
        ("size", "paper", "accepted: --config configs/rlcd.py:size=paper"),
        ("task", "helpful", "configs/rlcd.py:task=helpful"),
        ("model.spec", "hf:x", "configs/rlcd.py:model=hf:x"),
        ("name", "rlaif", "the file of the method"),
    ],
)
def test_field_that_only_renames_is_refused(name, value, accepted):
    fresh = config_of(method="rlcd")
    other = config_of(method="rlcd", **{name.replace(".", "__"): value})
    with pytest.raises(ValueError, match=re.escape(accepted)):
        refusals.check_labels(other, fresh, "configs/rlcd.py:size=smoke")
    refusals.check_labels(fresh, fresh, "configs/rlcd.py:size=smoke")
    own = config_of(method="rlcd", policy__gamma=0.5, task_format="chat")
    refusals.check_labels(own, fresh, "configs/rlcd.py:size=smoke")
