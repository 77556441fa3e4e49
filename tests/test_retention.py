"""The best checkpoint by a named metric stays beside the newest, and only it."""

import json
import shutil

import pytest
import runs

from rlcd_jax import checkpoint, leaving, metrics, pipeline, retention
from rlcd_jax.job import supervised, workspace

KEEP = {
    "preference__keep_best": "preference/held_out_loss",
    "preference__epochs": 3,
    "preference__held_out": 2,
}


@pytest.fixture(autouse=True)
def _one_device():
    with runs.devices_by_mesh():
        yield


def left(steps, policy, values):
    """Return which of the steps are there in the end, each saved after its value."""
    there = []
    for step in steps:
        policy.best.note(step, values.get(step, {}))
        there.append(type("Info", (), {"step": step})())
        stay = policy.should_preserve(there, context=None)
        there = [one for one, kept in zip(there, stay, strict=True) if kept]
    return [one.step for one in there]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("preference/held_out_accuracy", [20, 50, 60]),  # of equal ones the earliest
        ("preference/held_out_loss", [30, 50, 60]),
        ("", [50, 60]),
    ],
)
def test_the_best_regular_step_stays_beside_the_newest(metric, expected):
    accuracy = {10: 0.5, 20: 0.7, 30: 0.6, 33: 0.9, 40: 0.7, 50: 0.1, 60: 0.2}
    loss = {10: 0.9, 20: 0.7, 30: 0.6, 33: 0.1, 40: 0.7, 50: 0.8, 60: 0.9}
    values = {
        step: {
            "preference/held_out_accuracy": accuracy[step],
            "preference/held_out_loss": loss[step],
        }
        for step in accuracy
    }

    def policy():
        return retention.Regular(2, 10, 60, retention.best_by("preference", metric, []))

    undisturbed = left([10, 20, 30, 40, 50, 60], policy(), values)
    assert undisturbed == expected
    # Asked to leave at 33, the best of all: the same steps are there in the end.
    assert left([10, 20, 30, 33, 40, 50, 60], policy(), values) == expected


def test_what_is_made_again_is_forgotten_and_the_rest_is_read_from_the_rows():
    rows = [{"step": n, "dev/reward_mean": float(n)} for n in (2, 4, 6)]
    best = retention.best_by("policy", "dev/reward_mean", [*rows, {"step": 8}])
    assert best.of([2, 4, 6, 8]) == 6 and best.of([2, 4]) == 4 and best.of([8]) is None
    best.forget(4)
    assert best.of([2, 4, 6, 8]) == 4


def steps_of(workdir):
    return checkpoint.whole_steps(workdir / "preference" / "checkpoints")


def best_of(rows):
    seen = {row["step"]: row["preference/held_out_loss"] for row in rows}
    return min(seen, key=lambda step: (seen[step], step)), seen


def test_a_run_keeps_its_best_step_and_says_so(
    finished_run, tmp_path, monkeypatch, caplog
):
    """Also when it leaves and goes on, and when it is done and the moments go."""
    config = runs.tiny_config(keep_checkpoints=1, **KEEP)
    whole = runs.copy_run(finished_run, tmp_path / "whole", "pairs")
    # The loss falls with every update of so small a run, so an early step is made best.
    own = supervised.Lesson

    def lesson(**given):
        look, calls = given["evaluate"], []

        def evaluate(params):
            calls.append(1)
            return look(params) | {"preference/held_out_loss": FOUND[len(calls) - 1]}

        return own(**given | {"evaluate": evaluate})

    monkeypatch.setattr(supervised, "Lesson", lesson)
    FOUND = [0.9, 0.2, 0.5, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
    with caplog.at_level("INFO"):
        summary = runs.run(config, whole, "preference")["preference"]
    rows = metrics.read_metrics(whole, "preference")
    last = rows[-1]["step"]
    assert last > 3
    expected = {"metric": "preference/held_out_loss", "step": 2, "value": 0.2}
    assert summary["best"] == expected
    assert "the checkpoint of the best preference/held_out_loss is kept" in caplog.text
    assert steps_of(whole) == [2, last]
    # It leaves after its third step and goes on: nothing is different.
    twice = runs.copy_run(finished_run, tmp_path / "twice", "pairs")
    monkeypatch.setattr(leaving, "asked", lambda: len(rows_of(twice)) == 3)

    def rows_of(workdir):
        return metrics.read_metrics(workdir, "preference")

    with pytest.raises(leaving.Left):
        runs.run(config, twice, "preference")
    assert steps_of(twice) == [2, 3]
    monkeypatch.setattr(leaving, "asked", lambda: False)
    FOUND = FOUND[3:]
    again = runs.run(config, twice, "preference")["preference"]
    assert again["best"] == expected and steps_of(twice) == [2, last]
    # Done: the last and the best stay, without moments.
    pipeline._drop_moments(config, str(twice))
    assert steps_of(twice) == [2, last]
    folder = twice / "preference" / "checkpoints"
    assert checkpoint.item_names(folder, 2) == ["preference"]
    assert workspace.finished(config, twice, "preference")
    shutil.rmtree(folder / "2")  # a user may have deleted it
    pipeline._drop_moments(config, str(twice))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"preference__keep_best": "eval/accuracy"},
            "keep_best='eval/accuracy'; accepted: \"\", preference/held_out_accuracy, "
            "preference/held_out_loss",
        ),
        ({"policy__keep_best": "rollout/score_mean"}, 'accepted: "", dev/reward_mean'),
        (
            {"preference__keep_best": "preference/held_out_loss"}
            | {"preference__eval_every": 3, "preference__checkpoint_every": 4},
            "eval_every=3 does not divide preference.checkpoint_every=4",
        ),
        (
            {"preference__keep_best": "preference/held_out_loss"}
            | {"preference__held_out": 0},
            "preference.held_out=0; raise it or set preference.keep_best=''",
        ),
        (
            {"policy__keep_best": "dev/reward_mean", "policy__dev_prompts": 0},
            "needs dev prompts, but policy.dev_prompts=0",
        ),
        (
            {"policy__keep_best": "dev/reward_mean", "policy__choose": "dev_score"},
            "keeps already, in policy/chosen",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_first_stage(fields, said, tmp_path):
    config = runs.tiny_config(**fields)
    with pytest.raises(ValueError) as told:
        runs.run_checked(config, tmp_path / "run", ("simulate", "preference", "policy"))
    assert said in str(told.value)
    assert not (tmp_path / "run" / "pairs").exists()


def test_the_note_of_the_best_survives_json():
    best = retention.best_by(
        "policy", "dev/reward_mean", [{"step": 2, "dev/reward_mean": 1}]
    )
    shown = retention.Regular(1, 2, 4, best).as_summary([2, 4])
    assert json.loads(json.dumps(shown)) == {
        "best": {"metric": "dev/reward_mean", "step": 2, "value": 1.0}
    }
