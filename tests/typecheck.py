"""The type checker that tests put around the public functions of the scientific packages.

``tests/conftest.py`` installs it through jaxtyping's import hook, so that the shapes and types that
a function is annotated with are checked at every call. A test that passes a wrong argument on
purpose, to see the function's own error, switches the checker off with
``@pytest.mark.untyped`` (on a test, a class, or ``pytestmark`` of a module).
"""

from beartype import BeartypeConf, beartype

PACKAGES = (
    "vone_jax.v1",
    "vone_jax.models",
    "vone_jax.attacks",
    "vone_jax.certification",
    "vone_jax.corruptions",
    "vone_jax.neurophysiology",
    "vone_jax.geometry",
    "vone_jax.synthesis",
)

# An integer is accepted where a number is expected, as Python's own typing rules say.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
