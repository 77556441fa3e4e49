"""Texts that begin alike, whose common beginning is computed once.

The replies of one prompt are read behind the same tokens. What a layer makes of a token
by itself (norms, products, the residual stream) is made once for all texts that it is
of; for attention alone each text is laid out whole, so that every kernel reads rows of
texts as it does elsewhere. A text's numbers and gradients are those that it has alone.

Letters as in `models.llama`, and S places of a row in which texts are laid out whole,
I texts at most that a token is of. Moves are gathers both ways: what a token gives to
several places comes back from them as their sum, and nothing is scattered.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Siblings:
    """Where the tokens of rows stand in their texts.

    Attributes:
      texts: [B, S] int32, numbers of texts as `llama.hidden_states` takes them.
      sources: [B, S] int32, the token of the row that stands at a place.
      places: [B, T, I] int32, the places of a token, that in its first text first; S:
        there is no such place.
      firsts: [B, S] int32, `sources` of the first place of a token; T elsewhere.
    """

    texts: jax.Array
    sources: jax.Array
    places: jax.Array
    firsts: jax.Array

    def laid_out(self, x: jax.Array) -> jax.Array:
        """Return [B, S, …]: what tokens [B, T, …] have, in each text they are of."""
        return _moved(x, self.sources[..., None], self.places)

    def by_token(self, x: jax.Array) -> jax.Array:
        """Return [B, T, …]: what places [B, S, …] have, of a token's first one."""
        return _moved(x, self.places[..., :1], self.firsts[..., None])


def find(texts: jax.Array, sources: jax.Array, places: jax.Array) -> Siblings:
    """Return where the tokens of rows stand; arguments as `Siblings` has them."""
    length = places.shape[1]
    first = jnp.take_along_axis(places[..., 0], sources, axis=1)
    is_first = (first == jnp.arange(texts.shape[1])) & (texts != 0)
    return Siblings(texts, sources, places, jnp.where(is_first, sources, length))


@jax.custom_vjp
def _moved(x: jax.Array, there: jax.Array, back: jax.Array) -> jax.Array:
    """Return [B, R, …] with sums of entries of x [B, Q, …].

    Args:
      x: is moved.
      there: [B, R, I], which entries are summed; Q: none.
      back: [B, Q, J], where each entry goes; R: nowhere. It says what `there` says.
    """
    return _summed(x, there)


def _summed(x: jax.Array, index: jax.Array) -> jax.Array:
    # XLA for CPUs would gather anew for every use, within what attention lays side by
    # side; it stores what comes out of a loop: one of two passes.
    return jax.lax.platform_dependent(x, index, cpu=_in_halves, default=_picked)


def _in_halves(x: jax.Array, index: jax.Array) -> jax.Array:
    rows, length, num = index.shape
    more = length % 2
    halves = jnp.pad(index, ((0, 0), (0, more), (0, 0)))
    halves = halves.reshape(rows, 2, -1, num).swapaxes(0, 1)
    out = jax.lax.map(lambda half: _picked(x, half), halves).swapaxes(0, 1)
    return out.reshape(rows, length + more, *x.shape[2:])[:, :length]


def _picked(x: jax.Array, index: jax.Array) -> jax.Array:
    """Return [B, R, …], sums of entries of x [B, Q, …], by index [B, R, I]; Q: none."""
    flat = x.reshape(*x.shape[:2], -1)
    total = sum(
        jnp.take_along_axis(flat, each[..., None], axis=1, mode="fill", fill_value=0)
        for each in jnp.moveaxis(index, 2, 0)
    )
    return total.reshape(*index.shape[:2], *x.shape[2:])


def _forward(x: jax.Array, there: jax.Array, back: jax.Array):
    return _summed(x, there), back


def _backward(back: jax.Array, cotangent: jax.Array):
    return _summed(cotangent, back), None, None


_moved.defvjp(_forward, _backward)
