"""progress_bar and screen: lines without a terminal, bars on one, of any width."""

import io
import logging as std_logging
import re

import pytest

from rlcd_jax import headline, progress_bar, screen
from rlcd_jax.job import logs


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def plain():
    return screen.Screen(io.StringIO())


@pytest.fixture
def lines(caplog):
    caplog.set_level(std_logging.INFO, logger="absl")
    return lambda: [record.getMessage() for record in caplog.records]


def test_progress_logs_now_and_then_without_terminal(plain, lines):
    clock = Clock()
    with progress_bar.Progress(
        "simulate", 100, unit="pairs", every_seconds=10, screen=plain, clock=clock
    ) as progress:
        for _ in range(50):
            clock.now += 1.0
            progress.advance(2)
    assert len(lines()) == 5  # the last of them is the end
    assert lines()[0] == (
        "simulate: 20/100 pairs (20.0 %), 2 pairs/s, 0:10 gone, 0:40 left"
    )
    assert lines()[-1] == "simulate: 100/100 pairs (100.0 %), 2 pairs/s, 0:50 gone"


def test_a_training_has_a_line_a_step_and_goes_on_where_it_was(plain, lines):
    clock = Clock()
    with progress_bar.Progress(
        "policy", 40, done=37, every_seconds=0, screen=plain, clock=clock
    ) as progress:
        for _ in range(3):
            clock.now += 60.0
            progress.advance(1, "reward 0.50")
    assert lines() == [
        "policy: 38/40 steps (95.0 %), 0.0167 steps/s, 1:00 gone, 2:00 left, "
        "reward 0.50",
        "policy: 39/40 steps (97.5 %), 0.0167 steps/s, 2:00 gone, 1:00 left, "
        "reward 0.50",
        "policy: 40/40 steps (100.0 %), 0.0167 steps/s, 3:00 gone, reward 0.50",
    ]


def test_a_short_loop_within_another_has_no_line(plain, lines):
    clock = Clock()

    def inner(seconds):
        with progress_bar.Progress("rollout", 1, screen=plain, clock=clock) as bar:
            clock.now += seconds
            bar.advance()

    with progress_bar.Progress("policy", 1, screen=plain, clock=clock) as outer:
        inner(5.0)
        inner(35.0)
        outer.advance()
    assert [line.partition(":")[0] for line in lines()] == ["rollout", "policy"]
    assert plain.depth == 0


ROW = {
    "rollout/reward_mean": -0.351,
    "rollout/kl_sum_mean": 12.08,
    "rollout/response_length_mean": 123.4,
    "generate/tokens_per_second": 12345.6,
    "optimizer/grad_norm": 17.0,
}
NOTE = "reward -0.35, KL 12.08, length 123, tokens/s 12346"


def test_the_headline_has_what_a_stage_has():
    assert headline.of(ROW) == NOTE
    own = {"preference/loss": 0.69, "preference/accuracy": 0.5, "rate/x": 1.0}
    assert headline.of(own) == "loss 0.690, accuracy 0.50"
    held_out = own | {"preference/held_out_accuracy": 0.75}
    assert headline.of(held_out).endswith(", held out 0.75")
    assert headline.of({"distill/loss": 1.5}) == "loss 1.500"
    assert headline.of({"rollout/reward_mean": -1e-9}) == "reward 0.00"


def shown(width, monkeypatch, **variables):
    """Return what a terminal of some width is sent in a step of PPO."""
    for name, value in {"COLUMNS": str(width), "TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    stream, clock = Terminal(), Clock()
    own = screen.Screen(stream)
    with progress_bar.Progress("policy", 40, screen=own, clock=clock) as steps:
        clock.now += 60.0
        steps.advance(1, NOTE)
        with progress_bar.Progress("rollout 2", 512, unit="replies", screen=own) as bar:
            bar.advance(256, "900 tokens/s")
            own.line("a line of the log")
            own.line(f"15:09:30 {'preference ' * 6}loss 0.696, held out 0.50")
            own.doing = "compiling …"
            own._bars.refresh()
            own.doing = ""
        own.doing = "compiling after"
        own._bars.refresh()
        own.doing = ""
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["colour", "none"])
def test_bars_fit_a_terminal_and_say_what_counts(width, variables, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(width, monkeypatch, **variables)
    coloured = re.findall(r"\x1b\[[\d;]*3\d[\d;]*m", text)
    assert bool(coloured) is not bool(variables)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)
    rows = re.split(r"[\r\n]+", plain)
    assert max(map(len, rows)) <= width
    steps = [row for row in rows if re.match(r"policy.* 1/40 .*reward", row)]
    assert steps and all(
        NOTE in row and row.rstrip().endswith("39:00 left") for row in steps
    )
    assert any(row.startswith("rollout 2") and "compiling …" in row for row in rows)
    assert not any(row.startswith("policy") and "compiling …" in row for row in rows)
    assert any(row.startswith("policy") and "compiling after" in row for row in rows)
    assert "a line of the log" in rows
    told = [row.strip() for row in rows if "loss 0.696" in row or "held out" in row]
    assert all(re.search(r"0\.696,$|0\.50$", row) for row in told) and told


def test_without_a_terminal_nothing_but_lines_is_written(plain, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar.Progress("policy", 1, screen=plain) as bar:
        bar.advance()
        plain.line("[bold]as it is[/bold] :smile:")
    assert plain._console.file.getvalue() == "[bold]as it is[/bold] :smile:\n"


def test_a_dumb_terminal_has_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not screen.Screen(Terminal()).has_bars
    monkeypatch.setenv("TERM", "xterm")
    assert screen.Screen(Terminal()).has_bars


@pytest.fixture
def own_root():
    """Put back the handlers of the log."""
    root = std_logging.getLogger()
    before = root.handlers[:]
    yield root
    root.handlers[:] = before


def test_a_log_line_has_the_time_and_a_warning_its_name(plain, own_root):
    logs.set_up(plain)
    logs.set_up(plain)  # a second command of the process
    std_logging.getLogger("absl").info("begins")
    std_logging.getLogger("absl").warning("is %s", "odd")
    said = plain._console.file.getvalue()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d begins\n\d\d:\d\d:\d\d warning: is odd\n", said
    )


def test_what_is_compiled_is_said_while_it_lasts(plain, lines, monkeypatch):
    sent = []
    monkeypatch.setattr(
        logs.jax.monitoring, "register_event_duration_secs_listener", sent.append
    )
    monkeypatch.setattr(
        logs.jax.monitoring, "unregister_event_duration_listener", sent.remove
    )
    with logs.compilations_shown(plain):
        (tell,) = sent
        tell(logs.LOWERED, 0.1)
        assert plain.doing == "compiling …"
        tell(logs.COMPILED, 0.5)
        assert not plain.doing and not lines()
        tell(logs.LOWERED, 0.1)
        tell(logs.COMPILED, 42.0, fun_name="update")
    assert not sent and lines() == ["compiled a program in 42 s"]


def test_jax_tells_of_a_compilation(plain):
    import jax

    seen = []

    class Watched(screen.Screen):
        def __setattr__(self, name, value):
            if name == "doing":
                seen.append(value)
            super().__setattr__(name, value)

    with logs.compilations_shown(Watched(io.StringIO())):
        jax.jit(lambda x: x * 3 + 0.123)(1.0).block_until_ready()
    assert "compiling …" in seen and seen[-1] == ""
