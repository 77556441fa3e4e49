"""Programs of a plan are compiled in a process of their own, whose devices are fake.

How many devices there are is settled when JAX starts, so that the process that plans
starts the same command again, with a file for the figures.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from rlcd_jax.planning import chips, compiled

FLAG = "measure_to"  # of the command that is started again: the file


def write(figures: compiled.Figures, path: str | pathlib.Path) -> None:
    """Write the compiler's figures for the process that waits for them."""
    pathlib.Path(path).write_text(json.dumps(compiled.as_json(figures)))


def variables(topology: chips.Topology, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that compiles for a topology.

    Args:
      topology: to compile for.
      environ: of the process that plans; its own XLA_FLAGS stay.
    """
    own = (environ.get("XLA_FLAGS", ""), compiled.xla_flags(topology))
    return {
        **environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # another plan may be compiled meanwhile
        "XLA_FLAGS": " ".join(filter(None, own)),
    }


def measure(
    topology: chips.Topology, again: Sequence[str], environ: Mapping[str, str]
) -> compiled.Figures:
    """Return the compiler's figures, from a process whose devices are fake or absent.

    Args:
      topology: to compile for.
      again: the command line to start, program first; with one flag more, `FLAG`, it
        must `write` the figures to that file and end with 0.
      environ: of this process.

    Raises:
      ValueError: it has failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "measured.json")
        done = subprocess.run(
            [*again, f"--{FLAG}={path}"],
            env=variables(topology, environ),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise ValueError(f"compiling failed; its last words: {said[-1]}")
        return compiled.from_json(json.loads(path.read_text()))
