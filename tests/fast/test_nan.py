"""NaN in what reduces an array, on a CPU, where XLA ignores it in a maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast

SHAPE = (2, 7, 7, 512)


def with_nan(place):
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    values[place] = np.nan
    return values


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 3, 3, 200), (1, 6, 6, 511), (0,)])
def test_reductions_of_rectified_and_largest_values_keep_nan(place):
    """NumPy's maximum keeps NaN."""
    values = with_nan(place)
    rectified = np.maximum(values, 0)
    for axis in (None, (1, 2), (1, 2, 3), -1):
        mean = jax.jit(lambda x: fast.relu(x).mean(axis))(values)  # noqa: B023
        np.testing.assert_allclose(mean, rectified.mean(axis), rtol=1e-4, atol=1e-6)
        largest = jax.jit(lambda x: fast.largest(x, axis))(values)  # noqa: B023
        np.testing.assert_array_equal(largest, values.max(axis))


def test_a_relu_has_the_values_and_gradients_of_jax():
    values = jnp.array([-jnp.inf, -1.0, -0.0, 0.0, 1e-30, 2.0, jnp.inf])
    np.testing.assert_array_equal(fast.relu(values), jax.nn.relu(values))
    slope = jax.vmap(jax.grad(fast.relu))(values)
    np.testing.assert_array_equal(slope, jax.vmap(jax.grad(jax.nn.relu))(values))
    assert fast.relu(values.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_gradient_of_the_largest_value_is_that_of_jax():
    values = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5)), jnp.float32)
    total = lambda maximum: jax.grad(lambda x: jnp.sum(maximum(x, -1)))(values)  # noqa: E731
    np.testing.assert_array_equal(total(fast.largest), total(jnp.max))
