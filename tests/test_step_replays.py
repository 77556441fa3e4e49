"""One step of a training, made again alone, is what the run has noted of it."""

import json
import re

import pytest
import runs
from test_nonfinite import poison, poison_ppo

from experiments import replay
from rlcd_jax import step_replays
from rlcd_jax.job import trainer


@pytest.fixture(autouse=True)
def _one_device():
    with runs.devices_by_mesh():
        yield


def replayed(capsys, command):
    """Run a command as it is printed; return its exit status and what it says."""
    words = command.split()
    assert words[:3] == ["python", "-m", "experiments.replay"]
    with pytest.raises(SystemExit) as ended:
        replay.main(words[3:])
    return ended.value.code, capsys.readouterr().out


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_command_of_a_note_makes_the_step_again(
    finished_run, tmp_path, monkeypatch, capsys
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config(preference__checkpoint_every=100)
    with monkeypatch.context() as patch:
        poison(patch, 2)
        with pytest.raises(ValueError, match="step 2: not finite") as told:
            runs.run(config, workdir, "preference")
        path = workdir / "preference" / "nonfinite" / "000002.json"
        note = json.loads(path.read_text())
        assert str(told.value).endswith(f"alone: {note['replay']}")
        before = files(workdir)
        code, said = replayed(capsys, note["replay"])
        assert code == 0 and f"as in {path}, within 0.0001" in said
        assert "preference, step 2 is not finite: " in said and "loss = nan" in said
        assert "made again from the checkpoint of step 1\n" in said
        assert re.search(r"preference/trunk/layers/q: \S+ \S+\n", said)
        assert files(workdir) == before  # nothing of the run is written
    # The label is mended: it is finite now, and that is told.
    code, said = replayed(capsys, note["replay"])
    assert code == 1 and "preference, step 2 is finite" in said
    assert f"not as in {path}:" in said and ": was nan, now 0." in said
    # Another batch than the noted one is told too.
    path.write_text(json.dumps(note | {"rows": note["rows"][::-1]}))
    assert f"rows: was {note['rows'][::-1]}" in replayed(capsys, note["replay"])[1]


def test_a_step_is_that_of_the_run_also_behind_a_rollback(
    finished_run, tmp_path, monkeypatch, capsys
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config(
        preference__nonfinite="rollback", preference__checkpoint_every=2
    )
    with config.unlocked():
        config.preference.epochs, config.keep_checkpoints = 4, 2
    poison(monkeypatch, 4)
    runs.run(config, workdir, "preference")
    rows = runs.metric_rows(workdir, "preference")
    made = step_replays.replay_step(workdir, f"preference/{len(rows)}")
    assert made.is_finite and not made.differences
    for name in ("preference/loss", "optimizer/grad_norm"):
        assert made.now["metrics"][name] == pytest.approx(rows[-1][name], rel=1e-5)
    assert "the run noted nothing of this step" in made.report()
    made = step_replays.replay_step(workdir, "preference/4")
    assert not made.is_finite and made.differences == []
    assert made.start < 4 and made.passed == tuple(range(made.start + 1, 4))


def test_a_step_of_ppo_is_made_again(finished_run, tmp_path, monkeypatch, capsys):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    poison_ppo(monkeypatch, 2)
    with pytest.raises(ValueError, match="policy, step 2: not finite"):
        runs.run(runs.tiny_config(), workdir, "policy")
    path = workdir / "policy" / "nonfinite" / "000002.json"
    code, said = replayed(capsys, json.loads(path.read_text())["replay"])
    assert code == 0 and "policy, step 2 is not finite" in said
    assert "minibatch: 1" in said and "norms of gradients, by layer" in said
    monkeypatch.undo()
    with runs.devices_by_mesh():
        made = step_replays.replay_step(workdir, "policy/2")
        runs.run(runs.tiny_config(), workdir, "policy")
    assert made.is_finite and made.now["minibatch"] == 1 and made.differences


def test_a_step_of_distillation_is_made_again(finished_run, tmp_path):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    runs.run(runs.tiny_config("distill"), workdir, "distill")
    rows = runs.metric_rows(workdir, "distill")
    made = step_replays.replay_step(workdir, "distill/1")
    assert made.start == 0 and made.is_finite
    for name in ("distill/loss", "optimizer/grad_norm"):
        assert made.now["metrics"][name] == pytest.approx(rows[0][name], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("simulate/1", r"accepted: STAGE/STEP with a stage that trains \(preference, "),
        ("preference", "accepted: STAGE/STEP"),
        ("policy/0", "a step from 1, such as preference/40"),
        ("policy/99", "policy has 2 steps, and no step 99"),
    ],
)
def test_what_is_no_step_is_named(finished_run, name, match):
    with pytest.raises(ValueError, match=match):
        step_replays.replay_step(finished_run, name)


def test_a_stage_that_is_done_and_has_no_moments_says_so(finished_run, tmp_path):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    trainer.drop_moments(workdir / "preference" / "checkpoints")
    with pytest.raises(ValueError, match="stays with --config.keep_moments"):
        step_replays.replay_step(workdir, "preference/2")
