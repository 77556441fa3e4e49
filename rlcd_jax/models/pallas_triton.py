"""JAX's Triton, by which our kernels for NVIDIA GPUs are written.

It takes its time to load, and most jobs need none of it.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def find() -> Any:
    """Return the module of JAX; None where there is none.

    JAX 0.11 says that a later version will be without.
    """
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return None
    return triton
