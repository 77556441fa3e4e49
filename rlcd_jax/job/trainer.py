"""One compiled, sharded update and its checkpoints, for every trained model.

Parameters are a dict by what they are ("preference"; "policy"; "policy" and "value"):
each becomes an item of the checkpoint, so that the next stage restores one of them
without the optimizer's moments. Where they are adapters, the base under them is given
to each update, and is no part of the state.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from absl import logging

from rlcd_jax import checkpoint, phases, processes, retention, sharding, tree
from rlcd_jax.job import trained_form
from rlcd_jax.models import lora, table
from rlcd_jax.training import row_arrays, train_state

Params = Any
KEPT = 8  # losses, optimizers and updates of different settings that a process keeps
PACKED = 2**27  # bytes of a checkpoint's item, at least, that are packed at once
OPTIMIZER = "optimizer"  # the checkpoint item of the moments
USEFUL = "rate/useful_tokens"  # metric: of the tokens of all rows, those of a text
SHARED = "rate/shared_tokens"  # metric: of the tokens of texts, those not read again
# What an update is told of the one before, as shapes.
BEHIND = {train_state.SKIPPED: jax.ShapeDtypeStruct((), np.float32)}


class Trainer:
    """The update of one stage; it holds programs, never the state of the training.

    Args:
      mesh: devices of the job.
      specs: parameter tables by item.
      optimizer: of all items together.
      loss_fn: mean loss of a part of a batch, and metrics.
      num_micro: parts in which a batch is taken.
      weight: the array of a batch that says how much a part weighs.
      base: on which the parameters are laid as adapters; None: they are whole models.
      apart: items that are updated one after the other, each by a program of its own,
        so that of one at a time there are a gradient and what its passes keep. The
        optimizer is a partition by them, and the loss that of the items it is given.
        If one that is not the first is not finite, those before it are updated: such a
        state is none to go on with. (): one program updates all, or none.
    """

    def __init__(
        self,
        mesh: jax.sharding.Mesh,
        specs: Mapping[str, Params],
        optimizer: optax.GradientTransformation,
        loss_fn: train_state.LossFn,
        *,
        num_micro: int,
        weight: str,
        base: trained_form.Base | None = None,
        apart: tuple[str, ...] = (),
    ) -> None:
        self.mesh, self.optimizer, self.apart = mesh, optimizer, apart
        self.num_micro, self.weight = num_micro, weight
        self._base, self._scale = base, base and base.scale
        leaves, structure = jax.tree.flatten(dict(specs))  # specs are leaves
        made = _programs(
            mesh,
            tuple(leaves),
            structure,
            optimizer,
            loss_fn,
            num_micro,
            weight,
            self._scale,
            apart,
        )
        self._abstract, self.shardings = made.abstract, made.shardings
        self._create, self._updates = made.create, made.updates
        self._norms = made.norms
        self._rows = sharding.batch_sharding(mesh)

    def create(self, params: Mapping[str, Params]) -> train_state.TrainState:
        """Return the state before the first update; the parameters are used up."""
        with jax.set_mesh(self.mesh):
            return self._create(dict(params))

    def update(
        self,
        state: train_state.TrainState,
        batch: Mapping[str, Any],
        behind: jax.Array | None = None,
    ) -> tuple[train_state.TrainState, dict[str, jax.Array]]:
        """Return the state after one batch, and metrics; the old state is used up.

        Args:
          state: before.
          batch: of `training.packing`, with what the loss reads beside it.
          behind: `train_state.SKIPPED` of an update that the host has not looked at:
            if that was left out, so is this one. None: there is none.
        """
        with jax.set_mesh(self.mesh):
            rows = processes.place(dict(batch), self._rows)
            metrics = {train_state.SKIPPED: self._made if behind is None else behind}
            for number, (name, program) in enumerate(self._updates.items()):
                own = train_state.part(state, name)
                if number and sharding.is_on_cpu(self.mesh):
                    # Or the next would be compiled beside what this one holds.
                    jax.block_until_ready(metrics)
                own, metrics = program(own, self._frozen, rows, metrics)
                state = train_state.with_part(state, name, own)
        return state, {
            **metrics,
            USEFUL: row_arrays.useful_share(batch),
            **({SHARED: row_arrays.shared_share(batch)} if "places" in batch else {}),
        }

    def norms(
        self, state: train_state.TrainState, batch: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Return norms of "parameters" and "gradients" by layer, on the host.

        It is compiled when it is first asked for: when something is not finite.

        Args:
          state: is kept.
          batch: as of `update`.
        """
        with jax.set_mesh(self.mesh):
            rows = processes.place(dict(batch), self._rows)
            return processes.fetch(self._norms(state.params, self._frozen, rows))

    def models(self, state: train_state.TrainState) -> Mapping[str, Params]:
        """Return the models of a state, whole; adapters share the base's arrays."""
        return lora.lay_all(self._frozen, state.params, self._scale)

    @functools.cached_property
    def _made(self) -> jax.Array:
        """What says, in the place of an update, that none was left out."""
        return processes.place(np.zeros((), np.float32), sharding.replicated(self.mesh))

    @property
    def _frozen(self) -> Params:
        """The arrays under the parameters; none where these are whole models."""
        return {} if self._base is None else self._base.params

    @property
    def base_shapes(self) -> Params:
        """The base without values; {} where there is none."""
        return {} if self._base is None else self._base.shapes

    @property
    def model_shapes(self) -> Mapping[str, Params]:
        """The models of a state without values, as `models` returns them."""
        return lora.lay_all(self.base_shapes, self.state_shapes.params, self._scale)

    @property
    def state_shapes(self) -> train_state.TrainState:
        """The state without values: shape, dtype and sharding of each leaf."""
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=where
            ),
            self._abstract,
            self.shardings,
        )

    def lower_create(self) -> jax.stages.Lowered:
        """Return the making of the state as the compiler gets it."""
        with jax.set_mesh(self.mesh):
            return self._create.lower(self.state_shapes.params)

    def lower(
        self, batch: Mapping[str, jax.ShapeDtypeStruct], item: str = train_state.ALL
    ) -> jax.stages.Lowered:
        """Return an update as the compiler gets it; nothing is allocated.

        Args:
          batch: shapes and dtypes of a batch.
          item: of `apart`, that is updated.
        """
        own = train_state.part(self.state_shapes, item)
        with jax.set_mesh(self.mesh):
            return self._updates[item].lower(own, self.base_shapes, dict(batch), BEHIND)

    @property
    def is_adapted(self) -> bool:
        """Whether adapters alone are trained, on a frozen base."""
        return self._base is not None

    @property
    def counts(self) -> dict[str, int]:
        """How many numbers are trained and not, for a summary; {} of whole models."""
        if self._base is None:
            return {}
        return {
            "trained_parameters": tree.count_params(self._abstract.params),
            "frozen_parameters": tree.count_params(self.base_shapes),
        }

    @property
    def saved_bytes(self) -> dict[str, int]:
        """What one checkpoint holds, in bytes by item, before Orbax packs it."""
        return {
            name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(item))
            for name, item in _items(self._abstract).items()
        }

    def open(
        self, folder: os.PathLike[str], regular: retention.Regular
    ) -> checkpoint.Checkpointer:
        """Return what keeps the checkpoints of this training.

        Arrays of CPUs are saved where they lie: without a copy they cannot be used up
        before they are written, so `save` waits for that, and a part is packed at a
        time. Elsewhere a copy in the host's memory is written in the background.

        Args:
          folder: of the checkpoints.
          regular: which stay.
        """
        if not sharding.is_on_cpu(self.mesh):
            return checkpoint.Checkpointer(folder, regular=regular)
        leaves = jax.tree.leaves(self._abstract)
        largest = max(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        return checkpoint.Checkpointer(
            folder,
            regular=regular,
            asynchronous=False,
            most_bytes=max(PACKED, largest + 1),
        )

    def save(
        self,
        folder: checkpoint.Checkpointer,
        step: int,
        state: train_state.TrainState,
        meta: Mapping[str, Any],
    ) -> None:
        """Write everything that changes in training as one step of `folder`."""
        with phases.phase("save"):
            folder.save(step, _items(state), {**meta, **self.note})

    @property
    def note(self) -> dict[str, Any]:
        """What a checkpoint's JSON says of the form of its items; {}: whole models."""
        return {} if self._base is None else self._base.note

    def restore(
        self, folder: checkpoint.Checkpointer | os.PathLike[str], step: int
    ) -> tuple[train_state.TrainState, dict[str, Any]]:
        """Return the state of one step on this mesh, and what was noted with it.

        Args:
          folder: what writes the checkpoints, or where they lie, only to be read.
          step: that is there.
        """
        wanted = _items(self.state_shapes)
        if isinstance(folder, checkpoint.Checkpointer):
            items, meta = folder.restore(step, wanted)
        else:
            items, meta = checkpoint.restore(folder, step, wanted)
        if self._base is not None:
            mine = isinstance(folder, checkpoint.Checkpointer)
            self._base.check(meta, folder.folder if mine else folder)
        optimizer = items.pop(OPTIMIZER)
        state = train_state.TrainState(
            params=items,
            opt_state=optimizer["moments"],
            updates=optimizer["updates"],
        )
        return state, meta

    def start_or_resume(
        self, folder: checkpoint.Checkpointer, make: Callable[[], Mapping[str, Params]]
    ) -> tuple[train_state.TrainState, int, dict[str, Any]]:
        """Return the state to go on from, its step and what was noted with it.

        Args:
          folder: checkpoints of the stage.
          make: returns the parameters at the start; called if there is none.

        A damaged checkpoint is named and set aside, and the one before is taken.

        Raises:
          ValueError: there are checkpoints and all are damaged.
        """
        steps = folder.steps()
        for step in reversed(steps):
            try:
                state, meta = self.restore(folder, step)
            except checkpoint.Damaged as error:
                aside = folder.set_aside(step)
                logging.error("%s\nIts files are now in %s", error, aside)
                continue
            if step < steps[-1]:
                told = "checkpoint of step %d is damaged: goes on from step %d, before"
                logging.warning(told, steps[-1], step)
            return state, step, meta
        if steps:
            raise ValueError(
                f"no checkpoint in {folder.folder} is whole: steps "
                f"{', '.join(map(str, steps))} are damaged and set aside; start the "
                "same command again to train anew, or restore the files"
            )
        return self.create(make()), 0, {}


@dataclasses.dataclass(frozen=True)
class _Programs:
    """Shapes and places of a state, and what is compiled to make and to change it."""

    abstract: train_state.TrainState
    shardings: train_state.TrainState
    create: Callable
    updates: Mapping[str, Callable]  # by item, or of all
    norms: Callable


@functools.lru_cache(maxsize=KEPT)
def _programs(
    mesh: jax.sharding.Mesh,
    leaves: tuple[table.ParamSpec, ...],
    structure: Any,
    optimizer: optax.GradientTransformation,
    loss_fn: train_state.LossFn,
    num_micro: int,
    weight: str,
    scale: float | None,
    apart: tuple[str, ...],
) -> _Programs:
    """Return what trainers of the same settings share; loss and optimizer by identity.

    Whoever makes a loss or an optimizer keeps it for the next who asks for the same.
    """
    specs = jax.tree.unflatten(structure, leaves)
    abstract = jax.eval_shape(
        lambda params: train_state.create(params, optimizer),
        table.abstract_params(specs),
    )
    shardings = _state_shardings(abstract, specs, mesh)

    def loss_on(base: Params) -> train_state.LossFn:
        return lambda params, batch: loss_fn(lora.lay_all(base, params, scale), batch)

    names = apart or (train_state.ALL,)

    def update(name: str) -> Callable:
        """Return the program of an item's update, or of the update of all."""
        where = train_state.part(shardings, name)
        own = train_state.optimizer_of(optimizer, abstract, name)

        def step(
            state: train_state.TrainState,
            base: Params,
            batch: train_state.Batch,
            before: dict[str, jax.Array],
        ) -> tuple[train_state.TrainState, dict[str, jax.Array]]:
            return train_state.update(
                state,
                batch,
                own,
                loss_on(base),
                num_micro=num_micro,
                weight=weight,
                chooses=not sharding.is_on_cpu(mesh),
                before=before,
                is_last=name == names[-1],
            )

        # What a profile shows.
        step.__name__ = "_and_".join(("update", *where.params))
        return jax.jit(
            step,
            in_shardings=(where, None, sharding.batch_sharding(mesh), None),
            out_shardings=(where, sharding.replicated(mesh)),
            donate_argnums=0,
            compiler_options=sharding.compiler_options(mesh),
        )

    create = jax.jit(
        lambda params: train_state.create(params, optimizer),
        out_shardings=shardings,
        donate_argnums=0,
    )
    updates = {name: update(name) for name in names}

    def norms_by_layer(params: Params, base: Params, batch: train_state.Batch):
        grads, _ = train_state.accumulate(
            params, batch, loss_on(base), num_micro=num_micro, weight=weight
        )
        return {
            "parameters": train_state.norms(params),
            "gradients": train_state.norms(grads),
        }

    norms = jax.jit(norms_by_layer, out_shardings=sharding.replicated(mesh))
    return _Programs(abstract, shardings, create, updates, norms)


def drop_moments(folder: str | os.PathLike[str]) -> None:
    """Delete the moments of a finished training; its parameters stay.

    May be called again and be killed at any point; see `checkpoint.drop_items`.

    Args:
      folder: of the checkpoints.
    """
    checkpoint.drop_items(folder, (OPTIMIZER,))


def has_moments(folder: str | os.PathLike[str]) -> bool:
    """Say whether a checkpoint is one that a training can go on from.

    Without any checkpoint it starts anew, which it can.
    """
    steps = checkpoint.whole_steps(folder)
    return not steps or any(
        OPTIMIZER in checkpoint.item_names(folder, step) for step in steps
    )


def micro_batches(name: str, batch_size: int, micro_batch: int, ways: int) -> int:
    """Return in how many parts a batch is taken; 0 takes it whole.

    Raises:
      ValueError: the sizes do not divide; the message names the fields.
    """
    size = micro_batch or batch_size
    if batch_size % size:
        raise ValueError(
            f"{name}.micro_batch={micro_batch} does not divide the batch of "
            f"{batch_size}; choose a divisor, or 0 for the whole batch"
        )
    if size % ways:
        raise ValueError(
            f"{name}: {size} rows at once do not divide among mesh.slices x mesh.data "
            f"x mesh.fsdp = {ways} devices; choose a multiple of {ways}"
        )
    return batch_size // size


def host_metrics(metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Return metrics as Python numbers; waits for the device."""
    return {name: float(x) for name, x in processes.fetch(dict(metrics)).items()}


def _items(state: train_state.TrainState) -> dict[str, Any]:
    moments = {"moments": state.opt_state, "updates": state.updates}
    return {**state.params, OPTIMIZER: moments}


def _state_shardings(
    abstract: train_state.TrainState, specs: dict[str, Params], mesh: jax.sharding.Mesh
) -> train_state.TrainState:
    """Return the shardings of a TrainState: moments lie as their parameters do.

    A moment is told by its path, which ends in that of its parameter; what is left
    are counters, of which every device has a copy.
    """
    params = sharding.param_shardings(specs, mesh)
    by_name = tree.flatten_names(params)
    whole = sharding.replicated(mesh)

    def of_moment(path: Any, leaf: Any) -> Any:
        parts = tree.path_name(path).split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        where = next((by_name[tail] for tail in tails if tail in by_name), None)
        if where is None and leaf.ndim:
            raise ValueError(
                f"optimizer state {'/'.join(parts)} of shape {leaf.shape} belongs to "
                "no parameter"
            )
        return whole if where is None else where

    moments = jax.tree_util.tree_map_with_path(of_moment, abstract.opt_state)
    return train_state.TrainState(params=params, opt_state=moments, updates=whole)
