"""A fixture for tests whose programs run for a moment and are compiled for seconds."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_compiling() -> Iterator[None]:
    """Leave out what makes programs fast, for the tests of the module that imports it.

    What is placed where, sent and added up stays the same.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
