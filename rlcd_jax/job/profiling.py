"""A trace of a few steps of a stage, by JAX's profiler: what `--profile` asks for.

Steps of a stage that trains are its own. A stage that draws replies is counted by
dispatches of the engine, each some tokens of all slots. Every process of a job writes
what its own devices did, into `profile/STAGE` of the run, of several each into a folder
of its own: the files that xprof and TensorBoard show, `*.trace.json.gz` for Perfetto,
and `operations.md`, which says in words where the time of the devices went. It is of
the process, as `pulse.LAST` is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Sequence

import jax
from absl import logging

from rlcd_jax import processes, stages
from rlcd_jax.job import profiled_operations

FOLDER, FILE = "profile", "operations.md"
STEPS, DISPATCHES = "steps", "dispatches"
DEFAULT = {STEPS: (2, 3), DISPATCHES: (40, 60)}  # by then all is compiled
_FORM = re.compile(r"(?P<stage>[a-z]+)(:(?P<first>\d+)(-(?P<last>\d+))?)?")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which steps are traced: the first and the last of them, counted from 1."""

    stage: str
    first: int
    last: int


def unit_of(stage: str) -> str:
    """Return by what a stage is counted: `STEPS` or `DISPATCHES`."""
    return STEPS if stages.STAGES[stage].batch else DISPATCHES


def read(text: str, asked: Sequence[str]) -> Wanted | None:
    """Return what `--profile=STAGE[:FIRST[-LAST]]` asks for; None where it is empty.

    Args:
      text: that was typed.
      asked: the stages that the command makes.

    Raises:
      ValueError: it is of another form, of no step, or of a stage that is not made.
    """
    if not text:
        return None
    form = _FORM.fullmatch(text)
    stage = form["stage"] if form else ""
    if form is None or stage not in asked:
        raise ValueError(
            f"--profile={text}: accepted: STAGE, STAGE:STEP or STAGE:FIRST-LAST, such "
            f"as {asked[-1]}:2-3, with a stage that this command makes: "
            f"{', '.join(asked)}"
        )
    first, last = DEFAULT[unit_of(stage)]
    if form["first"]:
        first = int(form["first"])
        last = int(form["last"] or first)
    if not 1 <= first <= last:
        raise ValueError(
            f"--profile={text}: from {first} to {last} there is no step; accepted: "
            "FIRST from 1, and LAST not before it"
        )
    return Wanted(stage, first, last)


class Tracer:
    """Begins and ends the trace as a stage goes on."""

    def __init__(self) -> None:
        self.wanted: Wanted | None = None
        self._folder = pathlib.Path()
        self._on = self._over = False
        self._dispatches = 0

    @contextlib.contextmanager
    def stage(
        self, name: str, wanted: Wanted | None, workdir: str | pathlib.Path
    ) -> Iterator[None]:
        """Trace what is wanted while a stage is made.

        Args:
          name: of the stage.
          wanted: steps of it or of another stage; None: nothing is.
          workdir: of the run.
        """
        if wanted is None or wanted.stage != name:
            yield
            return
        self.wanted = wanted
        self._folder = pathlib.Path(workdir) / FOLDER / name
        if processes.are_many():  # on one host they would write the same files
            self._folder /= f"process_{jax.process_index()}"
        self._on, self._over, self._dispatches = False, False, 0
        try:
            yield
            if not (self._on or self._over):
                logging.warning(
                    "--profile: %s came to none of the %s %d to %d, or was done "
                    "before; there is no trace",
                    name,
                    unit_of(name),
                    wanted.first,
                    wanted.last,
                )
        finally:
            self._stop()
            self.wanted = None

    def turns(self, step: int) -> bool:
        """Say whether a trace begins or ends with `at`: nothing is under way then."""
        wanted = self.wanted
        return wanted is not None and step in (wanted.first, wanted.last + 1)

    def at(self, step: int) -> None:
        """Say that a step of a stage that trains begins."""
        if self.wanted is not None and unit_of(self.wanted.stage) == STEPS:
            self._look(step)

    def dispatched(self) -> None:
        """Say that a dispatch of the engine has been read."""
        if self.wanted is not None and unit_of(self.wanted.stage) == DISPATCHES:
            self._dispatches += 1
            self._look(self._dispatches + 1)

    def _look(self, step: int) -> None:
        wanted = self.wanted
        assert wanted is not None, "it was looked at before"
        if step > wanted.last:
            self._stop()
        elif step >= wanted.first and not (self._on or self._over):
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every call of Python would hide the rest
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
            self._on = True

    def _stop(self) -> None:
        if not self._on:
            return
        self._on, self._over = False, True
        jax.profiler.stop_trace()
        told = "--profile: the trace of %s is in %s"
        logging.info(told, self.wanted and self.wanted.stage, self._folder)
        table = profiled_operations.table(self._folder)
        (self._folder / FILE).write_text(table.as_markdown(), "utf-8")
        logging.info("--profile: %s", table.headline())


PROCESS = Tracer()
