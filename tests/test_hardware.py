"""The machines of configs/hardware.py: what they are for fits, at the rates they say."""

from __future__ import annotations

import pytest

from configs import hardware, paper, rlcd
from rlcd_jax.planning import chips, plan

TOPOLOGIES = {"8xh100": "h100:8", "v5e-64": "v5e:8x8", "v5p-16": "v5p:2x2x4"}
STAGES = ("simulate", "preference", "policy", "evaluate")


def make(machine: str) -> plan.Plan:
    """Return the plan of the paper's sizes on a machine."""
    name = machine.removesuffix("-30b")
    large = name != machine
    model = "llama-30b" if large else "llama-7b"
    config = rlcd.get_config(f"task=harmless,model={model},hardware={machine}")
    stages = ("simulate",) if large else STAGES
    return plan.make_plan(config, chips.parse_topology(TOPOLOGIES[name]), stages)


@pytest.mark.parametrize("machine", sorted(hardware.HARDWARE))
def test_what_a_machine_is_for_fits(machine):
    made = make(machine)
    verdicts = {
        stage.name: (made.verdict(stage), stage.problem) for stage in made.stages
    }
    assert set(verdicts.values()) == {(plan.FITS, "")}


@pytest.mark.parametrize("machine", sorted(hardware.RATES))
def test_rates_are_those_of_the_plan(machine):
    made = make(machine)
    stages = {stage.name: stage for stage in made.stages}
    seconds = {
        name: {one.name: made.seconds(one) for one in stage.programs}
        for name, stage in stages.items()
    }
    config = rlcd.get_config("task=harmless,model=llama-7b")
    drawn = 2 * made.train_prompts * config.pairs.reply_tokens
    drawing = seconds["simulate"]["decode"] + seconds["simulate"]["prefill 256"]
    pairs = made.train_prompts - config.preference.held_out
    section = config.policy
    tokens = 2 * pairs * config.preference.lengths[-1]
    length = section.prompt_tokens + section.reply_tokens
    tokens += 2 * section.epochs * section.steps * section.rollouts * length
    training = sum(
        seconds[stage][name]
        for stage in ("preference", "policy")
        for name in seconds[stage]
        if name.startswith("update")
    )
    rates = hardware.RATES[machine]
    assert rates["generate"] == pytest.approx(drawn / drawing, rel=0.1)
    assert rates["train"] == pytest.approx(tokens / training, rel=0.1)
    assert rates["price"] == pytest.approx(
        made.topology.num_devices * made.topology.chip.price
    )


def test_a_machine_of_the_tables_sets_their_runs_and_rates():
    config = paper.get_config("table=3,scale=llama-7b,hardware=v5e-64")
    assert (config.run.mesh.fsdp, config.run.mesh.tensor) == (16, 4)
    assert config.rates.price == hardware.RATES["v5e-64"]["price"]
    assert "v5e-64" in config.rates.hardware
    with pytest.raises(ValueError, match="hardware='9xh100'; accepted: 8xh100"):
        paper.get_config("table=3,hardware=9xh100")
