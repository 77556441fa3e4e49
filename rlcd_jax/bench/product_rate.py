"""How fast this machine multiplies matrices, which training is held against."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

SIDES = {"cpu": 1024, "gpu": 8192, "tpu": 8192}  # of square matrices, by backend


def product_rate(side: int = 0, repeats: int = 5) -> float:
    """Return the operations a second of one large product on one device.

    bfloat16 into float32, as the products of a model are; the best of some tries.

    Args:
      side: of the square matrices; 0: one that keeps this backend busy.
      repeats: tries.
    """
    side = side or SIDES.get(jax.default_backend(), 8192)
    product = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    a = jnp.full((side, side), 1 / side, jnp.bfloat16)
    jax.block_until_ready(product(a))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
