"""The roll call and the lifeline of a job's processes, as threads on this machine."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from rlcd_jax.job import facts, hosts, lifeline, roll_call

FACTS = {"--config.seed": "1", "--workdir": "/w"}


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    """Threads of one process never close their lines by dying."""
    monkeypatch.setattr(lifeline, "GRACE", 0.5)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def call(count, given, *, seconds=20.0, indices=None, names=()):
    """Hold a roll call of threads; return what each has, an error where it is one."""
    address = f"127.0.0.1:{free_port()}"

    def one(index, own):
        found = hosts.Hosts("variables", address, count, index, names=names)
        try:
            name = f"h{index}"
            return roll_call.hold(found, own, name=name, seconds=seconds, say=print)
        except ValueError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(given)) as pool:
        return list(pool.map(one, indices or range(len(given)), given))


def close(present):
    for line in present.lines.values():
        line.close()


def test_all_who_are_there_and_the_same_go_on_with_open_lines():
    held = call(3, [FACTS] * 3)
    assert [one.names for one in held] == [("h0", "h1", "h2")] * 3
    assert set(held[0].lines) == {1, 2} and set(held[2].lines) == {0}
    for one in held:
        close(one)


def test_a_difference_is_refused_everywhere_with_the_name_of_the_field():
    other = FACTS | {"--config.seed": "2", "contents of p.jsonl": "ab"}
    told = call(3, [FACTS, FACTS, other])
    assert told[0] == told[1] == told[2]
    assert "--config.seed: 1 on processes 0, 1 (h0), 2 on process 2 (h2)" in told[0]
    assert "contents of p.jsonl: absent on processes 0, 1 (h0), ab on" in told[0]
    assert "--workdir" not in told[0]


def test_who_is_missing_is_named_after_the_stated_time():
    started = time.monotonic()
    told = call(3, [FACTS, FACTS], indices=[0, 2], seconds=1.0, names=("a", "b", "c"))
    assert time.monotonic() - started < 10
    assert told[0] == told[1]
    assert "process 1 (host b) did not come within 1 seconds" in told[0]
    assert "there were 2 of 3: 0 on h0, 2 on h2" in told[0]


def test_without_process_0_its_address_is_named():
    (told,) = call(2, [FACTS], indices=[1], seconds=1.0, names=("a", "b"))
    assert "process 0 (host a) did not answer at 127.0.0.1:" in told
    assert "within 1 seconds" in told and "its port open" in told


def test_two_of_one_number_are_refused_with_their_hosts():
    told = call(3, [FACTS] * 3, indices=[0, 1, 1])
    assert all("two processes say that they are process 1 (hosts h1" in t for t in told)


def test_whoever_is_none_of_us_is_not_counted():
    address = f"127.0.0.1:{free_port()}"
    found = hosts.Hosts("variables", address, 2, 0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            roll_call.hold, found, FACTS, name="a", seconds=3.0, say=print
        )
        time.sleep(0.3)
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        kind = f'{{"kind": "{roll_call.KIND}"'
        for said in (
            *("GET / HTTP/1.1", "[" * 50_000, "null", "{}", kind + "}"),
            *(
                f'{kind}, "index": {n}, "host": "b", "facts": {{}}}}'
                for n in (-1, 10**9)
            ),
            kind + ', "index": 1, "host": [], "facts": 3}',
        ):
            with socket.create_connection(place) as stranger:
                stranger.sendall(f"{said}\n".encode())
        with pytest.raises(ValueError, match="there were 1 of 2"):
            waiting.result()


def test_a_stranger_who_speaks_slowly_is_not_listened_to_for_long():
    near, far = socket.socketpair()
    over = threading.Event()

    def drip():
        while not over.wait(0.05):
            far.sendall(b"x")

    with near, far, concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(drip)
        began = time.monotonic()
        assert roll_call._hear(near, 0.3) is None
        over.set()
    assert 0.2 < time.monotonic() - began < 5


class Watched:
    """The lifelines of a job of threads, and what each has ended with."""

    def __init__(self, count, lost_after):
        self.held = call(count, [FACTS] * count)
        self.ended = {}
        self.asked = [threading.Event() for _ in range(count)]
        self.lines = [
            lifeline.Lifeline(
                hosts.Hosts("variables", "a:1", count, index),
                present.names,
                present.lines,
                lost_after=lost_after,
                lost_status=75,
                asked=self.asked[index],
                end=lambda text, status, i=index: self.ended.update(
                    {i: (text, status)}
                ),
            )
            for index, present in enumerate(self.held)
        ]

    def wait(self, indices, seconds=15.0):
        end = time.monotonic() + seconds
        while set(indices) - self.ended.keys() and time.monotonic() < end:
            time.sleep(0.05)
        return [self.ended.get(index) for index in indices]


@contextlib.contextmanager
def watched(count, *, starts, lost_after=30.0):
    job = Watched(count, lost_after)
    for index in starts:
        job.lines[index].start()
    yield job
    for present in job.held:
        close(present)


def test_a_process_that_is_gone_ends_all_others_at_once():
    with watched(3, starts=(0, 1)) as job:
        started = time.monotonic()
        close(job.held[2])  # as the kernel does when a process dies
        ended = job.wait((1, 0))
    assert time.monotonic() - started < 8
    assert {text for text, _ in ended} == {
        f"process 2 (host h2) is gone. {lifeline.GO_ON}"
    }
    assert {status for _, status in ended} == {75}


def test_a_process_that_hangs_is_lost_after_the_stated_silence():
    with watched(3, starts=(0, 1), lost_after=3.0) as job:
        ended = job.wait((1, 0))  # process 2 never beats
    assert "process 2 (host h2) gave no sign of life for 3 s" in ended[0][0]
    assert ended[0] == ended[1]


def test_a_failure_is_told_to_all_with_its_status():
    with watched(3, starts=(0, 1, 2)) as job:
        job.lines[1].fail("no space left", 2)
        ended = job.wait((0, 2))
    assert ended == [("process 1 (host h1) ended: no space left", 2)] * 2


def test_who_has_said_goodbye_is_not_missed():
    with watched(2, starts=(0, 1)) as job:
        job.lines[1].close()
        close(job.held[1])
        assert job.wait((0,), seconds=2.0) == [None]
        job.lines[0].close()


def test_asking_one_to_leave_asks_the_first():
    with watched(3, starts=(0, 1, 2)) as job:
        job.asked[2].set()
        assert job.asked[0].wait(5.0) and not job.asked[1].is_set()
        for line in job.lines:
            line.close()


def test_facts_name_fields_and_hash_the_files_they_name(tmp_path):
    own = tmp_path / "p.jsonl"
    own.write_text("one")
    config = {
        "seed": 1,
        "prompts": {"source": str(own), "data_dir": "/a"},
        "model": {"spec": f"hf:{tmp_path}", "cache_dir": "/b"},
        "evaluate": {"checkpoints": (f"x={own}",)},
    }
    found = facts.gather(config, "w", {"stage": "all"})
    assert found["--config.seed"] == "1" and found["--stage"] == "all"
    assert found["--workdir"].endswith("/w")
    assert not any("data_dir" in name or "cache_dir" in name for name in found)
    own.write_text("two")
    again = facts.gather(config, "w", {"stage": "all"})
    changed = {name for name in found if found[name] != again[name]}
    assert changed == {
        f"contents of {own} (--config.prompts.source)",
        f"contents of {own} (--config.evaluate.checkpoints)",
        f"contents of {tmp_path} (--config.model.spec)",
    }


def test_content_hash_sees_names_and_the_ends_of_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "WHOLE", 2**20)
    large = tmp_path / "weights"
    large.write_bytes(bytes(3 * 2**20))
    before = facts.content_hash(tmp_path)
    (tmp_path / ".lock").touch()
    assert facts.content_hash(tmp_path) == before
    large.write_bytes(bytes(3 * 2**20 - 1) + b"1")
    changed = facts.content_hash(tmp_path)
    assert changed != before
    large.rename(tmp_path / "other")
    assert facts.content_hash(tmp_path) not in (before, changed)
