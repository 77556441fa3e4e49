"""A fixture for tests whose programs run for longer than they are compiled."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def whole_compiling() -> Iterator[None]:
    """Let the compiler do all it can, for the tests of the module that imports it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
