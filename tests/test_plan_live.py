"""What a plan says is held, against the arrays that live in a run on fake devices."""

from __future__ import annotations

import collections
import contextlib
import gc
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import pytest
import runs

from rlcd_jax import stages as stage_table
from rlcd_jax.decode import engine
from rlcd_jax.job import trainer, workspace
from rlcd_jax.planning import advice, chips, plan
from rlcd_jax.ppo import reply_reading
from rlcd_jax.scoring import divergence, letters, rewards

MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
CLOSE = 0.02
# Six texts are planned as six rows, which are read as 16; packed, they are in four.
PACKED = {("evaluate", "best of n"): 0.04}
NOT_YET_PLACED = ("start", "update")


class Ledger:
    """The most bytes that lived on one device whenever a program was begun."""

    def __init__(self) -> None:
        self.most: dict[tuple[str, str], int] = collections.defaultdict(int)
        self.stage, self._before = "", 0

    def begin(self, stage: str) -> None:
        gc.collect()
        self.stage, self._before = stage, live_bytes()

    def note(self, name: str) -> None:
        key = self.stage, name
        self.most[key] = max(self.most[key], live_bytes() - self._before)

    def watched(self, name: str, function: Callable) -> Callable:
        """Return a function that notes what lives when it is called."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.note(name)
            return function(*args, **kwargs)

        return call


def live_bytes() -> int:
    """Return the bytes of all arrays on the first device."""
    first = jax.devices()[0]
    buffers = {
        shard.data.unsafe_buffer_pointer(): shard.data.nbytes
        for array in jax.live_arrays()
        if not array.is_deleted()
        for shard in array.addressable_shards
        if shard.device == first
    }
    return sum(buffers.values())


@contextlib.contextmanager
def watching(ledger: Ledger) -> Iterator[None]:
    """Note what lives before each program of the stages."""

    def method(owner: type, name: str, what: str) -> Any:
        return mock.patch.object(
            owner, name, ledger.watched(what, getattr(owner, name))
        )

    def made(module: Any, name: str, what: Callable[..., str]) -> Any:
        make = getattr(module, name)

        def watched(*args: Any) -> Callable:
            return ledger.watched(what(*args), make(*args))

        return mock.patch.object(module, name, watched)

    readings = {function: name for name, function in reply_reading.READINGS.items()}
    asked = {"simulate": "score", "evaluate": "judge"}
    scored = {
        "preference": "held out",
        "policy": "rewards",
        "evaluate": "best of n",
    }
    with (
        method(trainer.Trainer, "create", "start"),
        method(trainer.Trainer, "update", "update"),
        method(engine.Engine, "dispatch", "decode"),
        made(letters, "letters_program", lambda _: asked[ledger.stage]),
        made(rewards, "reward_program", lambda _: scored[ledger.stage]),
        made(divergence, "divergence_program", lambda *_: "divergence"),
        made(reply_reading, "rows_program", lambda _, function: readings[function]),
    ):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[dict[str, Any], dict[tuple[str, str], int]]:
    """Return each stage's config and the most that lived at each of its programs."""
    config = runs.tiny_config(
        pairs__labels=("construction", "scoring"),
        model__dtype="bfloat16",
        policy__ratio_tolerance=0.1,
        engine__live_buckets=(1024,),
        evaluate__systems=("base", "best_of_n", "distill", "policy"),
        evaluate__best_of=2,
        # A save holds copies until it is written, on accelerators in host memory.
        preference__checkpoint_every=1000,
        policy__checkpoint_every=1000,
        **MESH,
    )
    workdir, ledger = tmp_path_factory.mktemp("live"), Ledger()
    with watching(ledger):
        workspace.open_run(config, workdir)
        for stage in config.stages:
            ledger.begin(stage)
            stage_table.STAGES[stage].run(config, str(workdir))
    # A plan takes held-out prompts to be as long as those of the pairs may be.
    samples = workdir / "evaluate" / "samples.jsonl"
    prompts = [json.loads(line)["prompt"] for line in samples.read_text().splitlines()]
    longest = max(len(prompt.encode()) for prompt in prompts)
    shorter = advice.changed(config, {"pairs.prompt_tokens": longest})
    configs = {name: config for name in config.stages} | {"evaluate": shorter}
    return configs, dict(ledger.most)


def test_what_a_plan_holds_is_what_lives_in_a_run(run):
    configs, most = run
    planned = {}
    for name, config in configs.items():
        (stage,) = plan.make_plan(config, chips.parse_topology("cpu:8"), (name,)).stages
        for one in stage.programs:
            # Batches of updates are placed within what is watched, others before.
            kind = "update" if one.name.startswith("update") else one.name
            batch = one.given.get("other", 0) * (kind in NOT_YET_PLACED)
            planned[name, kind] = one.held - batch
    off = {
        key: (planned[key], size)
        for key, size in most.items()
        if abs(planned[key] - size) > PACKED.get(key, CLOSE) * size
    }
    assert not off, off
    assert {stage for stage, _ in most} == set(configs)
    assert len(most) == 16
