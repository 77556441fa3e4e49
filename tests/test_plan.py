"""The plan: exact where it can be, refused where a run would be, advice that works."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
import runs

from configs import rlcd
from rlcd_jax import sharding, tree
from rlcd_jax.decode import layout
from rlcd_jax.decode import programs as engine_programs
from rlcd_jax.job import generation
from rlcd_jax.models import footprint, heads, llama, presets, table
from rlcd_jax.planning import (
    advice,
    chips,
    compiled,
    drawing,
    gpu_targets,
    passes,
    plan,
    sizes,
    tables,
)
from rlcd_jax.ppo import learning
from rlcd_jax.scoring import reading
from rlcd_jax.stages import train_preference

MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
# Two parts a batch: an update that takes its batch whole leaves an array unread.
PARTS = {
    "preference__batch_size": 8,
    "preference__micro_batch": 4,
    "policy__micro_batch": 0,
}
WITHOUT_VALUES = {  # but with all that the loss of GRPO reads
    "policy__advantages": "grpo",
    "policy__samples_per_prompt": 2,
    "policy__per_sequence": True,
    "policy__kl_in": "loss",
    "policy__kl_estimator": "k3",
}
PAPER_PARAMS = {"llama-7b": 6_738_415_616, "llama-30b": 32_528_943_616}
TRAINERS = {
    "preference": lambda job: train_preference.make_trainer(job, 10),
    "policy": learning.make_trainer,
}
GAPS = re.compile(r" +")
ROOT = pathlib.Path(__file__).parents[1]


def paper(model: str, **fields):
    config = rlcd.get_config(f"task=harmless,model={model}")
    return advice.changed(config, {k.replace("__", "."): v for k, v in fields.items()})


def program(made: plan.Plan, stage: str, name: str) -> passes.Program:
    (found,) = [s for s in made.stages if s.name == stage]
    return named(found, name)


def named(stage: plan.StagePlan, name: str) -> passes.Program:
    assert not stage.problem, stage.problem
    return next(one for one in stage.programs if one.name == name)


def updates(stage: plan.StagePlan) -> list[passes.Program]:
    assert not stage.problem, stage.problem
    return [one for one in stage.programs if one.name.split()[0] == "update"]


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        (
            "preference",
            {
                "prompts__limit": 0,
                "preference__batch_size": 8,
                "preference__micro_batch": 4,
            },
        ),
        ("preference", {"prompts__limit": 0}),
        ("distill", {}),
        ("direct", {"prompts__limit": 0, "direct__batch_size": 8}),
        ("policy", {"policy__update_batch": 8, "policy__micro_batch": 4}),
        ("policy", {"policy__joint_clip": True}),
        ("policy", {"policy__nonfinite": "skip"}),
        ("policy", {"policy__kl_in": "loss", "policy__kl_estimator": "k3"}),
        ("policy", WITHOUT_VALUES),
    ],
)
def test_update_arguments_are_the_compilers(stage, fields):
    config = runs.tiny_config(**MESH, **fields)
    setting = on_mesh(config)
    for planned in updates(plan.plan_stage(setting, stage)):
        measured = compiled.measure(planned, setting.job.mesh)
        assert planned.arguments == measured.arguments
        assert measured.peak >= measured.arguments and not measured.problem


def test_one_gradient_at_a_time_is_planned_where_models_are_apart():
    setting = on_mesh(runs.tiny_config(**MESH))
    apart = updates(plan.plan_stage(setting, "policy"))
    joint = on_mesh(runs.tiny_config(**MESH, policy__joint_clip=True))
    (together,) = updates(plan.plan_stage(joint, "policy"))
    assert [one.name for one in apart] == ["update policy", "update value"]
    for name in ("parameters", "moments"):  # all are held, by whichever is updated
        held = {one.sizes[name] for one in (*apart, together)}
        assert max(held) - min(held) <= 12, name  # the counters of one are the other's
    gradients = [one.sizes["gradients"] for one in apart]
    assert sum(gradients) == together.sizes["gradients"]
    assert sum(one.flops for one in apart) == pytest.approx(together.flops)
    assert max(one.total for one in apart) < together.total - min(gradients)


def test_llama_7b_parameters_and_moments_by_hand():
    made = plan.make_plan(
        paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    )
    assert {*made.models.values()} == {("llama-7b", PAPER_PARAMS["llama-7b"])}
    # float32, an eighth a device, without the output table and with a head and norms,
    # of which each device has a whole copy: 65 norms of 4096, 4096 + 1 of the head.
    whole = 65 * 4096 + 4096 + 1
    split = PAPER_PARAMS["llama-7b"] - 65 * 4096 - 32000 * 4096
    assert split % 8 == 0
    held = program(made, "preference", "update").sizes
    assert held["parameters"] == 4 * (split // 8 + whole)
    # Two moments of each; three counters: of Adam, of its rate, of the updates.
    assert held["moments"] == 2 * held["parameters"] + 3 * 4
    assert held["gradients"] == held["parameters"]
    assert held.get("logits", 0) == 0


def test_llama_7b_cache_and_decode_weights_by_hand():
    made = plan.make_plan(
        paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    )
    held = program(made, "simulate", "decode").sizes
    # Keys and values, 32 layers, 16 slots, 384 + 300 entries of 4096, bfloat16;
    # the entries are rounded up to a multiple of 64.
    assert held["cache"] == 2 * 32 * 16 * 704 * 4096 * 2
    norms = 65 * 4096
    assert held["decode"] == 2 * (PAPER_PARAMS["llama-7b"] - norms) + 4 * norms


def test_engine_bytes_are_those_of_the_engines_shardings():
    config = runs.tiny_config(**MESH)
    setting = plan.make_setting(config, chips.parse_topology("cpu:8"))
    shapes = jax.eval_shape(
        lambda p: llama.decode_form(p, setting.cfg),
        table.abstract_params(llama.param_specs(setting.cfg)),
    )
    where = layout.shardings(setting.cfg, setting.job.mesh, "whole")
    # Slots for each of four devices; two share theirs, and have a head each.
    cache = jax.eval_shape(lambda: llama.init_cache(setting.cfg, 4 * 8, 64))
    held = draw(setting, 12, 12).held
    assert held["decode"] == sharding.device_bytes(shapes, where.params)
    assert held["cache"] == sharding.device_bytes(cache, where.cache)


def draw(setting: sizes.Setting, prompt: int, reply: int) -> drawing.Drawing:
    """Return a few replies to draw."""
    return drawing.plan_drawing(
        setting,
        num_replies=4,
        prompt_tokens=prompt,
        reply_tokens=reply,
        features=engine_programs.Features(),
    )


def on_first_device(arrays) -> int:
    """Return the bytes that live arrays take on one device."""
    first = jax.devices()[0]
    return sum(
        shard.data.nbytes
        for array in jax.tree.leaves(arrays)
        for shard in array.addressable_shards
        if shard.device == first
    )


def on_mesh(config, chip="cpu"):
    """Return a plan's setting whose mesh is that of the eight fake devices."""
    return plan.setting_on(config, sharding.make_mesh(2, 2, 2), chips.CHIPS[chip])


def params_of(setting, specs):
    """Return random parameters, placed as a stage places them."""
    where = sharding.param_shardings(specs, setting.job.mesh)
    start = jax.jit(lambda key: table.init_from_specs(specs, key), out_shardings=where)
    return start(jax.random.key(0))


@pytest.mark.parametrize(("prompt", "reply"), [(40, 30), (50, 14), (3, 130)])
def test_engine_sizes_are_those_of_a_live_engine(prompt, reply):
    setting = on_mesh(runs.tiny_config(**MESH))
    sampler = generation.make_engine(setting.job, prompt, reply)
    params = params_of(setting, llama.param_specs(setting.cfg))
    generation.load(sampler, params, setting.job.mesh)
    sampler.fit(sampler.max_length)
    planned = draw(setting, prompt, reply)
    assert sampler.memory == planned.memory
    assert sampler.num_slots == planned.shape.num_slots
    assert planned.held["decode"] == on_first_device(sampler._params)
    assert planned.held["cache"] == on_first_device(sampler._cache)
    assert planned.shape.max_length == -(-(prompt + reply) // 64) * 64


@pytest.mark.parametrize(
    ("attention", "gib"),
    # Weights 12.55 and a cache of 22; beside them a quarter of the slots' rows while a
    # prefill goes on from copies.
    [("xla", 43.1), ("cudnn", 43.1)],
)
def test_engine_memory_counts_copied_rows(attention, gib):
    wide = {"engine__slots_per_device": 64}
    config = paper("llama-7b", model__attention=attention, **wide)
    setting = plan.make_setting(config, chips.parse_topology("h100:1"))
    found = draw(setting, 384, 300)
    cache = 2 * 32 * 64 * 704 * 4096 * 2
    assert found.memory.cache == cache
    # A pass that goes on from copies holds a quarter of the slots once more.
    assert found.memory.work["prefill 16 on copies"] >= cache // 4
    assert found.memory.total / chips.GIB == pytest.approx(gib, abs=1.0)
    assert found.memory.total < plan.Rates().limit_gib(chips.CHIPS["h100"]) * chips.GIB


@pytest.mark.parametrize(
    ("attention", "topology"),
    [("splash", "h100:8"), ("cudnn", "v5e:8"), ("cudnn", "cpu:8"), ("splash", "cpu:8")],
)
def test_a_kernel_that_the_machine_lacks_is_refused(attention, topology):
    config = paper("llama-7b", model__attention=attention)
    with pytest.raises(ValueError, match=f"model.attention='{attention}' needs a") as e:
        plan.make_setting(config, chips.parse_topology(topology))
    assert "; set model.attention='xla', or 'auto' for the one that fits" in str(
        e.value
    )


def test_engine_memory_counts_what_grows():
    config = paper("llama-7b", engine__prompt_buckets=(2048,))
    setting = plan.make_setting(config, chips.parse_topology("v5e:64"))
    found = draw(setting, 384, 300)
    shape = found.shape.sizes(setting.cfg, "tpu")
    assert shape.lives == (192, 384, 576, 704)
    # A buffer of a layer at a time: 32 layers, keys and values.
    assert found.memory.work["resize"] == found.memory.cache // 64


@pytest.mark.parametrize("stage", ["preference", "policy"])
def test_update_sizes_are_those_of_a_live_training(stage):
    config = runs.tiny_config(prompts__limit=0, **MESH, **{"preference__batch_size": 8})
    setting = on_mesh(config)
    planned = updates(plan.plan_stage(setting, stage))[-1]
    specs = {
        "preference": {"preference": heads.scalar_specs(setting.cfg)},
        "policy": {
            "policy": llama.param_specs(setting.cfg),
            "value": heads.scalar_specs(setting.cfg),
        },
    }[stage]
    trainer = TRAINERS[stage](setting.job)
    state = trainer.create(params_of(setting, specs))
    assert planned.sizes["parameters"] == on_first_device(state.params)
    assert planned.sizes["moments"] == on_first_device((state.opt_state, state.updates))


def test_without_a_value_model_none_is_planned():
    made = {
        name: plan.plan_stage(on_mesh(runs.tiny_config(**MESH, **fields)), "policy")
        for name, fields in (("gae", {}), ("grpo", WITHOUT_VALUES))
    }
    names = {name: {one.name for one in own.programs} for name, own in made.items()}
    apart = {"update policy", "update value"}
    assert names["gae"] ^ names["grpo"] == {"values", "update", *apart}
    update = {name: updates(own)[0] for name, own in made.items()}
    policy = sizes.model_bytes(
        on_mesh(runs.tiny_config(**MESH)),
        llama.param_specs(on_mesh(runs.tiny_config(**MESH)).cfg),
        frozen=False,
    )
    assert update["grpo"].sizes["parameters"] == policy
    assert update["gae"].sizes["parameters"] > 1.8 * policy
    assert update["grpo"].flops == update["gae"].flops
    assert update["grpo"].total < update["gae"].total


def test_models_of_other_runs_are_held_beside_the_own_one():
    own, three = (
        plan.plan_stage(
            on_mesh(runs.tiny_config(**MESH, policy__rewards=others), "a100"),
            "policy",
        )
        for others in ((), ("kind=a:1", "brief=b:0.5"))
    )
    setting = on_mesh(runs.tiny_config(**MESH))
    more = 2 * sizes.read_bytes(setting, "preference")
    for name in ("decode", "rewards", "update policy"):
        held = [named(one, name).sizes["frozen"] for one in (own, three)]
        assert held[1] - held[0] == more > 0
    work = [named(one, "rewards").flops for one in (own, three)]
    assert work[1] == pytest.approx(3 * work[0])


def test_questions_of_pairs_are_planned_as_they_are_asked():
    def planned(**fields):
        config = runs.tiny_config("rlaif", **MESH, **fields)
        return plan.plan_stage(on_mesh(config), "simulate")

    one, many = planned(), planned(pairs__instructions=4, pairs__shots="task")
    asked = [named(made, "score") for made in (one, many)]
    rows = [program.flops / program.runs for program in asked]
    assert rows[1] > 1.5 * rows[0]  # longer texts
    assert asked[1].flops > 6 * asked[0].flops  # and four times as many
    votes = planned(pairs__votes=3)
    assert "score" not in {program.name for program in votes.programs}
    drawn, voted = named(votes, "decode"), named(votes, "votes, decode")
    alone = named(one, "decode")
    # Both engines are there to the end; there is no frozen copy for letters.
    assert drawn.sizes["decode"] == voted.sizes["decode"] == 2 * alone.sizes["decode"]
    assert drawn.sizes["cache"] == voted.sizes["cache"] > alone.sizes["cache"]
    assert voted.sizes["frozen"] < alone.sizes["frozen"]


@pytest.mark.parametrize("head", [llama.param_specs, heads.scalar_specs])
def test_model_bytes_are_those_of_live_parameters(head):
    config = runs.tiny_config(**MESH, model__dtype="bfloat16")
    setting = on_mesh(config)
    specs = head(setting.cfg)
    params = params_of(setting, specs)
    assert sizes.model_bytes(setting, specs, frozen=False) == on_first_device(params)
    read = reading.frozen(setting.job, params)
    assert sizes.model_bytes(setting, specs, frozen=True) == on_first_device(read)
    assert on_first_device(read) < on_first_device(params)


def test_forward_flops_of_llama_7b_by_hand():
    cfg = presets.get_preset("llama-7b")
    matrices = PAPER_PARAMS["llama-7b"] - 2 * 32000 * 4096 - 65 * 4096
    tokens = 16 * 512
    found = footprint.forward_flops(cfg, tokens, 512, logit_tokens=tokens)
    attention = 32 * 4 * 4096 * 512
    assert found == tokens * (2 * matrices + attention + 2 * 32000 * 4096)
    assert footprint.training_flops(cfg, found) == (3 * found, found)


def working(cfg, rows: int, models: int) -> int:
    one = footprint.Pass(rows, 512, models, logits=0, fsdp_ways=1, tensor_ways=1)
    return footprint.working_bytes(cfg, one)["activations"]


def test_activation_bytes_grow_from_full_to_none():
    sizes = []
    for remat in ("full", "dots", "none"):
        config = paper("llama-7b", model__remat=remat)
        cfg = plan.make_setting(config, chips.parse_topology("h100:1")).cfg
        one, two = (working(cfg, rows, models=1) for rows in (1, 2))
        assert two == pytest.approx(2 * one, rel=1e-6)
        sizes.append(one)
    assert sizes == sorted(sizes) and sizes[0] >= 32 * 512 * 4096 * 4
    forward = working(cfg, 1, models=0)
    assert forward < sizes[0]


def test_plan_says_what_of_the_heads_is_copied_or_zero():
    config = paper("llama-30b", mesh__tensor=8, mesh__fsdp=32)
    made = plan.make_plan(config, chips.parse_topology("v5p:8x8x4"))
    assert "each device computes 7 of them" in made.heads
    assert made.heads in tables.as_text(tables.Report(made))
    whole = paper("llama-30b", mesh__tensor=4, mesh__fsdp=64)
    assert not plan.make_plan(whole, chips.parse_topology("v5p:8x8x4")).heads


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("v9:4", "v9:4"),
        ("h100", "h100"),
        ("v5e:0x4", "accepted: CHIP:N"),
        ("cpu:two", "two"),
    ],
)
def test_parse_topology_refuses(text, match):
    with pytest.raises(ValueError, match=match):
        chips.parse_topology(text)


def test_make_plan_refuses_a_mesh_of_another_size():
    with pytest.raises(ValueError, match="needs 6 devices but there are 8"):
        plan.make_plan(
            paper("llama-7b", mesh__data=1, mesh__fsdp=6),
            chips.parse_topology("h100:8"),
        )


def test_plan_stage_says_what_the_stage_would():
    made = plan.make_plan(paper("llama-7b"), chips.parse_topology("v5e:16x16"))
    stages = {stage.name: stage for stage in made.stages}
    assert "16 rows at once do not divide" in stages["preference"].problem
    assert made.verdict(stages["preference"]) == plan.REFUSED
    assert made.verdict(stages["policy"]) == plan.TOO_LARGE
    assert not made.works


def test_verdict_does_not_guess_the_memory_of_a_host():
    config = runs.tiny_config(**MESH)
    made = plan.make_plan(config, chips.parse_topology("cpu:8"))
    assert {made.verdict(stage) for stage in made.stages} == {plan.UNKNOWN}
    assert [stage.name for stage in made.stages] == list(config.stages)
    assert all(made.seconds(p) is None for s in made.stages for p in s.programs)


@pytest.mark.parametrize("topology", ["v5e:16x16", "h100:8"])
def test_advise_gives_what_fits(topology):
    config, asked = paper("llama-7b"), chips.parse_topology(topology)
    change = advice.advise(config, asked, config.stages)
    made = plan.make_plan(
        advice.changed(config, change.changes),
        chips.parse_topology(change.topology),
    )
    assert made.works
    assert change.as_flags().startswith(
        f"--topology={topology} --config.mesh.slices=1 "
    )


def test_advise_finds_nothing_for_one_small_chip():
    config = paper("llama-65b")
    one = chips.parse_topology("v5e:1")
    assert advice.advise(config, one, config.stages) is None


def test_num_params_are_those_of_the_presets():
    for name, count in PAPER_PARAMS.items():
        specs = llama.param_specs(presets.get_preset(name))
        assert tree.count_params(table.abstract_params(specs)) == count


def command(*args: str) -> subprocess.CompletedProcess:
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, "-m", "experiments.plan", *args],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_command_compiles_on_fake_devices_and_leaves_json(tmp_path):
    done = command(
        "--config=configs/rlcd.py:task=cheerful,model=random:tiny,size=smoke",
        "--config.preference.batch_size=4",
        "--config.mesh.fsdp=2",
        "--config.mesh.tensor=2",
        "--stage=preference",
        "--topology=cpu:8",
        "--compile",
        "--format=json",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "plan.json").read_text())
    assert report["mesh"] == {"slice": 1, "data": 2, "fsdp": 2, "tensor": 2}
    stage = report["stages"]["preference"]
    assert stage["verdict"] == plan.UNKNOWN
    assert set(stage["programs"]) == {"start", "update", "held out"}
    for one in stage["programs"].values():
        found = one["compiled"]
        assert not found["problem"] and found["peak"] >= found["arguments"] > 0
    assert "all-gather" in stage["programs"]["update"]["compiled"]["collectives"]


def test_check_compilable_names_the_plugin_that_gpus_need(monkeypatch):
    asked = chips.parse_topology("h100:8")
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs the CUDA plugin .* no GPU; .*\[cuda\]"
    ):
        compiled.check_compilable(asked)
    compiled.check_compilable(chips.parse_topology("v5e:16x16"))
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: name)
    compiled.check_compilable(asked)


@pytest.mark.parametrize(("chip", "extra"), [("v5e:16x16", "tpu"), ("h200:8", "cuda")])
def test_find_devices_says_what_to_install(monkeypatch, chip, extra):
    def missing(**_):
        raise RuntimeError(f"no plugin for {extra}")

    monkeypatch.setattr(compiled.topologies, "get_topology_desc", missing)
    with pytest.raises(ValueError, match=rf"no plugin for {extra}; .*\[{extra}\]"):
        compiled.find_devices(chips.parse_topology(chip))


def test_find_devices_describes_the_gpus_that_are_not_there(monkeypatch):
    asked = {}

    class Described:
        devices = ["one"]

    def described(**fields):
        asked.update(fields)
        return Described

    monkeypatch.setattr(compiled.topologies, "get_topology_desc", described)
    assert compiled.find_devices(chips.parse_topology("h100:16")) == ["one"]
    assert asked["platform"] == "cuda" and asked["topology"] == "1x2x8"
    memory = 79.1 * chips.GIB
    assert f"device_memory_size: {memory:.0f}\n" in asked["target_config"]
    assert asked["target_config"].count("{") == asked["target_config"].count("}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("h100:1", "1x1x1"), ("a100:8", "1x1x8"), ("h200:4x8", "1x4x8")],
)
def test_topology_text_is_partitions_hosts_and_gpus(text, wanted):
    assert gpu_targets.topology_text(chips.parse_topology(text)) == wanted


def test_topology_text_refuses_half_a_host():
    with pytest.raises(ValueError, match="h100:12 is no number of whole hosts"):
        gpu_targets.topology_text(chips.parse_topology("h100:12"))


def test_as_text_has_both_numbers_and_what_to_change():
    config, asked = paper("llama-7b", mesh__fsdp=4), chips.parse_topology("h100:4")
    report = tables.Report(
        plan.make_plan(config, asked),
        change=advice.Advice("h100:8", {"policy.micro_batch": 64}),
        measured={
            "preference": {"update": compiled.Measured(problem="too large by 3 GiB")},
            "policy": {"update policy": compiled.Measured(peak=60 * chips.GIB)},
        },
    )
    shown = tables.as_text(report)
    assert (
        "policy: does not fit:" in shown
        and "GiB for update policy, of 56.36 GiB" in shown
    )
    assert "--topology=h100:8 --config.policy.micro_batch=64" in shown
    assert "too large: preference update: too large by 3 GiB" in shown
    # What is held beside the program counts too.
    beside = sum(program(report.plan, "policy", "update policy").beside.values())
    whole = 60 + beside / chips.GIB
    assert f"too large: policy update policy: {whole:.2f} GiB of 56.36" in shown
    assert not report.works


def test_as_text_cuts_no_cell():
    config, asked = paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    report = tables.Report(plan.make_plan(config, asked))
    shown = tables.as_text(report)
    assert "…" not in shown
    head, *rows = tables.programs_grid(report)
    for row in (cells for cells in rows[0] if cells[0]):
        assert GAPS.sub(" ", " ".join(filter(None, row))) in GAPS.sub(" ", shown)
    assert head[-5:] == ["PFLOP", "TB read", "GB sent", "hours", "cost"]


def test_hours_and_cost_add_up():
    config, asked = paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    made = plan.make_plan(config, asked, rates=plan.Rates(price=2.5))
    hours = [made.hours(stage) for stage in made.stages]
    assert made.total_hours == pytest.approx(sum(hours)) and min(hours) > 0
    assert made.cost(made.total_hours) == pytest.approx(8 * 2.5 * sum(hours))
    found = tables.as_json(tables.Report(made))
    parts = [stage["cost"] for stage in found["stages"].values()]
    assert found["cost"] == pytest.approx(sum(parts), abs=0.02)
    # An update is products and sending: half the efficiency, twice the products' time.
    slow = plan.make_plan(
        config, asked, rates=plan.Rates(efficiency=chips.PRODUCT_SHARE / 2)
    )
    update = program(made, "preference", "update")
    sending = made.sending_seconds(update)
    assert 0 < sending < made.seconds(update)
    products = made.seconds(update) - sending
    assert slow.seconds(update) == pytest.approx(2 * products + sending)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_states_of_one_model_are_held_while_another_reads(platform):
    cfg = plan.make_setting(paper("llama-7b"), chips.parse_topology("h100:1")).cfg
    one = footprint.Pass(
        **{"rows": 2, "length": 768, "models": 0, "logits": 0, "platform": platform},
        **{"fsdp_ways": 1, "tensor_ways": 1},
    )
    alone, second = (
        sum(footprint.working_bytes(cfg, dataclasses.replace(one, before=n)).values())
        for n in (0, 1)
    )
    assert second - alone == 2 * 2 * 768 * cfg.embed_dim  # in bfloat16


def test_total_hours_are_unknown_where_a_stage_is_refused():
    made = plan.make_plan(paper("llama-7b"), chips.parse_topology("v5e:16x16"))
    assert made.total_hours is None
    report = tables.Report(made)
    assert "hours" not in tables.as_json(report)
    assert "; without preference" in tables.as_text(report)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"efficiency": 0.0}, "share of the peak rate"),
        ({"efficiency": 1.5}, "share of the peak rate"),
        ({"bandwidth_share": float("nan")}, "bandwidth_share nan"),
        ({"margin": 1.0}, "margin 1.0; accepted: a share of the usable memory"),
        ({"margin": -0.1}, "margin -0.1"),
        ({"price": -1}, "price -1"),
        ({"price": float("inf")}, "price inf"),
    ],
)
def test_rates_refuse_what_is_no_share_and_no_price(fields, match):
    with pytest.raises(ValueError, match=match):
        plan.Rates(**fields)


def test_report_with_problems_does_not_work():
    made = plan.make_plan(runs.tiny_config(**MESH), chips.parse_topology("cpu:8"))
    assert tables.Report(made).works
    report = tables.Report(made, problems=("gamma=2.0; accepted: 0 to 1",))
    assert not report.works and not tables.as_json(report)["works"]
    assert "the run's own checks refuse: gamma=2.0" in tables.as_text(report)


def test_too_few_pairs_are_refused_by_what_holds_them_out():
    config = rlcd.get_config("task=cheerful,model=llama-7b")
    with config.unlocked():
        config.preference.held_out = 500
    made = plan.make_plan(config, chips.parse_topology("h100:8"), ("preference",))
    (stage,) = made.stages
    assert stage.problem.startswith("preference.held_out=500 takes all of the 218")
    assert " -" not in stage.problem  # no number below nothing


def test_usable_memory_is_below_what_there_is_and_a_margin_is_left():
    usual = plan.Rates()
    for chip in chips.CHIPS.values():
        if chip.platform != "cpu":
            assert usual.limit_gib(chip) < chip.usable_gib <= chip.memory_gib
    h100 = chips.CHIPS["h100"]
    assert h100.memory_gib == 79.1
    # Between the limit and the usable memory a stage does not fit, but for no margin.
    usable = int(h100.usable_gib * chips.GIB)
    stage = plan.StagePlan("policy", (passes.Program("update", {"other": usable}),))
    assert plan.verdict(stage, h100, usual) == plan.TOO_LARGE
    assert plan.verdict(stage, h100, plan.Rates(margin=0.0)) == plan.FITS


def test_memory_share_is_of_gpus():
    more = chips.CHIPS["h100"].with_memory_share(0.92)
    assert more.usable_gib == pytest.approx(0.92 * 79.1) and "0.92 of" in more.source
    for name, share in (("v5e", 0.9), ("h100", 1.1), ("h100", 0)):
        with pytest.raises(ValueError, match="XLA_PYTHON_CLIENT_MEM_FRACTION"):
            chips.CHIPS[name].with_memory_share(share)


@pytest.mark.parametrize("stage", sorted(advice.BATCHES))
def test_update_batch_grows_with_its_fields(stage):
    config = runs.tiny_config(**MESH)
    field = {"policy": "update_batch"}.get(stage, "batch_size")
    doubled = advice.changed(config, {f"{stage}.{field}": 2 * config[stage][field]})
    mesh = sharding.abstract_mesh(2, 2, 2, 8)
    once, twice = (
        sizes.update_batch(plan.planned_job(one, mesh, chips.CHIPS["cpu"]), stage)
        for one in (config, doubled)
    )
    assert once.keys() == twice.keys()
    for name, leaf in once.items():
        assert twice[name].dtype == leaf.dtype
        if name in ("tokens", "segments", "states"):  # rows, more of them or wider
            assert twice[name].size == 2 * leaf.size
        else:
            assert twice[name].shape == (2 * leaf.shape[0], *leaf.shape[1:])
