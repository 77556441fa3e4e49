"""Updates given ahead of what is known of them: the numbers are those of waiting."""

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import runs
from test_nonfinite import poison, poison_ppo

from rlcd_jax import checkpoint, leaving, sharding
from rlcd_jax.job import in_flight, nonfinite, profiling, rates
from rlcd_jax.ppo import acting
from rlcd_jax.training import train_state

STAGES = {
    "preference": ("pairs",),
    "distill": ("pairs",),
    "policy": ("pairs", "preference"),
}


@pytest.fixture
def ahead(monkeypatch):
    """Have CPUs work as accelerators do."""
    monkeypatch.setattr(sharding, "works_ahead", lambda mesh: True)


class Program:
    """An update that adds a batch's number, or is left out where that is negative."""

    mesh = None

    def __init__(self, happened):
        self._happened = happened

    def update(self, state, batch, behind=None):
        number = batch["number"]
        self._happened.append(f"make {number}")
        left_out = number < 0 or bool(behind)
        metrics = {train_state.SKIPPED: float(left_out), "number": number}
        return state if left_out else (*state, number), metrics


def train(numbers, ahead, *, landing=()):
    """Return the last state, and what was made and looked at, in order."""
    happened, state = [], ()
    updates = in_flight.Updates(Program(happened))

    def look(said, state):
        happened.append(f"look at {said['number']:g} {state}")

    works_ahead = sharding.works_ahead
    sharding.works_ahead = lambda mesh: ahead
    try:
        for place, number in enumerate(numbers):
            state = updates.make(state, {"number": number}, look)
            if place in landing:
                updates.land(state)
        updates.land(state)
    finally:
        sharding.works_ahead = works_ahead
    return state, happened


def test_the_next_update_is_made_before_the_last_is_looked_at():
    made = ["make 1", "look at 1 (1,)", "make 2", "look at 2 (1, 2)"]
    assert train([1, 2], ahead=False) == ((1, 2), made)
    made = ["make 1", "make 2", "look at 1 (1, 2)", "look at 2 (1, 2)"]
    assert train([1, 2], ahead=True) == ((1, 2), made)
    assert train([1, 2], ahead=True, landing=(0,))[1][1] == "look at 1 (1,)"


def test_what_is_behind_an_update_that_was_left_out_is_made_again():
    state, happened = train([1, -2, 3], ahead=True)
    assert state == (1, 3)
    assert happened == [
        *["make 1", "make -2", "look at 1 (1,)"],
        *["make 3", "look at -2 (1,)", "make 3", "look at 3 (1, 3)"],
    ]


numbers = st.lists(st.sampled_from((1, -1, 2, -2, 3)), max_size=8)


@hypothesis.given(numbers, st.sets(st.integers(0, 7)))
def test_it_comes_to_what_waiting_comes_to(numbers, landing):
    def looks(happened):
        return [one.split(" (")[0] for one in happened if one.startswith("look")]

    waited, ahead = (train(numbers, flag, landing=landing) for flag in (False, True))
    assert ahead[0] == waited[0] == tuple(one for one in numbers if one > 0)
    assert looks(ahead[1]) == looks(waited[1])
    assert len(looks(ahead[1])) == len(numbers)


@pytest.mark.parametrize("ahead", [False, True])
def test_results_are_fetched_in_order_one_being_made_meanwhile(monkeypatch, ahead):
    monkeypatch.setattr(sharding, "works_ahead", lambda mesh: ahead)
    happened = []

    def results():
        for number in range(3):
            happened.append(f"make {number}")
            yield jax.numpy.asarray(number)

    for one in in_flight.fetched(None, results()):
        assert isinstance(one, np.ndarray | np.integer | int)
        happened.append(f"have {int(one)}")
    in_turns = ["make 0", "have 0", "make 1", "have 1", "make 2", "have 2"]
    a_step_ahead = ["make 0", "make 1", "have 0", "make 2", "have 1", "have 2"]
    assert happened == (a_step_ahead if ahead else in_turns)
    assert list(in_flight.fetched(None, [])) == []


@pytest.mark.parametrize("ahead", [False, True])
def test_results_are_begun_and_waited_for_on_cpus_alone(monkeypatch, ahead):
    monkeypatch.setattr(sharding, "works_ahead", lambda mesh: ahead)
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", lambda one: waited.append(one) or one)
    made = (waited.append(f"make {number}") or number for number in (1, 2))
    assert in_flight.begun(None, made) == [1, 2]
    in_turns = ["make 1", 1, "make 2", 2]
    assert waited == (["make 1", "make 2"] if ahead else in_turns)


def test_texts_are_encoded_for_the_rewards_while_models_read(
    finished_run, tmp_path, monkeypatch
):
    happened = []

    def noted(name):
        right = getattr(acting.Actor, name)

        def call(self, *given):
            happened.append(name)
            return right(self, *given)

        monkeypatch.setattr(acting.Actor, name, call)

    for name in ("_begin", "_reward_rows", "_end"):
        noted(name)
    workdir = runs.copy_run(finished_run, tmp_path / "run", *STAGES["policy"])
    runs.run(runs.tiny_config(policy__dev_prompts=0), workdir, "policy")
    step = [*["_begin"] * 3, "_reward_rows", *["_end"] * 3]
    assert happened and happened == step * (len(happened) // len(step))


def trained(workdir, stage):
    """Return what a stage has left: rows without clocks, and arrays by step."""
    folder = workdir / stage / "checkpoints"
    arrays = {
        step: runs.saved_arrays(folder, step) for step in checkpoint.whole_steps(folder)
    }
    return runs.metric_rows(workdir, stage), arrays


def same(found, expected):
    """Say whether rows, and arrays of all steps, are the same to the bit."""
    rows, arrays = zip(found, expected, strict=True)
    return rows[0] == rows[1] and jax.tree.all(
        jax.tree.map(np.array_equal, arrays[0], arrays[1])
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_ends_as_one_that_waits(finished_run, tmp_path, ahead, stage):
    config = runs.tiny_config(**{f"{stage}__checkpoint_every": 3})
    workdir = runs.copy_run(finished_run, tmp_path / "ahead", *STAGES[stage])
    runs.run(config, workdir, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "works_ahead", lambda mesh: False)
        waits = runs.copy_run(finished_run, tmp_path / "waits", *STAGES[stage])
        runs.run(config, waits, stage)
    assert same(trained(workdir, stage), trained(waits, stage))


def both(finished_run, tmp_path, monkeypatch, config, stage, error=None):
    """Train a stage waiting and ahead; return the folders of the two runs."""
    folders = []
    for name, flag in (("waits", False), ("ahead", True)):
        monkeypatch.setattr(sharding, "works_ahead", lambda mesh, flag=flag: flag)
        folders.append(runs.copy_run(finished_run, tmp_path / name, *STAGES[stage]))
        if error is None:
            runs.run(config, folders[-1], stage)
        else:
            with pytest.raises(ValueError, match=error):
                runs.run(config, folders[-1], stage)
    return folders


@pytest.mark.parametrize("rule", nonfinite.RULES)
def test_what_is_not_finite_ends_as_where_it_is_waited_for(
    finished_run, tmp_path, monkeypatch, rule
):
    poison(monkeypatch, 2, 3)
    config = runs.tiny_config(
        preference__nonfinite=rule,
        preference__epochs=4,
        preference__checkpoint_every=100,
        preference__eval_every=100,
    )
    error = "preference, step 2: not finite" if rule == nonfinite.STOP else None
    folders = both(finished_run, tmp_path, monkeypatch, config, "preference", error)
    assert same(*(trained(one, "preference") for one in folders))
    notes = [sorted((one / "preference/nonfinite").iterdir()) for one in folders]
    assert [path.name for path in notes[0]] == [path.name for path in notes[1]]
    texts = [
        [path.read_text().replace(str(folder), "RUN") for path in paths]
        for folder, paths in zip(folders, notes, strict=True)
    ]
    assert texts[0] == texts[1] and "norms" in texts[0][0]


@pytest.mark.parametrize("apart", [False, True])
def test_a_minibatch_that_is_left_out_is_as_where_it_is_waited_for(
    finished_run, tmp_path, monkeypatch, apart
):
    poison_ppo(monkeypatch, 2)
    rule = nonfinite.ROLLBACK if apart else nonfinite.SKIP
    config = runs.tiny_config(policy__nonfinite=rule, policy__checkpoint_every=1)
    folders = both(finished_run, tmp_path, monkeypatch, config, "policy")
    assert same(*(trained(one, "policy") for one in folders))


def test_a_run_that_leaves_has_looked_at_all_that_it_saved(
    finished_run, tmp_path, ahead, monkeypatch
):
    config = runs.tiny_config(preference__checkpoint_every=100)
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    answers = iter((False, True))
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: next(answers))
        with pytest.raises(leaving.Left, match="saved at update 2"):
            runs.run(config, workdir, "preference")
    steps = [row["step"] for row in runs.metric_rows(workdir, "preference")]
    assert steps == [1, 2]


def test_a_trace_begins_and_ends_with_nothing_under_way():
    tracer = profiling.Tracer()
    assert not any(map(tracer.turns, range(5)))
    tracer.wanted = profiling.Wanted("preference", 2, 3)
    assert [step for step in range(1, 6) if tracer.turns(step)] == [2, 4]


def test_rates_of_updates_ahead_are_of_the_whole_time():
    taken = {"time/update_seconds": 1.0, "time/other_seconds": 3.0}
    for ahead, seconds in ((False, 1.0), (True, 4.0)):
        found = rates.of_updates(taken, tokens=8.0, flops=4e12, ahead=ahead)
        assert found == {
            rates.TOKENS: 8.0 / seconds,
            rates.TFLOPS: 4.0 / seconds,
        }
