"""progress_bar: lines in a log now and then, a bar on a terminal."""

import io
import logging as std_logging

from rlcd_jax import progress_bar


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_logs_now_and_then_without_terminal(caplog):
    clock = Clock()
    with caplog.at_level(std_logging.INFO, logger="absl"):
        with progress_bar.Progress(
            "simulate",
            100,
            unit="pairs",
            every_seconds=10,
            stream=io.StringIO(),
            clock=clock,
        ) as progress:
            for _ in range(50):
                clock.now += 1.0
                progress.advance(2)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6  # five in the loop and the last
    assert lines[0] == (
        "simulate: 20/100 pairs (20.0 %), 2 pairs/s, 0:10 gone, 0:40 left"
    )
    assert lines[-1] == "simulate: 100/100 pairs (100.0 %), 2 pairs/s, 0:50 gone"


def test_progress_shows_a_bar_on_a_terminal():
    stream = Terminal()
    with progress_bar.Progress("simulate", 4, unit="pairs", stream=stream) as progress:
        progress.advance(4, note="3 dropped")
    assert "4/4" in stream.getvalue() and "3 dropped" in stream.getvalue()
