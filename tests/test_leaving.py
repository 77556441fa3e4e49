"""A run that is asked to leave saves, and goes on to the same numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from rlcd_jax import leaving, processes, sharding


@pytest.fixture(autouse=True)
def _nobody_asks():
    yield
    leaving.ASKED.clear()


@pytest.mark.parametrize("stage", ["preference", "distill", "policy"])
def test_a_stage_that_leaves_goes_on_to_the_same_numbers(
    stage, finished_run, tmp_path, monkeypatch
):
    needed = ("pairs", "preference") if stage == "policy" else ("pairs",)
    # Of a run that saves seldom, so that leaving saves a step of its own.
    config = runs.tiny_config(**{f"{stage}__checkpoint_every": 100})
    whole = runs.copy_run(finished_run, tmp_path / "whole", *needed)
    runs.run(config, whole, stage)
    cut = runs.copy_run(finished_run, tmp_path / "cut", *needed)
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: True)
        with pytest.raises(leaving.Left, match=rf"{stage} is saved at .* 1"):
            runs.run(config, cut, stage)
    assert [row["step"] for row in runs.metric_rows(cut, stage)] == [1]
    runs.run(config, cut, stage)
    assert runs.metric_rows(cut, stage) == runs.metric_rows(whole, stage)
    if stage == "policy":
        ours, theirs = ((d / "policy" / "samples") for d in (whole, cut))
        names = sorted(path.name for path in ours.iterdir())
        assert names == sorted(path.name for path in theirs.iterdir())


def test_simulate_leaves_between_its_parts(tmp_path, monkeypatch):
    asked = iter((False, True))
    config = runs.tiny_config(prompts__limit=8, pairs__part_prompts=4)
    monkeypatch.setattr(leaving, "asked", lambda: next(asked))
    with pytest.raises(leaving.Left, match="1 of 2 blocks are drawn"):
        runs.run(config, tmp_path / "cut", "simulate")
    monkeypatch.setattr(leaving, "asked", lambda: False)
    runs.run(config, tmp_path / "cut", "simulate")
    runs.run(config, tmp_path / "whole", "simulate")
    ours, theirs = (
        (tmp_path / name / "pairs" / "pairs.jsonl").read_bytes()
        for name in ("cut", "whole")
    )
    assert ours == theirs


def test_evaluate_leaves_between_systems_and_is_begun_anew(
    finished_run, tmp_path, monkeypatch
):
    needed = ("pairs", "preference", "distill", "policy")
    workdir = runs.copy_run(finished_run, tmp_path / "run", *needed)
    asked = iter((False, True))
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: next(asked))
        with pytest.raises(leaving.Left, match="evaluate keeps nothing before its end"):
            runs.run(runs.tiny_config(), workdir, "evaluate")
    assert not (workdir / "evaluate" / "DONE").exists()
    runs.run(runs.tiny_config(), workdir, "evaluate")
    for name in ("samples.jsonl", "verdicts.jsonl", "table.json"):
        ours, theirs = (
            (folder / "evaluate" / name).read_bytes()
            for folder in (finished_run, workdir)
        )
        assert ours == theirs, name


def test_asked_follows_the_event():
    assert not leaving.asked()
    leaving.ASKED.set()
    with pytest.raises(leaving.Left, match="here"):
        leaving.leave_if_asked("here")


def test_place_puts_each_device_its_part_and_fetch_returns_the_whole():
    mesh = sharding.make_mesh(2, 4, 1)
    rows = {"a": np.arange(16).reshape(8, 2), "b": np.ones(8, bool)}
    placed = processes.place(rows, sharding.batch_sharding(mesh))
    assert placed["a"].sharding.spec == sharding.batch_sharding(mesh).spec
    assert placed["a"].addressable_shards[0].data.shape == (1, 2)
    fetched = processes.fetch({**placed, "c": 3.5, "d": jnp.zeros(2)})
    assert all(not isinstance(one, jax.Array) for one in fetched.values())
    np.testing.assert_array_equal(fetched["a"], rows["a"])
    own = {"a": sharding.replicated(mesh), "b": sharding.batch_sharding(mesh)}
    both = processes.place(rows, own)
    assert both["a"].is_fully_replicated and not both["b"].is_fully_replicated


def test_one_process_is_the_writer_and_waits_for_nobody():
    assert processes.is_writer() and not processes.are_many()
    processes.barrier("nobody else")
    assert processes.agreed("one", True) and not processes.agreed("one", False)
    assert processes.by_writer(lambda: {"a": 1}) == {"a": 1}
    with pytest.raises(ValueError, match="as it is"):
        processes.by_writer(lambda: (_ for _ in ()).throw(ValueError("as it is")))


class Answers:
    """What the processes of a job share, as `agreed` uses it."""

    def __init__(self):
        self.said = {}

    def key_value_set(self, name, value):
        assert name not in self.said  # each question is asked once
        self.said[name] = value

    def blocking_key_value_get(self, name, milliseconds):
        assert milliseconds > 86_400_000
        return self.said[name]


def test_all_follow_the_writer_and_no_other_question_is_answered(monkeypatch):
    shared = Answers()
    monkeypatch.setattr(processes, "are_many", lambda: True)
    monkeypatch.setattr(processes.distributed.global_state, "client", shared)

    def asked(is_writer, *questions):
        monkeypatch.setattr(processes, "is_writer", lambda: is_writer)
        monkeypatch.setattr(processes, "_QUESTIONS", itertools.count())
        return [processes.agreed(*one) for one in questions]

    told = asked(True, ("leaves", False), ("leaves", True), ("is done", False))
    assert told == [False, True, False]
    heard = asked(False, ("leaves", True), ("leaves", False), ("is done", True))
    assert heard == told
    with pytest.raises(KeyError, match="is done/0"):
        asked(False, ("is done", True))
