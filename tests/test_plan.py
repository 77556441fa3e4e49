"""The plan: exact where it can be, refused where a run would be, advice that works."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import runs

from configs import rlcd
from experiments import plan as command_module
from rlcd_jax import chips, sharding, tree
from rlcd_jax.decode import layout
from rlcd_jax.models import footprint, llama, presets, table
from rlcd_jax.stages import plan, plan_advice, plan_compile, plan_programs, plan_sizes

MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
# Two parts a batch: an update that takes its batch whole leaves an array unread.
PARTS = {
    "preference__batch_size": 8,
    "preference__micro_batch": 4,
    "policy__micro_batch": 0,
}
PAPER_PARAMS = {"llama-7b": 6_738_415_616, "llama-30b": 32_528_943_616}
ROOT = pathlib.Path(__file__).parents[1]


def paper(model: str, **fields):
    config = rlcd.get_config(f"task=harmless,model={model}")
    return plan_advice.changed(
        config, {k.replace("__", "."): v for k, v in fields.items()}
    )


def program(made: plan.Plan, stage: str, name: str):
    (found,) = [s for s in made.stages if s.name == stage]
    assert not found.problem, found.problem
    return next(one for one in found.programs if one.name == name)


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
        ("policy", {"policy__update_batch": 8, "policy__micro_batch": 4}),
        ("policy", {"policy__joint_clip": True}),
    ],
)
def test_update_arguments_are_the_compilers(stage, fields):
    config = runs.tiny_config(**MESH, **fields)
    made = plan.make_plan(config, chips.parse_topology("cpu:8"), (stage,))
    measured = plan_compile.measure(config, sharding.make_mesh(2, 2, 2), stage)
    assert program(made, stage, "update").arguments == measured.arguments
    assert measured.peak >= measured.arguments and not measured.problem


def test_llama_7b_parameters_and_moments_by_hand():
    made = plan.make_plan(
        paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    )
    assert made.num_params == PAPER_PARAMS["llama-7b"]
    # float32, an eighth a device, without the output table and with a head and norms,
    # of which each device has a whole copy: 65 norms of 4096, 4096 + 1 of the head.
    whole = 65 * 4096 + 4096 + 1
    split = PAPER_PARAMS["llama-7b"] - 65 * 4096 - 32000 * 4096
    assert split % 8 == 0
    sizes = program(made, "preference", "update").sizes
    assert sizes["parameters"] == 4 * (split // 8 + whole)
    # Two moments of each; three counters: of Adam, of its rate, of the updates.
    assert sizes["moments"] == 2 * sizes["parameters"] + 3 * 4
    assert sizes["gradients"] == sizes["parameters"]
    assert sizes.get("logits", 0) == 0


def test_llama_7b_cache_and_decode_weights_by_hand():
    made = plan.make_plan(
        paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    )
    sizes = program(made, "simulate", "generate").sizes
    # Keys and values, 32 layers, 8 slots a device, 384 + 300 entries of 4096, bfloat16.
    assert sizes["cache"] == 2 * 32 * 8 * 684 * 4096 * 2
    norms = 65 * 4096
    assert sizes["decode"] == 2 * (PAPER_PARAMS["llama-7b"] - norms) + 4 * norms


def test_engine_bytes_are_those_of_the_engines_shardings():
    config = runs.tiny_config(**MESH)
    setting = plan.make_setting(config, chips.parse_topology("cpu:8"))
    shapes = jax.eval_shape(
        lambda p: llama.decode_form(p, setting.cfg),
        table.abstract_params(llama.param_specs(setting.cfg)),
    )
    where = layout.shardings(setting.cfg, setting.found.mesh)
    cache = jax.eval_shape(lambda: llama.init_cache(setting.cfg, 8, 24))
    held = plan_sizes.engine_bytes(setting, 12, 12)
    placed = plan_sizes.place(shapes, where.params)
    assert held["decode"] == plan_sizes.device_bytes(placed)
    placed = plan_sizes.place(cache, jax.tree.map(lambda _: where.cache, cache))
    assert held["cache"] == plan_sizes.device_bytes(placed)


def test_forward_flops_of_llama_7b_by_hand():
    cfg = presets.get_preset("llama-7b")
    matrices = PAPER_PARAMS["llama-7b"] - 2 * 32000 * 4096 - 65 * 4096
    tokens = 16 * 512
    found = footprint.forward_flops(cfg, tokens, 512, logit_tokens=tokens)
    attention = 32 * 4 * 4096 * 512
    assert found == tokens * (2 * matrices + attention + 2 * 32000 * 4096)
    assert footprint.training_flops(cfg, found) == (3 * found, found)


def test_activation_bytes_grow_from_full_to_none():
    sizes = []
    for remat in ("full", "dots", "none"):
        config = paper("llama-7b", model__remat=remat)
        cfg = plan.make_setting(config, chips.parse_topology("h100:1")).cfg
        one = footprint.activation_bytes(cfg, 1, 512, tensor_ways=1, backward=True)
        two = footprint.activation_bytes(cfg, 2, 512, tensor_ways=1, backward=True)
        assert two == pytest.approx(2 * one, rel=1e-6)
        sizes.append(one)
    assert sizes == sorted(sizes) and sizes[0] >= 32 * 512 * 4096 * 4
    forward = footprint.activation_bytes(cfg, 1, 512, tensor_ways=1, backward=False)
    assert forward < sizes[0]


def test_make_plan_refuses_half_a_head():
    config = paper("llama-30b", mesh__tensor=8, mesh__fsdp=32)
    with pytest.raises(ValueError, match=r"52 heads, which mesh\.tensor=8"):
        plan.make_plan(config, chips.parse_topology("v5p:8x8x4"))


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
    made = plan.make_plan(runs.tiny_config(**MESH), chips.parse_topology("cpu:8"))
    assert {made.verdict(stage) for stage in made.stages} == {plan.UNKNOWN}
    assert [stage.name for stage in made.stages] == list(plan_programs.STAGES)
    assert all(made.seconds(p) is None for s in made.stages for p in s.programs)


@pytest.mark.parametrize("topology", ["v5e:16x16", "h100:8"])
def test_advise_gives_what_fits(topology):
    config, asked = paper("llama-7b"), chips.parse_topology(topology)
    advice = plan_advice.advise(config, asked, config.stages)
    made = plan.make_plan(
        plan_advice.changed(config, advice.changes),
        chips.parse_topology(advice.topology),
    )
    assert made.works
    assert advice.as_flags().startswith(f"--topology={topology} --config.mesh.data=")


def test_advise_finds_nothing_for_one_small_chip():
    config = paper("llama-65b")
    one = chips.parse_topology("v5e:1")
    assert plan_advice.advise(config, one, config.stages) is None


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
        "--json",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "plan.json").read_text())
    assert report["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    stage = report["stages"]["preference"]
    assert stage["verdict"] == plan.UNKNOWN
    assert stage["compiled"]["peak"] >= stage["compiled"]["arguments"] > 0


def test_check_compilable_refuses_what_needs_its_chips():
    with pytest.raises(ValueError, match="only TPUs can be compiled for from afar"):
        command_module.check_compilable(chips.parse_topology("h100:8"))
    command_module.check_compilable(chips.parse_topology("v5e:16x16"))


def test_find_devices_says_what_to_install(monkeypatch):
    def missing(**_):
        raise RuntimeError("no plugin for tpu")

    monkeypatch.setattr(command_module.topologies, "get_topology_desc", missing)
    with pytest.raises(ValueError, match=r"no plugin for tpu; .*\[tpu\]"):
        command_module.find_devices(chips.parse_topology("v5e:16x16"))


def test_show_prints_both_numbers_and_what_to_change(capsys):
    config, asked = paper("llama-7b", mesh__fsdp=8), chips.parse_topology("h100:8")
    made = plan.make_plan(config, asked)
    advice = plan_advice.Advice("h100:8", {"policy.micro_batch": 64})
    measured = {"preference": vars(plan_compile.Measured(problem="too large by 3 GiB"))}
    command_module.show(made, advice, measured)
    shown = capsys.readouterr().out
    assert "policy: does not fit: 75.79 GiB for update, of 60 GiB" in shown
    assert "--topology=h100:8 --config.policy.micro_batch=64" in shown
    assert "the compiler refuses: too large by 3 GiB" in shown
