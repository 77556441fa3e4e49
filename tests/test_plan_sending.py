"""What devices send: read from compiled programs, and reckoned from shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import runs
from jax.sharding import NamedSharding, PartitionSpec

from rlcd_jax import sharding
from rlcd_jax.models import presets
from rlcd_jax.planning import chips, collectives, compiled, messages, passes, plan

HLO = """HloModule jit_f, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %g = bf16[8,4]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8]
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %y)
}

%cond (p: (s32[], f32[8,4])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %w = (s32[], f32[8,4]) while(%init), condition=%cond, body=%body,
  %w2 = (s32[], f32[8,4]) while(%init), condition=%cond, body=%body, TRIPS
  %s = f32[8,4]{1,0} all-reduce-start(%y), replica_groups={{0,1},{2,3}}, to_apply=%add
  %d = f32[8,4]{1,0} all-reduce-done(%s)
  %ag = (f32[2,4], f32[8,4]) all-gather-start(%y), replica_groups={{0,1,2,3}}
  ROOT %r = f32[2,4]{1,0} reduce-scatter(%y), replica_groups={}, to_apply=%add
}
""".replace("TRIPS", 'backend_config={"known_trip_count":{"n":"5"}}')


def test_count_reads_loops_starts_and_groups():
    found = collectives.count(HLO, 4)
    # One loop of unknown trips counts once, one of 5 trips five times: 6 gathers of
    # 64 bytes among four, and the last of 128 bytes.
    assert found["all-gather"] == (7, 6 * 48 + 96)
    assert found["all-reduce"] == (1, 2 * 128 // 2)
    assert found["reduce-scatter"] == (1, 32 * 3)
    assert set(found) == {"all-gather", "all-reduce", "reduce-scatter"}


@pytest.mark.parametrize(
    ("groups", "ways"),
    [
        ("{{0,1},{2,3}}", 2),
        ("[2,4]<=[8]", 4),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
        ("mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}", 4),
        ("mesh['a'=4,'b'=2] {'b','a'}", 8),
        ("mesh['a'=4,'b'=2] {'a':(1)2}", 2),
        ("{}", 8),
    ],
)
def test_groups_are_read_in_each_form_that_xla_prints(groups, ways):
    text = f"""HloModule f
ENTRY %main (x: f32[8,4]) -> f32[8,4] {{
  ROOT %r = f32[8,4]{{1,0}} all-gather(%x), replica_groups={groups}, dimensions={{0}}
}}
"""
    sent = 8 * 4 * 4 * (ways - 1) // ways
    assert collectives.count(text, 8) == {"all-gather": (1, sent)}


def test_count_tells_the_results_of_several_arrays_from_their_operands():
    lines = (
        "%r = ((f32[8,4], f32[16,4]), (f32[2,4], f32[4,4])) reduce-scatter-start(%x)",
        "%p = (f32[8,4], f32[8,4], u32[], u32[]) collective-permute-start(%y)",
    )
    text = "\n".join(["ENTRY %main (x: f32[8,4]) -> f32[8,4] {", *lines, "}"])
    found = collectives.count(text, 4)
    assert found["reduce-scatter"] == (1, (2 * 4 + 4 * 4) * 4 * 3)
    assert found["collective-permute"] == (1, 8 * 4 * 4)


def test_count_of_a_compiled_sum_in_a_loop():
    mesh = sharding.make_mesh(1, 4, 2)

    def summed(x):
        def step(carry, _):
            carry = jax.lax.with_sharding_constraint(carry @ carry.T @ carry, spread)
            return carry / jnp.sum(carry), None

        return jax.lax.scan(step, x, None, length=3)[0]

    spread = NamedSharding(mesh, PartitionSpec("fsdp"))
    shape = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=spread)
    text = jax.jit(summed).lower(shape).compile().as_text()
    found = collectives.count(text, 8)
    assert found and all(runs % 3 == 0 for runs, _ in found.values())


@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 8, 1), "fsdp"), ((8, 1, 1), "data"), ((4, 1, 2), "tensor")]
)
def test_an_update_sends_about_what_is_compiled(shape, axis):
    fields = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape, strict=True))
    config = runs.tiny_config(
        prompts__limit=0,
        preference__batch_size=8,
        model__dtype="bfloat16",
        **fields,
    )
    setting = plan.setting_on(config, sharding.make_mesh(*shape), chips.CHIPS["cpu"])
    stage = plan.plan_stage(setting, "preference")
    planned = next(one for one in stage.programs if one.name == "update")
    sent = dict(planned.moved.by_axis)
    assert sent[axis] > 0
    found = compiled.measure(planned, setting.job.mesh)
    measured = sum(size for _, size in found.collectives.values())
    # The same order: compilers differ in what they gather in which dtype.
    assert planned.moved.total / planned.runs == pytest.approx(measured, rel=0.6)


def test_a_layer_that_is_made_again_is_not_gathered_again():
    """A backward pass gathers each weight once, for the layer made anew and for it."""

    def gathered(remat: str) -> int:
        config = runs.tiny_config(
            prompts__limit=0,
            mesh__fsdp=8,
            preference__batch_size=8,
            model__dtype="bfloat16",
            model__remat=remat,
        )
        mesh = sharding.make_mesh(1, 8, 1)
        setting = plan.setting_on(config, mesh, chips.CHIPS["cpu"])
        stage = plan.plan_stage(setting, "preference")
        one = next(one for one in stage.programs if one.name == "update")
        return compiled.measure(one, mesh).collectives["all-gather"][1]

    assert gathered("full") == pytest.approx(gathered("none"), rel=0.05)


def test_a_program_that_cannot_be_printed_is_measured_all_the_same():
    class Silent:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    assert compiled.sent_by(Silent(), 8) is None


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 2, 4)])
def test_decoding_sends_activations_and_no_weights(shape):
    """A step sends what is a few numbers a slot, and never lays weights out anew."""
    config = runs.tiny_config(
        mesh__data=shape[0],
        mesh__fsdp=shape[1],
        mesh__tensor=shape[2],
        model__dtype="float32",
    )
    setting = plan.setting_on(config, sharding.make_mesh(*shape), chips.CHIPS["cpu"])
    stage = plan.plan_stage(setting, "simulate")
    one = next(one for one in stage.programs if one.name == "decode")
    found = compiled.measure(one, setting.job.mesh)
    sent = sum(size for _, size in found.collectives.values())
    steps = config.engine.steps_per_dispatch
    cfg, layers = setting.cfg, setting.cfg.num_layers
    matrix = 4 * 2 * cfg.mlp_dim * cfg.embed_dim // shape[2]
    assert "all-to-all" not in found.collectives, found.collectives
    assert sent < steps * layers * matrix, found.collectives


def test_sending_is_slower_between_islands():
    moved = messages.Moved((("fsdp", 45e9), ("data", 5e9)))
    program = passes.Program("update", {}, moved=moved)
    two = chips.parse_topology("h100:2x8")

    def seconds(**mesh: int) -> float:
        made = plan.Plan(two, mesh, "", {}, (), 0, 0, plan.Rates())
        return made.sending_seconds(program)

    near, far = 450e9 * chips.LINK_SHARE, 50e9 * chips.LINK_SHARE
    within = seconds(data=2, fsdp=8, tensor=1)
    assert within == pytest.approx(45e9 / near + 5e9 / far)
    # Sixteen ways of fsdp go through both hosts.
    assert seconds(data=1, fsdp=16, tensor=1) == pytest.approx(50e9 / far)


def test_one_device_sends_nothing():
    cfg = presets.get_preset("llama-7b")
    mesh = sharding.abstract_mesh(1, 1, 1, 1)
    update = messages.of_training(
        cfg, mesh, parameters=10**9, tokens=512, models=1, num_micro=2
    )
    read = messages.of_reading(cfg, mesh, tokens=512, models=2)
    drawn = messages.of_decoding(cfg, mesh, rows=64)
    assert update.total == read.total == drawn.total == 0


def test_slices_are_islands():
    both = chips.parse_topology("v5e:4x4", 2)
    assert both.num_devices == 32 and both.island == 16
    assert both.name == "2 x v5e:4x4"
    with pytest.raises(ValueError, match="slices=0; accepted: 1 or more"):
        chips.parse_topology("v5e:4x4", 0)
