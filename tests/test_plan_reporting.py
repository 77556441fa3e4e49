"""What a plan's command means: chips and slices, a price, stages, what is refused."""

import json

import pytest
import runs

from rlcd_jax.planning import chips, compiled, plan, reporting

MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}


def test_slices_that_are_named_are_the_configs_too():
    config = runs.tiny_config(**MESH)
    same, one = reporting.name_chips(config, "cpu:8")
    assert same is config and (one.slices, one.num_devices) == (1, 8)
    with_two, two = reporting.name_chips(config, "cpu:8", slices=2)
    assert (two.slices, two.num_devices) == (2, 16)
    assert with_two.mesh.slices == 2 and config.mesh.slices == 1
    again, asked = reporting.name_chips(with_two, "h100:8", memory_share=0.9)
    assert again is with_two and asked.slices == 2
    assert asked.chip == chips.CHIPS["h100"].with_memory_share(0.9)
    with pytest.raises(ValueError, match="slices=-1; accepted: 1 or more"):
        reporting.name_chips(config, "cpu:8", slices=-1)


def test_a_chip_has_its_list_price_unless_one_is_named():
    h100 = chips.CHIPS["h100"]
    assert h100.price > 0 and plan.Rates.on(h100).price == h100.price
    assert plan.Rates.on(h100, price=None, margin=0.2).margin == 0.2
    assert plan.Rates.on(h100, price=0.0).price == 0.0
    assert plan.Rates.on(h100, price=1.5).price == 1.5


def test_a_report_has_the_configs_stages_and_what_its_run_refuses(tmp_path):
    config, asked = runs.tiny_config(**MESH), chips.parse_topology("cpu:8")
    rates = plan.Rates.on(asked.chip)
    report = reporting.make_report(config, asked, (), rates)
    assert [stage.name for stage in report.plan.stages] == list(config.stages)
    assert report.works and not report.problems and not report.measured
    with config.unlocked():
        config.policy.gamma = 2.0
    refused = reporting.make_report(config, asked, ("policy",), rates)
    assert [stage.name for stage in refused.plan.stages] == ["policy"]
    assert not refused.works and "policy.gamma=2.0" in refused.problems[0]
    reporting.leave(refused, tmp_path / "run")
    left = json.loads((tmp_path / "run" / reporting.FILE_NAME).read_text())
    assert left["works"] is False


def test_what_cannot_be_compiled_is_refused_before_the_plan(monkeypatch):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    asked = chips.parse_topology("h100:8")
    with pytest.raises(ValueError, match="needs the CUDA plugin"):
        reporting.make_report(
            runs.tiny_config(**MESH), asked, (), plan.Rates(), measure=dict
        )
