import gc

import pytest

from vone_jax.attacks import attack as attack_module


@pytest.fixture
def programs():
    """A function that returns the number of compiled attacks.

    The programs of earlier tests are gone, or they could go while others are counted.
    """
    attack_module.compiled.clear_cache()
    gc.collect()
    return attack_module.compiled._cache_size
