"""What a plan says of adapters: the base once, and what is trained beside it."""

import math

import pytest
import runs
import test_plan

from rlcd_jax.job import trained_form
from rlcd_jax.models import footprint
from rlcd_jax.planning import chips, compiled, plan, sizes

ADAPTED = {"lora__rank": 16, "policy__micro_batch": 32}
# Seven matrices of each of 32 layers, rank 16; and a head of 4096 + 1.
PAIRS = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
HEAD = 4096 + 1
NORMS = 65 * 4096
BASE = 2 * (test_plan.PAPER_PARAMS["llama-7b"] - NORMS) + 4 * NORMS


def paper(topology="h100:1"):
    made = test_plan.paper("llama-7b", **ADAPTED)
    return plan.make_plan(made, chips.parse_topology(topology))


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        ("preference", {"prompts__limit": 0, "preference__batch_size": 8}),
        ("policy", {"policy__update_batch": 8, "policy__micro_batch": 4}),
    ],
)
def test_update_arguments_are_the_compilers(stage, fields):
    own = {"lora__rank": 2, "model__dtype": "bfloat16", **fields}
    setting = test_plan.on_mesh(runs.tiny_config(**test_plan.MESH, **own))
    for planned in test_plan.updates(plan.plan_stage(setting, stage)):
        measured = compiled.measure(planned, setting.job.mesh)
        assert not measured.problem
        assert planned.arguments == measured.arguments


def test_llama_7b_parameters_moments_and_base_by_hand():
    made = paper()
    held = test_plan.program(made, "preference", "update").sizes
    assert held["parameters"] == 4 * (PAIRS + HEAD)
    assert held["moments"] == 8 * (PAIRS + HEAD) + 3 * 4
    assert held["frozen"] == BASE
    held = test_plan.program(made, "policy", "update policy").sizes
    assert held["parameters"] == 4 * (2 * PAIRS + HEAD)
    # Reference, policy and value model are the base; the preference model has its own
    # adapters and head on it.
    assert held["frozen"] == BASE + 4 * (PAIRS + HEAD)
    assert (
        test_plan.program(made, "policy", "rewards").sizes["frozen"] == held["frozen"]
    )


def test_llama_7b_with_adapters_fits_on_one_gpu_of_80_gb():
    made = paper()
    assert [stage.name for stage in made.stages] == [
        *("simulate", "preference", "policy", "evaluate")
    ]
    for stage in made.stages:
        assert not stage.problem
        assert made.verdict(stage) == plan.FITS
        for program in stage.programs:
            assert program.total < 76 * chips.GIB, (stage.name, program.name)
    # Whole models do not.
    whole = test_plan.paper("llama-7b", policy__micro_batch=32)
    found = plan.make_plan(whole, chips.parse_topology("h100:1"), ("policy",))
    assert found.verdict(found.stages[0]) == plan.TOO_LARGE


def test_an_update_of_adapters_is_two_thirds_of_the_work():
    setting = plan.make_setting(
        test_plan.paper("llama-7b", **ADAPTED), chips.parse_topology("h100:1")
    )
    assert footprint.training_flops(setting.cfg, 3.0, adapted=True) == (6.0, 3.0)
    update = test_plan.program(paper(), "preference", "update")
    whole = plan.make_plan(
        test_plan.paper("llama-7b"), chips.parse_topology("h100:1"), ("preference",)
    )
    other = test_plan.program(whole, "preference", "update")
    assert math.isclose(update.flops, 2 / 3 * other.flops)


def test_the_base_is_counted_as_it_is_loaded():
    fields = {"lora__rank": 2, "model__dtype": "bfloat16"}
    setting = test_plan.on_mesh(runs.tiny_config(**test_plan.MESH, **fields))
    base = test_plan.params_of(setting, trained_form.llama.param_specs(setting.cfg))
    base = trained_form.frozen.form(base, "bfloat16")
    assert sizes.base_bytes(setting) == test_plan.on_first_device(base)
