"""A fixture for packages of tests whose time is the time that XLA compiles.

Their arrays are tiny, so code that is compiled without optimisation runs as fast, and it is there
three times sooner. A package takes it by importing it in its ``conftest.py``.
"""

import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compile():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
