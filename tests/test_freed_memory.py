"""Tests of giving freed memory back to the system."""

import pathlib
import subprocess
import sys

import jax
import pytest

from rlcd_jax.job import freed_memory, logs

STATUS = pathlib.Path("/proc/self/status")


def resident() -> int:
    """Return the bytes of this process that lie in memory."""
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not freed_memory.give_back(), reason="another C library than glibc")
def test_what_was_freed_goes_back_to_the_system():
    held = [
        b"x" * (60_000 + i % 7) for i in range(4_000)
    ]  # 240 MB, in parts that are kept
    last = bytes(60_000)  # above them, so that nothing below it goes back by itself
    before = resident()
    held.clear()
    kept = resident()
    assert freed_memory.give_back()
    assert before - resident() > 200e6
    assert kept - resident() > 100e6
    assert len(last) == 60_000


@pytest.mark.skipif(not freed_memory.give_back(), reason="another C library than glibc")
def test_large_pieces_go_back_when_they_are_freed_and_stay_so():
    """In a process of its own, for `mallopt` is of a process."""
    told = """
import pathlib, numpy as np
from rlcd_jax.job import freed_memory
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
assert freed_memory.keep_little()
for _ in range(3):
    held = [np.ones(5 * 2**20) for _ in range(5)]  # 40 MB each
    last = np.ones(2**10)
    before = resident()
    del held
    assert before - resident() > 150e6
"""
    subprocess.run([sys.executable, "-c", told], check=True)


@pytest.mark.skipif(not freed_memory.give_back(), reason="another C library than glibc")
def test_pieces_that_are_taken_again_and_again_are_cleared_once():
    """As XLA's products take them: each would be mapped, and cleared, at each call."""
    told = """
import resource, numpy as np
from rlcd_jax.job import freed_memory
def cleared():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert freed_memory.keep_little()
np.ones(6 * 2**17).sum()
before = cleared()
for _ in range(50):
    np.ones(6 * 2**17).sum()  # 6 MB: 1536 pages
assert cleared() - before < 5 * 1536, cleared() - before
"""
    subprocess.run([sys.executable, "-c", told], check=True)


@pytest.mark.parametrize("asked", [freed_memory.give_back, freed_memory.keep_little])
def test_another_system_is_left_alone(monkeypatch, asked):
    monkeypatch.setattr(freed_memory, "_of_library", lambda name: None)
    assert not asked()


def test_programs_that_nobody_needs_any_more_are_let_go():
    program = jax.jit(lambda x: x + 1)
    assert program(1) == 2 and program._cache_size() == 1
    freed_memory.forget_programs()
    assert program._cache_size() == 0
    assert program(2) == 3


def test_what_compiling_took_is_given_back_before_the_program_runs(monkeypatch):
    given, program = [], jax.jit(lambda x: x + len(given))
    monkeypatch.setattr(freed_memory, "give_back", lambda: given.append(1))
    monkeypatch.setattr(freed_memory, "_LARGE", 0.0)
    with freed_memory.compilations_given_back():
        program(1.0)
        assert given
        before = len(given)
        program(2.0)  # there is nothing to compile
        assert len(given) == before
        monkeypatch.setattr(freed_memory, "_LARGE", 0.5)
        jax.monitoring.record_event_duration_secs(logs.COMPILED, 0.4)
        assert len(given) == before
        jax.monitoring.record_event_duration_secs(logs.COMPILED, 0.6)
        assert len(given) == before + 1
    jax.monitoring.record_event_duration_secs(logs.COMPILED, 0.6)
    assert len(given) == before + 1
