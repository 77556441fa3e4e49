"""Updates that are given to the devices before those before them have been looked at.

While the devices make one, the host reads what is known of the one before, writes it
down and lays out the next batch, so that they need not wait for it. An update behind
one that was left out changes nothing until the host has looked, and is made again then:
what a run writes, saves and stops at is as if each had been waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from rlcd_jax import phases, processes, sharding
from rlcd_jax.job import rates, trainer
from rlcd_jax.training import train_state

# (metrics on the host, the state after): may raise what ends the training, or has it go
# back. Where the update was left out that is the state before.
Look = Callable[[dict[str, float], train_state.TrainState], None]


@dataclasses.dataclass(frozen=True)
class _Flying:
    """An update that the devices have, and who looks at what comes of it."""

    metrics: Mapping[str, Any]
    look: Look


class Updates:
    """Makes the updates of a training, where devices work ahead one before it is known.

    Args:
      program: the compiled update.
    """

    def __init__(self, program: trainer.Trainer) -> None:
        self._program = program
        self._flying: _Flying | None = None

    def make(
        self,
        state: train_state.TrainState,
        batch: Mapping[str, Any],
        look: Look,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> train_state.TrainState:
        """Return the state after a batch; look at the update before, or at this one.

        Args:
          state: before; it is used up.
          batch: as of `Trainer.update`.
          look: is called once what came of this batch is known.
          meanwhile: is done while the devices work.
        """
        before = self._flying
        behind = None if before is None else before.metrics[train_state.SKIPPED]
        with phases.phase(rates.UPDATE):
            state, metrics = self._program.update(state, batch, behind)
            meanwhile()
        if before is not None and _look(before, state):
            with phases.phase(rates.UPDATE):  # it changed nothing
                state, metrics = self._program.update(state, batch)
        self._flying = _Flying(metrics, look)
        if not sharding.works_ahead(self._program.mesh):
            self.land(state)
        return state

    def land(self, state: train_state.TrainState) -> None:
        """Wait for what is under way, and look at it; at once if there is nothing.

        Args:
          state: after it, as `make` returned it.
        """
        flying, self._flying = self._flying, None
        if flying is not None:
            _look(flying, state)


def _look(flying: _Flying, state: train_state.TrainState) -> bool:
    """Look at an update; say whether it was left out."""
    with phases.phase(rates.UPDATE):
        said = trainer.host_metrics(flying.metrics)
    flying.look(said, state)
    return bool(said[train_state.SKIPPED])


def begun(mesh: jax.sharding.Mesh, results: Iterable[Any]) -> list[Any]:
    """Return results of programs on the devices; where these work ahead, not awaited.

    Args:
      mesh: of the programs.
      results: each is made when it is asked for.
    """
    ahead = sharding.works_ahead(mesh)
    return [one if ahead else jax.block_until_ready(one) for one in results]


def fetched(mesh: jax.sharding.Mesh, results: Iterable[Any]) -> Iterator[Any]:
    """Yield results of programs on the host, the next being made meanwhile.

    Args:
      mesh: of the programs.
      results: of the devices; each is made when it is asked for.
    """
    ahead = int(sharding.works_ahead(mesh))
    flying: list[Any] = []
    for one in results:
        flying.append(one)
        if len(flying) > ahead:
            yield processes.fetch(flying.pop(0))
    yield from map(processes.fetch, flying)
