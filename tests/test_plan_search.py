"""The search: what it ranks first is the fastest of all settings that fit."""

from __future__ import annotations

import itertools

import pytest

from configs import rlcd
from rlcd_jax.planning import advice, chips, plan, search, tables

STAGES = ("simulate", "preference")


def paper(**fields):
    config = rlcd.get_config("task=harmless,model=tinyllama-1.1b")
    return advice.changed(config, {k.replace("__", "."): v for k, v in fields.items()})


def test_rank_is_as_fast_as_trying_everything():
    config, asked = paper(), chips.parse_topology("h100:2")
    found = search.rank(config, asked, STAGES, plan.Rates())
    hours = [one.hours for one in found]
    assert hours == sorted(hours) and hours[0] > 0
    tried = {}
    for data, fsdp, tensor in ((1, 2, 1), (2, 1, 1), (1, 1, 2)):
        for remat, part, slots in itertools.product(("none", "full"), (0, 4), (16, 64)):
            changes = {
                "mesh.data": data,
                "mesh.fsdp": fsdp,
                "mesh.tensor": tensor,
                "model.remat": remat,
                "preference.micro_batch": part,
                "engine.slots_per_device": slots,
            }
            made = plan.make_plan(advice.changed(config, changes), asked, STAGES)
            if made.works:
                tried[tuple(changes.items())] = made.total_hours
    assert tried
    assert hours[0] <= min(tried.values()) * 1.0001


def test_what_is_ranked_fits_and_takes_as_long_as_was_said():
    config, asked = paper(), chips.parse_topology("h100:2")
    found = search.rank(config, asked, ("policy",), plan.Rates())
    assert found
    for one in (found[0], found[len(found) // 2], found[-1]):
        made = plan.make_plan(advice.changed(config, one.changes), asked, ("policy",))
        assert made.works
        assert made.total_hours == pytest.approx(one.hours)
        largest = made.stages[0].largest.total / chips.GIB
        assert one.largest_gib == pytest.approx(largest)


def test_nothing_is_ranked_where_nothing_fits():
    config = rlcd.get_config("task=harmless,model=llama-65b")
    one = chips.parse_topology("v5e:1")
    found = search.rank(config, one, config.stages, plan.Rates())
    assert found == []
    made = plan.make_plan(config, one)
    shown = tables.as_text(tables.Report(made, ranked=found))
    assert "no mesh, batch, remat or number of slots fits" in shown


def test_ranked_settings_are_flags_in_text_and_json():
    config, asked = paper(), chips.parse_topology("h100:2")
    found = search.rank(config, asked, ("simulate",), plan.Rates(price=2.0))
    made = plan.make_plan(config, asked, ("simulate",))
    report = tables.Report(made, ranked=found)
    assert found[0].as_flags() in tables.as_text(report)
    data = tables.as_json(report)
    assert data["ranked"][0]["flags"] == found[0].as_flags()
    assert f"--config.mesh.fsdp={found[0].changes['mesh.fsdp']}" in found[0].as_flags()
