"""A command is one process of its job: signals, others of the job, and its log."""

import contextlib
import logging
import signal

import pytest

from rlcd_jax.job import hosts, joining, logs, membership, signals


@pytest.fixture
def joined(monkeypatch):
    """Stand in for other processes; what the job is told about itself."""
    told = []

    @contextlib.contextmanager
    def join(members, facts, **rest):
        told.append((members, facts, rest))
        yield

    monkeypatch.setattr(joining, "joined", join)
    return told


def one_of_its_job(environ, said):
    return membership.one_of_its_job(
        {"seed": 7},
        "runs/a",
        {"stage": "policy"},
        environ={"TPU_SKIP_MDS_QUERY": "1", **environ},
        start_seconds=3.0,
        lost_seconds=5.0,
        say=lambda text, *values: said.append(text % values),
        end=lambda text, status: None,
    )


def test_alone_it_joins_nobody_and_hears_signals(joined):
    before, said = signal.getsignal(signal.SIGTERM), []
    with one_of_its_job({}, said):
        assert signal.getsignal(signal.SIGTERM) != before
    assert not joined and not said
    assert [signal.getsignal(number) for number in signals.ASKING][0] == before


def test_one_of_many_tells_the_others_what_it_is_about_to_do(joined):
    said = []
    environ = {hosts.COORDINATOR: "a:1", hosts.COUNT: "2", hosts.INDEX: "1"}
    with one_of_its_job(environ, said):
        pass
    ((members, facts, rest),) = joined
    assert (members.coordinator, members.count, members.index) == ("a:1", 2, 1)
    assert (facts["--stage"], facts["--config.seed"]) == ("policy", "7")
    assert (rest["start_seconds"], rest["lost_seconds"]) == (3.0, 5.0)
    assert said[0].startswith("process 1 of 2, by ")


@pytest.mark.parametrize(
    ("path", "level", "shown"),
    [
        ("/lib/orbax/checkpoint/save.py", logging.INFO, False),
        ("/lib/jax/_src/dispatch.py", logging.INFO, False),
        ("/lib/jax/_src/dispatch.py", logging.WARNING, True),
        ("/lib/rlcd_jax/pipeline.py", logging.INFO, True),
    ],
)
def test_of_others_only_warnings_are_shown(path, level, shown):
    record = logging.LogRecord("absl", level, path, 1, "text", None, None)
    assert logs.is_shown(record) is shown
