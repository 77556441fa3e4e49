"""Processes that work apart meet by files, and hear by files that they are to leave."""

import threading
import types

import pytest

from rlcd_jax import leaving
from rlcd_jax.job import disk_notes


@pytest.fixture
def process(monkeypatch):
    """Return a setter of which process a thread is, of three."""
    own = threading.local()
    fake = types.SimpleNamespace(
        process_index=lambda: own.index, process_count=lambda: 3
    )
    monkeypatch.setattr(disk_notes, "jax", fake)
    monkeypatch.setattr(disk_notes.processes, "is_writer", lambda: own.index == 0)
    monkeypatch.setattr(disk_notes, "POLL", 0.01)
    yield lambda index: setattr(own, "index", index)
    leaving.ASKED.clear()


def test_nobody_goes_on_before_all_have_done_their_work(tmp_path, process):
    notes, over = disk_notes.DiskNotes(tmp_path / "new", "1-of-1"), []

    def work(index):
        process(index)
        notes.wait_for_all()
        over.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(0.2)
    assert not over
    threads[2].start()
    for thread in threads:
        thread.join(10)
    assert sorted(over) == [0, 1, 2]


def test_the_writer_tells_the_others_to_leave(tmp_path, process):
    notes = disk_notes.DiskNotes(tmp_path, "1-of-2")
    process(0)
    assert not notes.is_leaving()
    leaving.ASKED.set()
    assert notes.is_leaving()
    leaving.ASKED.clear()  # another process, which no signal has reached
    process(1)
    assert notes.is_leaving()
    assert not disk_notes.DiskNotes(tmp_path, "2-of-2").is_leaving()


def test_notes_of_an_earlier_job_are_cleared_and_no_others(tmp_path, process):
    notes, other = (disk_notes.DiskNotes(tmp_path, f"{n}-of-2") for n in (1, 2))
    process(0)
    leaving.ASKED.set()
    assert notes.is_leaving() and other.is_leaving()
    leaving.ASKED.clear()
    notes.clear()
    assert not notes.is_leaving() and other.is_leaving()
