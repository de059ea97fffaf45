import gc

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from vone_jax.attacks import executor


@pytest.fixture(scope="module")
def batch():
    """Images for ``noisy`` and their labels."""
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))
    return images, jnp.asarray([0, 1, 2, 3, 0, 1])


@pytest.fixture(scope="module")
def noisy():
    """A network with noise."""
    return Partial(toy.noisy_network, toy.make_network(0.5), jnp.float32(0.5))


@pytest.fixture
def programs():
    """A function that returns the number of compiled attacks.

    The programs of earlier tests are gone, or they could go while others are counted.
    """
    compiled = executor.at_once, executor.run
    for function in compiled:
        function.clear_cache()
    gc.collect()
    return lambda: sum(function._cache_size() for function in compiled)


@pytest.fixture
def keys_of(monkeypatch):
    """A function that watches a method of an attack, and returns a list of the keys it gets."""

    def watch(kind, method):
        used, original = [], getattr(kind, method)

        def watched(self, keys, *arguments):
            jax.debug.callback(lambda data: used.append(data.tobytes()), jax.random.key_data(keys))
            return original(self, keys, *arguments)

        monkeypatch.setattr(kind, method, watched)
        return used

    return watch
