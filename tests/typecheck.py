"""The type checker that tests put around the public functions of the scientific packages.

``tests/conftest.py`` installs it through jaxtyping's import hook, so that the shapes and types that
a function is annotated with are checked at every call. A test that passes a wrong argument on
purpose, to see the function's own error, switches the checker off with
``@pytest.mark.untyped`` (on a test, a class, or ``pytestmark`` of a module).
"""

import jax
import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

PACKAGES = (
    "vone_jax.v1",
    "vone_jax.models",
    "vone_jax.attacks",
    "vone_jax.certification",
    "vone_jax.corruptions",
    "vone_jax.neurophysiology",
    "vone_jax.perception.glue",
    "vone_jax.perception.synthesis",
)

# An integer is accepted where a number is expected, as Python's own typing rules say, and so is an
# array: fields of an attack such as its radius may be traced.
_NUMBERS = FrozenDict(
    {float: float | int | jax.Array | np.ndarray | np.number, int: int | np.integer}
)
check = beartype(conf=BeartypeConf(hint_overrides=_NUMBERS))
