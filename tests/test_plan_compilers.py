"""Plans against the compilers of chips that are not there, where those are installed.

They are in the extras `cuda` and `tpu`; without them these tests are left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from rlcd_jax.planning import apart, chips

ROOT = pathlib.Path(__file__).parents[1]
COMPILERS = {"h100:8": "jax_cuda13_plugin", "v5e:2x4": "libtpu"}
CLOSE = 0.10
SMALL = 0.25  # GiB: below it a compiler's own rounding counts


@pytest.mark.parametrize("stage", ["preference", "policy"])
@pytest.mark.parametrize("topology", sorted(COMPILERS))
def test_peaks_are_the_compilers(topology, stage):
    if not importlib.util.find_spec(COMPILERS[topology]):
        pytest.skip(f"{COMPILERS[topology]} is not installed")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.plan", "--compile"),
            *(f"--topology={topology}", f"--stage={stage}", "--format=json"),
            "--config=configs/rlcd.py:task=cheerful,model=tinyllama-1.1b,size=paper",
            "--config.mesh.fsdp=8",
            "--config.policy.micro_batch=64",
        ],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout, done.stderr
    programs = json.loads(done.stdout)["stages"][stage]["programs"]
    assert len(programs) >= 3
    for name, one in programs.items():
        found = one["compiled"]
        assert not found["problem"], (name, found["problem"])
        peak, arguments = (found[key] / 2**30 for key in ("peak", "arguments"))
        assert one["arguments"] == pytest.approx(arguments, rel=0.02, abs=0.01), name
        assert one["peak"] == pytest.approx(peak, rel=CLOSE, abs=SMALL * CLOSE), name


HAVE = {
    "v5e:2x4": {
        "reading": ["fwd"],
        "gradient": ["dkv", "dq", "fwd"],
        "gradient of siblings": ["dkv", "dq", "fwd"],
        "prefill": ["fwd"],
        "decode": [],
    },
    "h100:8": {
        "reading": ["fmhaSoftmax"],
        "gradient": ["fmhaSoftmax", "fmhaSoftmaxBackward"],
        "gradient of siblings": ["fmhaSoftmax", "fmhaSoftmaxBackward"],
        "prefill": ["fmhaSoftmax"],
        "decode": ["one_query"],
    },
}


@pytest.mark.parametrize("topology", sorted(COMPILERS))
def test_programs_have_the_kernels_and_no_scores(topology):
    """Rows of several texts, forwards and backwards, on a mesh; prefill and decoding."""
    if not importlib.util.find_spec(COMPILERS[topology]):
        pytest.skip(f"{COMPILERS[topology]} is not installed")
    length = 768
    own = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "tests/absent_chips.py", topology, str(length)],
        cwd=ROOT,
        env=apart.variables(chips.parse_topology(topology), own)
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), own.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert {name: one["kernels"] for name, one in told.items()} == HAVE[topology]
    for name, one in told.items():
        shapes = [shape.split(",") for shape in one["shapes"]]
        assert any(str(length) in shape for shape in shapes), name
        assert not [s for s in shapes if s.count(str(length)) > 1], name
