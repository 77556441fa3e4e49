"""The screen of a process: lines, and under them a bar for each loop under way.

On a terminal the bars stay at the foot and lines run above them; NO_COLOR and narrow
terminals are respected. Elsewhere there are lines alone. It is of the process and not
of a job, as `pulse.LAST` is.
"""

from __future__ import annotations

from typing import TextIO

import rich.console
import rich.progress
import rich.table
import rich.text

NARROW = 100  # columns below which numbers stand without a bar


class Screen:
    """Holds the console and the bars of one process.

    Args:
      stream: where all goes; None: standard error, whatever it is at the time.

    Attributes:
      doing: shown in place of the innermost bar's figures while it lasts, such as
        "compiling …"; "": nothing.
      depth: how many loops are under way, each within the one before.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = rich.console.Console(file=stream, stderr=stream is None)
        self._bars: rich.progress.Progress | None = None
        self.doing = ""
        self.depth = 0

    @property
    def has_bars(self) -> bool:
        """Whether there is a terminal to show bars on.

        rich also calls a pipe one that is asked for colours (FORCE_COLOR).
        """
        console = self._console
        is_one = console.is_terminal and console.file.isatty()
        return is_one and not console.is_dumb_terminal

    @property
    def innermost(self) -> int:
        """The number of the bar of the loop within all others; -1: there is none."""
        return max(self._bars.task_ids, default=-1) if self._bars else -1

    def line(self, text: str, style: str = "") -> None:
        """Show a line, above the bars if there are any; `style` is a colour of rich.

        A terminal gets it cut between words, a file whole.
        """
        whole = not self.has_bars
        self._console.print(rich.text.Text(text, style), soft_wrap=whole)

    def begin(self, what: str, total: int | None, unit: str, done: int) -> int:
        """Begin a loop, within those under way; return the number of its bar."""
        self.depth += 1
        if not self.has_bars:
            return -1
        if self._bars is None:
            self._bars = self._make_bars()
            self._bars.start()
        return self._bars.add_task(
            what, total=total, completed=done, unit=unit, note="", left=""
        )

    def show(self, bar: int, done: int, note: str, left: str) -> None:
        """Show how far a loop is, with figures and the time left, in words."""
        if self._bars is not None and bar >= 0:
            self._bars.update(bar, completed=done, note=note, left=left)

    def end(self, bar: int) -> None:
        """End a loop; its bar goes, and the display with the last one."""
        self.depth -= 1
        if self._bars is None or bar < 0:
            return
        self._bars.remove_task(bar)
        if not self._bars.task_ids:
            self._bars.stop()
            self._bars = None

    def _make_bars(self) -> rich.progress.Progress:
        def whole() -> rich.table.Column:
            return rich.table.Column(no_wrap=True)

        def text(form: str) -> rich.progress.ProgressColumn:
            return rich.progress.TextColumn(form, markup=False, table_column=whole())

        has_room = self._console.width >= NARROW
        return rich.progress.Progress(
            text("{task.description}"),
            *([rich.progress.BarColumn(30, complete_style="cyan")] if has_room else []),
            rich.progress.MofNCompleteColumn(table_column=whole()),
            _Figures(self),
            text("{task.fields[left]}"),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _Figures(rich.progress.ProgressColumn):
    """The figures of a loop, or what the innermost one is waiting for."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Return the cell of one loop."""
        waits = self._screen.doing if task.id == self._screen.innermost else ""
        said = waits or task.fields["note"] or task.fields["unit"]
        style = "yellow" if waits else ""
        return rich.text.Text(said, style, no_wrap=True, overflow="ellipsis")


SCREEN = Screen()
