"""A job's log as people see it: lines of ours, everybody's warnings, compilations."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

import jax.monitoring
from absl import logging as absl_logging

from rlcd_jax import phases
from rlcd_jax.screen import SCREEN, Screen

CHATTY = ("orbax", "jax")  # packages that say much at the level of information
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # then compiling begins
COMPILED = "/jax/core/compile/backend_compile_duration"
TRACED = "/jax/core/compile/jaxpr_trace_duration"
LONG = 10.0  # seconds of a compilation that has a line of its own


class Handler(logging.Handler):
    """Shows lines with the time of day; a warning says that it is one."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self.addFilter(is_shown)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower()}: " if _warns(record) else ""
        return f"{at} {level}{super().format(record)}"

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        try:
            self._screen.line(self.format(record), "yellow" if _warns(record) else "")
        except Exception:  # a log must not end what it tells of
            self.handleError(record)


def set_up(screen: Screen = SCREEN) -> None:
    """Have all that is logged shown on a screen, in place of absl's own handler."""
    root = logging.getLogger()
    root.removeHandler(absl_logging.get_absl_handler())
    if not any(isinstance(one, Handler) for one in root.handlers):
        root.addHandler(Handler(screen))
    absl_logging.set_verbosity(absl_logging.INFO)


def is_shown(record: logging.LogRecord) -> bool:
    """Say whether a line of the log is shown; a filter of a handler."""
    others = any(f"/{name}/" in record.pathname for name in CHATTY)
    return _warns(record) or not others


def _warns(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


@contextlib.contextmanager
def compilations_shown(screen: Screen = SCREEN) -> Iterator[None]:
    """Show on a screen that a program is compiled; long ones get a line afterwards.

    How long tracing and compiling took is counted in `phases`.
    """

    def look(event: str, seconds: float, **_: object) -> None:
        if event in (TRACED, LOWERED, COMPILED):
            phases.PROCESS.compiled(seconds)
        if event == LOWERED:
            screen.doing = "compiling …"
        elif event == COMPILED:
            screen.doing = ""
            if seconds >= LONG:
                absl_logging.info("compiled a program in %.0f s", seconds)

    with listening(look):
        try:
            yield
        finally:
            screen.doing = ""


@contextlib.contextmanager
def listening(look: Callable[..., None]) -> Iterator[None]:
    """Have a function told of what JAX does: (event, its seconds, …)."""
    jax.monitoring.register_event_duration_secs_listener(look)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(look)
