"""A lock is held by one process, outlives none, and tells whom it waits for."""

import json
import subprocess
import sys
import threading
import time

import pytest

from rlcd_jax import locks

HOLD = """
import sys, time
from rlcd_jax import locks
with locks.held(sys.argv[1], lambda line: None):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds):
    """Start a process that holds the lock for so long; return it once it does."""
    command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_is_told_for_whom(tmp_path):
    path, said = tmp_path / "here" / "lock", []
    process = holder(path, 0.7)
    with locks.held(path, said.append):
        assert process.wait() == 0
        assert json.loads(path.read_text())["pid"]
    assert len(said) == 1 and f"held by pid {process.pid} of " in said[0]
    assert path.read_text() == ""


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path):
    path, said = tmp_path / "lock", []
    process = holder(path, 60)
    process.kill()
    process.wait()
    started = time.monotonic()
    with locks.held(path, said.append):
        pass
    assert time.monotonic() - started < 1
    assert len(said) == 1 and f"left behind by pid {process.pid} of " in said[0]


def elsewhere(path):
    """Leave a lock whose holder is on a host that this kernel knows nothing of."""
    who = {"host": "n17.cluster", "pid": 7, "since": "2026-01-01T00:00:00Z"}
    path.write_text(json.dumps(who))


def test_a_holder_elsewhere_is_dead_when_it_gives_no_sign(tmp_path):
    path, said = tmp_path / "lock", []
    elsewhere(path)
    started = time.monotonic()
    with locks.held(path, said.append, stale=0.3):
        assert time.monotonic() - started > 0.3
    assert "held by pid 7 of n17.cluster since 2026" in said[0]
    assert "no sign of pid 7 of n17.cluster" in said[1]


def test_a_holder_elsewhere_that_gives_signs_is_waited_for(tmp_path):
    path, over, entered = tmp_path / "lock", threading.Event(), threading.Event()
    elsewhere(path)

    def live():
        while not over.wait(0.05):
            path.touch()
        path.write_text("")  # as one that gives its lock back

    def take():
        with locks.held(path, lambda line: None, stale=0.4):
            entered.set()

    threads = [threading.Thread(target=run) for run in (live, take)]
    for thread in threads:
        thread.start()
    assert not entered.wait(1.2)
    over.set()
    assert entered.wait(5)
    for thread in threads:
        thread.join()


def test_the_holder_gives_signs(tmp_path):
    path = tmp_path / "lock"
    with locks.held(path, print, beat=0.02):
        before = path.stat().st_mtime_ns
        time.sleep(0.2)
        assert path.stat().st_mtime_ns > before


def test_an_error_gives_the_lock_back(tmp_path):
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), locks.held(path, print):
        raise RuntimeError
    with locks.held(path, pytest.fail):
        pass


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with pytest.raises(ValueError, match="its file system has no locks; mount it with"):
        with locks.held(tmp_path / "lock", print):
            pass
