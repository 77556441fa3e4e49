"""Notes on the shared disk, by which processes meet that work apart for a long time.

A barrier of JAX is a program of all devices, in which who comes first waits; that is
for seconds. Processes that each have work for hours meet by files instead.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time

import jax

from rlcd_jax import leaving, processes

POLL = 0.2  # seconds between two looks
LEAVING = "leaving"


@dataclasses.dataclass(frozen=True)
class DiskNotes:
    """The notes of the processes of a job about one piece of work.

    Attributes:
      folder: that all processes see.
      name: of the work; no other job uses it in this folder at the same time.
    """

    folder: pathlib.Path
    name: str

    def clear(self) -> None:
        """Remove the notes of an earlier job; of the writer, before anyone works."""
        for path in self.folder.glob(f"{self.name}.*.note"):
            path.unlink(missing_ok=True)

    def is_leaving(self) -> bool:
        """Say whether the job was asked to leave.

        A signal that another process gets comes to the writer by itself; the writer
        tells the others here.
        """
        asked, path = leaving.ASKED.is_set(), self._path(LEAVING)
        if asked and processes.is_writer():
            self._leave(LEAVING)
        return asked or path.exists()

    def wait_for_all(self) -> None:
        """Say that this process has done its work; return when all have said so."""
        self._leave(f"process-{jax.process_index()}")
        paths = [self._path(f"process-{i}") for i in range(jax.process_count())]
        while not all(path.exists() for path in paths):
            self.is_leaving()  # which others may wait to hear of
            time.sleep(POLL)

    def _leave(self, what: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path(what).touch()

    def _path(self, what: str) -> pathlib.Path:
        return self.folder / f"{self.name}.{what}.note"
