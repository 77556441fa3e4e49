"""A training on a disk of a few hundred KB that fills up; run in its own namespace."""

import os
import pathlib
import sys

import jax
import numpy as np
import optax
from test_damaged_checkpoints import loss, params_of, specs

from rlcd_jax import checkpoint, outages, record_files, sharding
from rlcd_jax.job import trainer


def fill(path: pathlib.Path) -> None:
    """Take all that is free on a disk, to the last block."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == 28, error


def main(place: pathlib.Path) -> None:
    mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
    program = trainer.Trainer(
        mesh, {"policy": specs()}, optax.adam(1e-3), loss, num_micro=1, weight="w"
    )
    folder, ballast, rows = place / "checkpoints", place / "ballast", place / "rows"
    record_files.write_jsonl(rows, [{"n": 1}])

    def save(step: int) -> None:
        state = program.create(params_of(step))
        with (
            outages.told("stage policy"),
            checkpoint.Checkpointer(folder, max_to_keep=2) as saver,
        ):
            program.save(saver, step, state, {"kl_coef": 0.5})

    save(1)
    fill(ballast)
    for action in (
        lambda: save(2),
        lambda: record_files.write_jsonl(rows, [{"n": 2}] * 5000),
    ):
        try:
            with outages.told("stage policy"):
                action()
        except ValueError as error:
            print(f"told: {error}", flush=True)
    print(f"rows: {record_files.read_jsonl(rows)}", flush=True)
    ballast.unlink()
    with checkpoint.Checkpointer(folder) as saver:
        state, step, meta = program.start_or_resume(saver, lambda: params_of(0))
    wanted = program.create(params_of(step))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    print(f"goes on from step {step} with {meta}", flush=True)
    save(2)
    print(f"steps: {checkpoint.whole_steps(folder)}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(pathlib.Path(sys.argv[1]))
