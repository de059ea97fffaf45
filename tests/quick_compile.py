"""Fixtures for tests whose time is the time that XLA compiles.

Their arrays are tiny, so code that is compiled without optimisation runs as fast, and it is there
three times sooner. A package takes the first by importing it in its ``conftest.py``; a test file,
or a folder that is no package, takes the second: pytest would keep the first until the last test.
"""

import jax
import pytest


def _quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


quick_compile = pytest.fixture(scope="package", autouse=True, name="quick_compile")(_quickly)
quick_compile_by_module = pytest.fixture(
    scope="module", autouse=True, name="quick_compile_by_module"
)(_quickly)
