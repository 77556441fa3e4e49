"""Tests of giving freed memory back to the system."""

import pathlib

import pytest

from rlcd_jax.job import freed_memory

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


def test_another_system_is_left_alone(monkeypatch):
    monkeypatch.setattr(freed_memory, "_trim", lambda: None)
    assert not freed_memory.give_back()
