"""One draw of a run, made again by itself, is the same bytes."""

import json
import pathlib
import shutil

import pytest
import runs

from experiments import replay
from rlcd_jax import replaying


@pytest.fixture(autouse=True)
def _one_device():
    with runs.devices_by_mesh():
        yield


def ids_of(workdir):
    lines = (workdir / "pairs" / "pairs.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_a_pair_is_drawn_again_alone(finished_run, capsys):
    wanted = ids_of(finished_run)[3]
    with pytest.raises(SystemExit) as ended:
        replay.main([f"--workdir={finished_run}", f"--pair={wanted}"])
    assert ended.value.code == 0
    line = (finished_run / "pairs" / "pairs.jsonl").read_text().splitlines()[3]
    assert f"all {len(line.encode())} bytes as in" in capsys.readouterr().out


def test_a_reply_of_ppo_is_drawn_again_alone(finished_run):
    assert replaying.replay_sample(finished_run, "2/2").is_same
    # Of other weights, other words: it is the step's own policy that answers.
    first, second = (
        (finished_run / "policy" / "samples" / f"00000{n}.jsonl").read_text()
        for n in (1, 2)
    )
    assert first != second


def test_what_was_edited_is_named(finished_run, tmp_path, capsys):
    workdir = pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))
    path = workdir / "pairs" / "pairs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["reply_1"] += "!"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    with pytest.raises(SystemExit) as ended:
        replay.main([f"--workdir={workdir}", f"--pair={rows[0]['id']}"])
    said = capsys.readouterr().out
    assert ended.value.code == 1 and "not as in" in said and "  reply_1: was" in said
    assert "reply_2" not in said


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda run: replaying.replay_pair(run, "no"), "has no pair 'no'; it has "),
        (lambda run: replaying.replay_sample(run, "2"), "accepted: STEP/LINE"),
        (lambda run: replaying.replay_sample(run, "2/9"), "and no line 9"),
        (lambda run: replaying.replay_sample(run, "7/1"), "000007.jsonl is not there"),
    ],
)
def test_what_is_not_there_is_named(finished_run, call, match):
    with pytest.raises(ValueError, match=match):
        call(finished_run)


def test_weights_that_are_not_kept_are_named(finished_run, tmp_path):
    workdir = pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))
    shutil.rmtree(workdir / "policy" / "checkpoints" / "1")
    with pytest.raises(
        ValueError, match="weights of step 1 are not kept .* those of 2"
    ):
        replaying.replay_sample(workdir, "1/1")
