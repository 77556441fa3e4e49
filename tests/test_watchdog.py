"""A process that does not move shows where it stands; one that does, only its pulse."""

import json
import subprocess
import sys

import pytest

from rlcd_jax import locks, progress_bar, pulse
from rlcd_jax.job import watchdog, workspace

STALL = """
import sys, time
from rlcd_jax import pulse
from rlcd_jax.job import watchdog
def a_barrier_that_nobody_else_reaches():
    time.sleep(2.5)
with watchdog.watching(sys.argv[1], 1 / 60, look=0.05):
    pulse.beat("rollout 7")
    a_barrier_that_nobody_else_reaches()
"""


def test_a_process_that_does_not_move_shows_its_stacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STALL, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0  # it is told, not ended
    assert "nothing has moved for 0.0 minutes, since rollout 7" in done.stderr
    assert "in a_barrier_that_nobody_else_reaches" in done.stderr
    assert "Timeout (0:00:01)!" in done.stderr


def test_a_process_that_moves_writes_its_heartbeat_alone(tmp_path, capfd):
    with watchdog.watching(tmp_path, 1 / 600, beat=0.01, look=0.01):
        with progress_bar.Progress("rollout 3", 5, unit="replies") as bar:
            for _ in range(5):
                bar.advance()
    (path,) = (tmp_path / watchdog.FOLDER).iterdir()
    said = json.loads(path.read_text())
    assert said["state"] == "ended" and said["moved_at"] == "rollout 3: 5 of 5 replies"
    assert "nothing has moved" not in capfd.readouterr().err
    pulse.beat("the tests")


# --- one writer -----------------------------------------------------------------------


def test_a_second_run_in_a_workdir_is_refused_and_named(tmp_path):
    with workspace.only_writer(tmp_path):
        match = r"workdir .* is being written by pid \d+ of .* since .*\.lock"
        with pytest.raises(ValueError, match=match):
            with workspace.only_writer(tmp_path):
                pass
        with pytest.raises(ValueError, match="is being written"):
            workspace.refuse_if_written(tmp_path)
    with workspace.only_writer(tmp_path):  # free again
        pass
    workspace.refuse_if_written(tmp_path / "new")


def test_the_lock_of_a_dead_run_elsewhere_is_taken_over_and_of_a_live_one_not(
    tmp_path,
):
    who = {"host": "n17.cluster", "pid": 7, "since": "2026-01-01T00:00:00Z"}
    path = tmp_path / "lock"
    path.write_text(json.dumps(who))
    with locks.held(path, lambda line: None, stale=0.3, refuse="it is written"):
        pass
    path.write_text(json.dumps(who))
    touch = subprocess.Popen(
        ["sh", "-c", f"for i in 1 2 3 4 5 6 7 8; do sleep 0.1; touch '{path}'; done"]
    )
    with pytest.raises(ValueError, match="it is written by pid 7 of n17.cluster"):
        with locks.held(path, lambda line: None, stale=5, refuse="it is written"):
            pass
    touch.wait()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    left = tmp_path / "policy" / ".DONE.host.12.tmp"
    left.parent.mkdir()
    left.write_text("{")
    (tmp_path / "metrics.jsonl.new").write_text("")
    with workspace.only_writer(tmp_path):
        assert not left.exists() and not (tmp_path / "metrics.jsonl.new").exists()
