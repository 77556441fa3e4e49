"""Signals that ask a job to leave, in a process of their own."""

import os
import signal
import subprocess
import sys

import pytest

from rlcd_jax import leaving
from rlcd_jax.job import signals

# Two signals at the same time, then one later by a clock that is handed over.
STORY = """
import os, signal
from rlcd_jax import leaving
from rlcd_jax.job import signals
now = [100.0]
with signals.heard(lambda text, *values: print(text % values), lambda: now[0]):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    now[0] += signals.ONE_SIGNAL
    os.kill(os.getpid(), signal.SIGTERM)
    print("lives", leaving.ASKED.is_set(), flush=True)
    now[0] += 0.1
    os.kill(os.getpid(), signal.SIGTERM)
    print("not reached", flush=True)
"""


def test_the_first_signal_asks_and_a_later_one_ends():
    done = subprocess.run(
        [sys.executable, "-c", STORY], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.splitlines() == [
        "SIGTERM: leaving after this step; once more ends at once",
        "lives True",
    ]


@pytest.mark.parametrize("number", signals.ASKING)
def test_handlers_are_put_back(number):
    before, told = signal.getsignal(number), []
    try:
        with signals.heard(lambda *values: told.append(values)):
            assert signal.getsignal(number) != before
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == before
        assert leaving.ASKED.is_set() and told[0][1] == signal.Signals(number).name
    finally:
        leaving.ASKED.clear()
