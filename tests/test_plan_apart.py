"""What a plan asks of another process, and how it comes back; what it leaves."""

import json
import sys

import pytest

from rlcd_jax.planning import apart, chips, compiled

FIGURES = {
    "policy": {
        "update": compiled.Measured(peak=7, collectives={"all-gather": (2, 64)}),
        "decode": compiled.Measured(problem="too large"),
    }
}
# Writes what it was given and its environment's flags to the file it is asked for.
FAKE = """
import json, os, sys
path = sys.argv[-1].removeprefix("--measure_to=")
peak = len(os.environ["XLA_FLAGS"].split())
figures = {"policy": {"update": {"peak": peak, "problem": " ".join(sys.argv[1:-1])}}}
open(path, "w").write(json.dumps(figures))
"""


def test_variables_add_the_topologys_flags_to_ones_own():
    topology = chips.parse_topology("cpu:8")
    devices = "--xla_force_host_platform_device_count=8"
    given = {"HOME": "/h", "XLA_FLAGS": "--a=1", "JAX_PLATFORMS": "cuda"}
    found = apart.variables(topology, given)
    assert found["XLA_FLAGS"] == f"--a=1 {devices}"
    assert (found["HOME"], found["JAX_PLATFORMS"]) == ("/h", "cpu")
    assert apart.variables(topology, {})["XLA_FLAGS"] == devices
    assert apart.variables(chips.parse_topology("v5e:2x2"), {})["XLA_FLAGS"] == ""
    assert given["JAX_PLATFORMS"] == "cuda"  # the mapping itself stays


def test_figures_come_back_as_they_were_written(tmp_path):
    apart.write(FIGURES, tmp_path / "figures.json")
    data = json.loads((tmp_path / "figures.json").read_text())
    found = compiled.from_json(data)["policy"]
    assert found["decode"] == FIGURES["policy"]["decode"]
    assert found["update"].peak == 7
    assert tuple(found["update"].collectives["all-gather"]) == (2, 64)


def test_the_command_is_started_again_with_a_file_for_the_figures():
    topology = chips.parse_topology("cpu:8")
    again = [sys.executable, "-c", FAKE, "--compile", "--stage=policy"]
    found = apart.measure(topology, again, {"XLA_FLAGS": "--a=1"})
    one = found["policy"]["update"]
    assert (one.peak, one.problem) == (2, "--compile --stage=policy")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('one\\nthe mesh is wrong')", "the mesh is wrong"),
        ("raise SystemExit(3)", "nothing"),
    ],
)
def test_a_process_that_fails_is_told_by_its_last_words(code, told):
    again = [sys.executable, "-c", code]
    with pytest.raises(ValueError, match=f"compiling failed; its last words: {told}"):
        apart.measure(chips.parse_topology("cpu:8"), again, {})


def test_a_topology_takes_a_share_of_a_gpus_memory():
    whole = chips.parse_topology("h100:8", 2, 0.92)
    assert whole.chip == chips.CHIPS["h100"].with_memory_share(0.92)
    assert (whole.slices, whole.num_devices) == (2, 16)
    with pytest.raises(ValueError, match="accepted: of a GPU"):
        chips.parse_topology("v5e:2x2", 1, 0.5)
