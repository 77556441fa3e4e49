"""What changes during training, and the one way in which it changes.

A `TrainState` is one pytree: saving and restoring it is all that a resumed run
needs, since every random draw and every batch is a function of (seed, step).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlcd_jax import sharding
from rlcd_jax import tree as trees

Params = Any
Batch = Mapping[str, jax.Array]
# (parameters, batch) -> (loss, metrics); every value a float32 scalar.
LossFn = Callable[[Params, Batch], tuple[jax.Array, dict[str, jax.Array]]]
GRADIENT, ADDED = "optimizer/grad_norm", "optimizer/update_norm"
ALL = ""  # in the place of a model's name
SKIPPED = "optimizer/skipped"  # metric: 1 where an update was left out, else 0


@flax.struct.dataclass
class TrainState:
    """Parameters, the optimizer's moments, and how many updates were made."""

    params: Params
    opt_state: Any
    updates: jax.Array  # [] int32


def create(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state before the first update."""
    return TrainState(
        params=params,
        opt_state=optimizer.init(params),
        updates=jnp.zeros((), jnp.int32),
    )


def part(state: TrainState, name: str) -> TrainState:
    """Return what of a state, or of what is like it, is of one model, or of `ALL`.

    Of one: the optimizer is a partition by the names of the parameters
    (`optax.partition`).
    """
    if name == ALL:
        return state
    own = {name: state.params[name]}
    return TrainState(own, state.opt_state.inner_states[name], state.updates)


def with_part(state: TrainState, name: str, own: TrainState) -> TrainState:
    """Return a state with `own` in the place of what `part` gave."""
    if name == ALL:
        return own
    moments = {**state.opt_state.inner_states, name: own.opt_state}
    return TrainState(
        {**state.params, **own.params},
        state.opt_state._replace(inner_states=moments),
        own.updates,
    )


def optimizer_of(
    optimizer: optax.GradientTransformation, whole: TrainState, name: str
) -> optax.GradientTransformation:
    """Return the optimizer of what `part` gives.

    That of one model sees the others as scalars, and what it does to them nobody
    reads: a partition needs their names.

    Args:
      optimizer: of all; a partition by the names of the parameters, but for `ALL`.
      whole: the state of all, or its shapes.
      name: of the model, or `ALL`.
    """
    if name == ALL:
        return optimizer

    def update(grads: Params, moments: Any, params: Params) -> tuple[Params, Any]:
        others, inner = jax.tree.map(
            lambda leaf: jnp.zeros((), leaf.dtype),
            ({**whole.params, name: {}}, {**whole.opt_state.inner_states, name: ()}),
        )
        updates, new = optimizer.update(
            {**others, **grads},
            whole.opt_state._replace(inner_states={**inner, name: moments}),
            {**others, **params},
        )
        return {name: updates[name]}, new.inner_states[name]

    return optax.GradientTransformation(optimizer.init, update)


def update(
    state: TrainState,
    batch: Batch,
    optimizer: optax.GradientTransformation,
    loss_fn: LossFn,
    *,
    num_micro: int,
    weight: str,
    chooses: bool = False,
    before: Mapping[str, jax.Array] | None = None,
    is_last: bool = True,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Make one optimizer update from one batch, a part at a time.

    Args:
      state: the state before.
      batch: arrays [B, …], or of rows that hold the examples.
      optimizer: as given to `create`.
      loss_fn: mean loss of a part and its metrics, from (parameters, part).
      num_micro: parts; the length of each array must be a multiple.
      weight: name of a bool array of the batch: a part weighs as many entries as it
        has True, which makes the sum over parts the mean over the whole batch.
      chooses: how an update is left out: False: of two programs one is run, as CPUs do
        it in less memory; True: every number is chosen, as accelerators do.
      before: metrics of the models that this batch has updated already, where each is
        updated for itself, or `SKIPPED` of an update that nobody has looked at yet; if
        one of them was left out, this one is too.
      is_last: whether this is the last of them, with which the update is counted.

    Returns:
      The state after, and the metrics, weighted likewise, with `optimizer/grad_norm`,
      `optimizer/update_norm` and `SKIPPED`. Where a metric of the loss or the gradient
      is not finite the state is that before. With `before` a metric of several models
      is their sum, and a norm that of all together.
    """
    grads, metrics = accumulate(
        state.params, batch, loss_fn, num_micro=num_micro, weight=weight
    )
    metrics = {**metrics, GRADIENT: optax.tree.norm(grads)}
    # Of a finite gradient, whose squares have a finite sum, the update is finite.
    fine = jnp.all(jnp.stack([jnp.isfinite(one) for one in metrics.values()]))
    if before is not None:
        fine &= before[SKIPPED] == 0.0
    apply = _apply_and_choose if chooses else _apply_if
    counted = state.updates + is_last
    new, added = apply(optimizer, fine, state, grads, counted)
    metrics[ADDED] = jnp.where(fine, optax.tree.norm(added), 0.0)
    for name, value in (before or {}).items():
        add = jnp.hypot if name in (GRADIENT, ADDED) else jnp.add
        metrics[name] = add(value, metrics[name]) if name in metrics else value
    return new, {**metrics, SKIPPED: 1.0 - fine.astype(jnp.float32)}


def _apply_if(
    optimizer: optax.GradientTransformation,
    fine: jax.Array,
    state: TrainState,
    grads: Params,
    counted: jax.Array,
) -> tuple[TrainState, Params]:
    """Return the state after an update that is `fine`, and what was added.

    One of two programs: XLA for CPUs would hold the arrays before and after at once if
    their results were chosen between. What is added comes out in the place of the
    gradient, which nothing reads afterwards; its norm, taken within the choice, would
    need arrays of its own, as large as the parameters.
    """
    return jax.lax.cond(
        fine,
        lambda: _apply(optimizer, state, grads, counted),
        lambda: (state, grads),
    )


def _apply_and_choose(
    optimizer: optax.GradientTransformation,
    fine: jax.Array,
    state: TrainState,
    grads: Params,
    counted: jax.Array,
) -> tuple[TrainState, Params]:
    """Return what `_apply_if` does, chosen number by number.

    Accelerators choose in the pass that updates, in place; behind a choice of programs
    XLA for GPUs copies parameters and moments once more, a twelfth of what an update of
    1.1B reads and writes.
    """
    new, added = _apply(optimizer, state, grads, counted)
    chosen = jax.tree.map(lambda one, old: jnp.where(fine, one, old), new, state)
    return chosen, added


def _apply(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    grads: Params,
    counted: jax.Array,
) -> tuple[TrainState, Params]:
    """Return the state after one update, and what was added to the parameters."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = TrainState(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        updates=counted,
    )
    return new, updates


def norms(tree: Params) -> dict[str, jax.Array]:
    """Return the norm of each array by its name; of stacked layers, [L], each layer's.

    Others have one norm, [1].
    """
    out = {}
    for name, leaf in trees.flatten_names(tree).items():
        stacked = name.split("/")[0] == "layers" or "/layers/" in name
        rows = leaf.reshape(leaf.shape[0] if stacked else 1, -1)
        out[name] = jnp.linalg.norm(rows.astype(jnp.float32), axis=1)
    return out


def accumulate(
    params: Params, batch: Batch, loss_fn: LossFn, *, num_micro: int, weight: str
) -> tuple[Params, dict[str, jax.Array]]:
    """Return the gradient and metrics of the whole batch; see `update`.

    Raises:
      ValueError: the rows do not divide in the parts.
    """
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    if num_micro == 1:
        (_, metrics), grads = grad_fn(params, batch)
        return grads, metrics

    def split(x: jax.Array) -> jax.Array:
        # Row i goes to part i % num_micro, so that each device keeps its own rows.
        size = len(x)
        if size % num_micro:
            raise ValueError(
                f"a batch of {size} rows does not divide in {num_micro} parts"
            )
        parts = x.reshape(size // num_micro, num_micro, *x.shape[1:]).swapaxes(0, 1)
        return sharding.constrain(parts, (None, "batch") + (None,) * (x.ndim - 1))

    parts = jax.tree.map(split, dict(batch))
    counts = parts[weight].reshape(num_micro, -1).sum(axis=1).astype(jnp.float32)
    shares = counts / jnp.maximum(counts.sum(), 1.0)

    def step(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        (_, metrics), grads = grad_fn(params, part[0])
        return jax.tree.map(lambda t, x: t + part[1] * x, total, (grads, metrics)), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(grad_fn, params, first)
    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), (shapes[1], shapes[0][1])
    )
    (grads, metrics), _ = jax.lax.scan(step, zero, (parts, shares))
    return grads, metrics
